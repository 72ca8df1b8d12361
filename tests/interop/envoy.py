#!/usr/bin/env python3
"""Real Envoy, and then nuncio, fed by xds-server from the same files.

Each proxy in each variant lives through the same story: the files are served, edits take effect, a bad
edit is refused while the last good set goes on, the proxy is killed and comes back, the management
server is killed and comes back. The answers at every stage must be the expected ones, so both proxies
agree; requests sent all along must not fail.

    envoy.py --envoy PATH --nuncio PATH --xds-server PATH
"""
import argparse
import contextlib
import http.server
import json
import pathlib
import signal
import sys
import tempfile
import threading

from common import DRAIN, ENVOY_ARGS, Failed, Process, Requests, bootstrap, free_port, get, wait

RESOURCES = pathlib.Path(__file__).resolve().parent / "resources"


class Origin(http.server.BaseHTTPRequestHandler):
    """Answers its server's name and the path it was asked for."""
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.server.name} {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def start_origin(name):
    """Serves on a free loopback port until the program ends; returns the port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    server.daemon_threads, server.name = True, name
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


class Files:
    """The folder xds-server watches, rendered from the templates beside this script."""

    def __init__(self, folder, **words):
        self.folder, self.words = pathlib.Path(folder), words
        self.folder.mkdir()
        for template in RESOURCES.glob("*.yaml"):
            self.render(template.name)

    def edit(self, name, **words):
        self.words.update(words)
        self.render(name)

    def render(self, name):
        text = (RESOURCES / name).read_text()
        for word, value in self.words.items():
            text = text.replace(f"@{word}@", str(value))
        # Replaced whole, by a name that is not a resource file's until the rename.
        fresh = self.folder / f".{name}.new"
        fresh.write_text(text)
        fresh.rename(self.folder / name)


def expected(words, origins):
    """What the files say: host, path -> status, body, location."""
    second = origins[words["SECOND"]]
    default = second if words["DEFAULT"] == "two" else "one"
    return {
        ("any.example", "/"): (200, f"{default} /", None),
        ("any.example", "/a/b?c=d"): (200, f"{default} /a/b?c=d", None),
        ("any.example", "/exact"): (200, f"{second} /exact", None),
        ("any.example", "/exact/more"): (200, f"{default} /exact/more", None),
        ("any.example", "/two/x"): (200, f"{second} /two/x", None),
        ("any.example", "/item/42"): (200, f"{second} /item/42", None),
        ("any.example", "/item/x"): (200, f"{default} /item/x", None),
        ("any.example", "/direct"): (418, words["DIRECT"], None),
        ("any.example", "/moved/on"): (301, "", "http://new.example/moved/on"),
        ("any.example", "/weighted"): (200, f"{second} /weighted", None),
        ("any.example", "/nobody"): (503, "no healthy upstream", None),
        ("api.example", "/"): (200, f"{second} /", None),
        ("a.suffix.example", "/x"): (200, f"{second} /x", None),
        ("prefix.of.example", "/x"): (200, "one /x", None),
        ("closed.example", "/open"): (200, "one /open", None),
        ("closed.example", "/shut"): (404, "", None),
    }


def has_ack(part):
    """Whether a status says anywhere that a version was ACKed. Its exact shape is xds-server's affair."""
    if isinstance(part, dict):
        return any(("ack" in key.lower() and "nack" not in key.lower() and value) or has_ack(value)
                   for key, value in part.items())
    return isinstance(part, list) and any(map(has_ack, part))


class Story:
    """One proxy, one variant."""

    def __init__(self, args, proxy, variant, origins, folder, cleanup):
        self.args, self.proxy_name, self.variant, self.origins, self.folder = args, proxy, variant, origins, folder
        self.cleanup, self.node, self.requests = cleanup, f"{proxy}-{variant}", None
        ports = {name: port for port, name in origins.items()}
        self.second, self.third = ports["two"], ports["three"]
        self.files = Files(folder / "resources", GATEWAY=free_port(), SERVER="first", DEFAULT="one",
                           ONE=ports["one"], SECOND=self.second, REGEX="/item/[0-9]+", DIRECT="short and stout")
        self.gateway = f"127.0.0.1:{self.files.words['GATEWAY']}"
        self.management, self.status = free_port(), f"127.0.0.1:{free_port()}"
        (folder / "bootstrap.yaml").write_text(json.dumps(bootstrap(self.node, variant, self.management)))

    def start(self, name, command):
        process = Process(command, self.folder / f"{name}.log")
        self.cleanup.callback(process.kill)
        return process

    def start_server(self):
        self.server = self.start("xds-server", [
            self.args.xds_server, "--config", self.files.folder, "--listen", f"127.0.0.1:{self.management}",
            "--status", self.status])
        wait(10, "the status API answers", lambda: self.server.alive() and get(self.status, "/")[0].status == 200)

    def start_proxy(self):
        admin = self.folder / "admin-address"
        admin.unlink(missing_ok=True)
        binary, more = (self.args.envoy, ENVOY_ARGS) if self.proxy_name == "envoy" else (self.args.nuncio, [])
        self.proxy = self.start(self.proxy_name, [
            binary, "-c", self.folder / "bootstrap.yaml", "--concurrency", "2", "--admin-address-path", admin,
            *DRAIN, *more])
        wait(20, "the proxy is ready", lambda: self.proxy.alive() and admin.exists()
             and get(admin.read_text().strip(), "/ready")[0].status == 200)

    def serves(self, when, limit=5):
        """Waits for the answers that the files promise."""
        want = expected(self.files.words, self.origins)

        def check():
            self.proxy.alive()
            self.server.alive()
            for (host, path), answer in want.items():
                response, body = get(self.gateway, path, host)
                got = (response.status, body, response.getheader("location"))
                if got != answer:
                    raise Failed(f"{host}{path} gives {got} and not {answer}")
                if response.getheader("server") != self.files.words["SERVER"]:
                    raise Failed(f"{host}{path} comes from {response.getheader('server')!r}")
            return True
        wait(limit, when, check)
        if self.requests:
            seen = self.requests.count
            wait(5, f"requests go on after: {when}", lambda: self.requests.count >= seen + 25)

    def acknowledged(self):
        def check():
            text = get(self.status, "/status")[1]
            if f'"{self.node}"' in text and has_ack(json.loads(text)):
                return True
            raise Failed(f"it says {text}")
        wait(5, f"the status API tells of {self.node} and its ACK", check)

    def refused(self, *words):
        """Waits until the server has said, in its log or status, what it refused."""
        def check():
            said = self.server.log.read_text(errors="replace") + get(self.status, "/status")[1]
            missing = [word for word in words if word not in said]
            if missing:
                raise Failed(f"nothing says {missing}; the log ends:\n{self.server.tail()}")
            return True
        wait(5, "the bad edit is refused", check)

    def tell(self):
        self.start_server()
        self.start_proxy()
        self.serves("the files are served")
        self.acknowledged()

        self.requests = Requests(self.gateway)
        self.requests.start()
        self.files.edit("routes.yaml", DEFAULT="two")
        self.serves("an edit of routes takes effect")
        self.files.edit("endpoints.yaml", SECOND=self.third)
        self.serves("an edit of endpoints takes effect")
        self.files.edit("listeners.yaml", SERVER="later")
        self.serves("an edit of a listener takes effect")

        self.files.edit("routes.yaml", REGEX="/item/(", DIRECT="never seen")
        self.refused("routes.yaml", "regex")
        self.files.words.update(DIRECT="short and stout")
        self.serves("the last good set goes on")
        self.files.edit("routes.yaml", REGEX="/item/[0-9]+", DIRECT="mended")
        self.serves("the next good edit takes effect")

        self.server.kill()
        self.files.edit("routes.yaml", DEFAULT="one")
        self.start_server()
        self.serves("an edit made while the server was down takes effect", 20)
        count = self.requests.stop()
        self.requests = None

        self.proxy.kill()
        self.start_proxy()
        self.serves("a killed proxy gets its configuration again")
        self.acknowledged()
        return count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("envoy", "nuncio", "xds-server"):
        parser.add_argument(f"--{name}", required=True, metavar="PATH")
    parser.add_argument("--only", choices=("envoy", "nuncio"), help="leave the other proxy out")
    args = parser.parse_args()
    # So that a time limit from outside unwinds and leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    origins = {start_origin(name): name for name in ("one", "two", "three")}
    passed = True
    for proxy in ("envoy", "nuncio"):
        for variant in ("sotw", "delta"):
            if args.only not in (None, proxy):
                continue
            label = f"{proxy} fed by xds-server, {variant}"
            with tempfile.TemporaryDirectory(prefix="nuncio-interop-") as folder, contextlib.ExitStack() as cleanup:
                try:
                    count = Story(args, proxy, variant, origins, pathlib.Path(folder), cleanup).tell()
                    print(f"{label}: ok, {count} requests, 0 failed", flush=True)
                except Failed as failure:
                    print(f"{label}: FAILED: {failure}", flush=True)
                    for log in pathlib.Path(folder).glob("*.log"):
                        print(f"--- {log.name} ends:\n{log.read_text(errors='replace')[-2000:]}", flush=True)
                    passed = False
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
