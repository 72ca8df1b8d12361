"""What the stories told with xds-server share: processes, waiting, and a proxy's bootstrap."""
import ctypes
import http.client
import pathlib
import signal
import socket
import subprocess
import threading
import time

HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}
DRAIN = ["--drain-time-s", "1"]
ENVOY_ARGS = ["--use-dynamic-base-id", "--drain-strategy", "immediate", "-l", "warning"]


class Failed(Exception):
    """A claim of the story that did not hold."""


class Ended(Failed):
    """A process is gone: no use waiting for it."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(limit, what, check):
    """Polls until check() is true. A Failed of the check is the reason given at the end."""
    end, reason = time.monotonic() + limit, ""
    while True:
        try:
            if check():
                return
        except Ended:
            raise
        except (Failed, OSError, http.client.HTTPException) as error:
            reason = f": {error}"
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {limit} s{reason}")
        time.sleep(0.01)


def get(address, path, host=None):
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path, headers={"host": host or "any.example"})
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()


class Process:
    """A child whose output goes to a file and which does not outlive this program."""

    def __init__(self, command, log):
        self.log = pathlib.Path(log)
        with open(log, "ab") as output:
            self.child = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                preexec_fn=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))

    def kill(self):
        self.child.kill()
        self.child.wait()

    def alive(self):
        if self.child.poll() is not None:
            raise Ended(f"{self.child.args[0]} ended with {self.child.returncode}")
        return True

    def tail(self):
        return self.log.read_text(errors="replace")[-2000:]


class Requests(threading.Thread):
    """One keep-alive client that asks for / until told to stop; every answer must be 200."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(address, timeout=5)
        self.count, self.failures, self.stopping = 0, [], False

    def run(self):
        while not self.stopping:
            try:
                self.connection.request("GET", "/", headers={"host": "any.example"})
                response = self.connection.getresponse()
                body = response.read()
                if response.status != 200:
                    self.failures.append(f"{response.status} {body!r}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                self.connection.close()
            self.count += 1
            time.sleep(0.002)

    def stop(self):
        self.stopping = True
        self.join()
        self.connection.close()
        if self.failures:
            raise Failed(f"{len(self.failures)} of {self.count} requests failed, first: {self.failures[0]}")
        return self.count


def bootstrap(node, variant, management):
    """One aggregated stream of the variant, everything else over it."""
    xds = {"name": "xds_cluster", "type": "STATIC", "connect_timeout": "2s",
           "typed_extension_protocol_options": HTTP2,
           "load_assignment": {"cluster_name": "xds_cluster", "endpoints": [{"lb_endpoints": [
               {"endpoint": {"address": loopback(management)}}]}]}}
    ads = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {"id": node, "cluster": "interop"},
        "admin": {"address": loopback(0)},
        "static_resources": {"clusters": [xds]},
        "dynamic_resources": {
            "lds_config": ads, "cds_config": ads,
            "ads_config": {"api_type": "DELTA_GRPC" if variant == "delta" else "GRPC", "transport_api_version": "V3",
                           "grpc_services": [{"envoy_grpc": {"cluster_name": "xds_cluster"}}]}}}


def loopback(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
