"""The instances of gateway.py: origins that do what requests tell them to."""
import collections
import contextlib
import http.server
import json
import threading
import time

# What differs from request to request; and of a client on this machine Envoy tells the machine's address.
OWN = {"origin-id", "x-request-id", "cookie", "x-forwarded-for"}


class Origins:
    """Instances by name, all in this process. They do what a request's `origin` header says, and remember
    where each request came, and who had how many at a time."""

    def __init__(self, *names):
        self.lock = threading.Lock()
        self.asked, self.seen = collections.defaultdict(list), collections.defaultdict(dict)
        self.ill, self.active, self.most = set(), collections.Counter(), collections.Counter()
        self.release = collections.defaultdict(threading.Event)
        self.ports = {name: self.start(name) for name in names}

    def start(self, name):
        handler = type("Handler", (Handler,), {"origins": self, "instance": name})
        server = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_address[1]

    def came(self, key, name, request):
        """Which try of a request this is."""
        with self.lock:
            if self.asked[key]:
                # The time that is left for it is no two runs' alike.
                request.pop("x-envoy-expected-rq-timeout-ms", None)
            self.seen[key].clear()
            self.seen[key].update(request)
            self.asked[key].append(name)
            return len(self.asked[key])

    @contextlib.contextmanager
    def serving(self, name, side):
        key = (name, side)
        with self.lock:
            self.active[key] += 1
            self.most[key] = max(self.most[key], self.active[key])
        try:
            yield
        finally:
            with self.lock:
                self.active[key] -= 1


class Server(http.server.ThreadingHTTPServer):
    """Takes the connections of two proxies' health checks at once."""
    daemon_threads, request_queue_size = True, 128


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers its name, and as much text as it is told to."""
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server_version, sys_version = "origin", ""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = self.chunks()
        key, script = self.headers.get("origin-id"), json.loads(self.headers.get("origin", "{}"))
        if key is None:
            # A question of the proxy's own: whether this instance is well.
            return self.say(500 if self.instance in self.origins.ill else 200, {}, b"")
        side = key.split()[0]
        with self.origins.serving(self.instance, side):
            tries = self.origins.came(key, self.instance, {
                "method": self.command, "path": self.path, "body": body.decode(errors="replace"),
                **{name.lower(): value for name, value in self.headers.items() if name.lower() not in OWN}})
            time.sleep(script.get("delay", 0))
            if script.get("held"):
                self.origins.release[side].wait(10)
            failing = tries <= script.get("failures", 0)
            status = 503 if failing else script.get("status", 200)
            name, _, value = script.get("header", "").partition(": ")
            headers = {"content-type": script.get("type", "text/plain"), "x-instance": self.instance}
            text = (self.instance + " answers. " * (script.get("size", 0) // 10)).encode()
            self.say(status, {**headers, **({name: value} if name else {})}, text)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def say(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def chunks(self):
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def handle(self):
        # A proxy that gives a request up closes the connection under the answer.
        with contextlib.suppress(ConnectionError):
            super().handle()

    def log_message(self, *_):
        pass
