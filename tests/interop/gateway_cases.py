"""The requests of gateway.py, and what nuncio and Envoy must answer alike.

A case is one request, asked once or several times. What is said here must hold of both proxies; beyond it,
everything that gateway.py looks at must be the same: statuses, headers, bodies, what the origins saw, how
often they were asked, and who answered how often.

A case with `differs` names a key of the gateway file that Envoy has no form for: xds-server must have warned
of it, and what Envoy does instead is said in `envoy`. So it is where both do what they may, and `because` says
why nuncio does not do what Envoy does.
"""
from dataclasses import dataclass, field


@dataclass
class Case:
    story: str
    path: str
    method: str = "GET"
    host: str = "any.example"
    headers: dict = field(default_factory=dict)
    body: bytes = b""
    # What the origin is to do: status, failures (so many first tries get 503), delay, size, type, header.
    origin: dict = field(default_factory=dict)
    times: int = 1
    # Later requests show the cookie that the first got.
    cookie: bool = False
    # What must hold of the last answer, of all answers, and of the last request that came to an origin.
    status: int = 200
    gets: dict = field(default_factory=dict)
    lacks: tuple = ()
    text: str | None = None
    shares: dict | None = None
    # By so much of the whole may shares differ, where chance is in them.
    chance: float = 0
    same: bool = False
    tries: int | None = None
    seen: dict = field(default_factory=dict)
    differs: str | None = None
    because: str | None = None
    envoy: dict = field(default_factory=dict)


def to(instance, **more):
    return {"shares": {instance: more.get("times", 1)}, **more}


LONG = {"size": 4000}
GZIP = {"accept-encoding": "gzip"}

CASES = [
    # Which route.
    Case("any host", "/", **to("a")),
    Case("a host", "/only", host="api.example", **to("b")),
    Case("a host in other letters, with a port", "/only", host="API.example:8080", **to("b")),
    Case("a host below another", "/only", host="deep.in.suffix.example", **to("b")),
    Case("the host above", "/only", host="suffix.example", **to("a")),
    Case("a method", "/only", method="PUT", **to("b")),
    Case("one of several methods", "/only", method="DELETE", **to("b")),
    Case("another method", "/only", method="PATCH", **to("a")),
    Case("a header's text", "/only", headers={"x-exact": "v2"}, **to("b")),
    Case("another text", "/only", headers={"x-exact": "v22"}, **to("a")),
    Case("a header's beginning", "/only", headers={"x-prefix": "v3"}, **to("b")),
    Case("a header's end", "/only", headers={"x-suffix": "v-2"}, **to("b")),
    Case("a header's part", "/only", headers={"x-contains": "a beta b"}, **to("b")),
    Case("a header's pattern", "/only", headers={"x-regex": "123"}, **to("b")),
    Case("more than the pattern", "/only", headers={"x-regex": "123a"}, **to("a")),
    Case("a header that is there", "/only", headers={"x-there": ""}, **to("b")),
    Case("a query parameter's text", "/only?a=1&exact=2", **to("b")),
    Case("another text of it", "/only?exact=3", **to("a")),
    Case("a query parameter's pattern", "/only?regex=fade", **to("b")),
    Case("a query parameter that is there", "/only?there", **to("b")),
    Case("a path", "/exact", **to("b")),
    Case("a path with a query", "/exact?x=y", seen={"path": "/exact?x=y"}, **to("b")),
    Case("more than the path", "/exact/more", status=404, tries=0),
    Case("a prefix", "/prefixed/and/more", **to("b")),
    Case("routes of any host are those of each host", "/exact", host="alone.example", **to("b")),
    Case("a route of one host is not that of another", "/open", status=404, tries=0),
    Case("a request without an answer's body", "/exact", method="HEAD", text=""),
    Case("a request with a body", "/exact", method="POST", body=b"some text", seen={"body": "some text"}),

    # What becomes of the request.
    Case("a prefix is taken away", "/strip/a/b?c=d", seen={"path": "/a/b?c=d"}, **to("a")),
    Case("path and host are replaced", "/replace?c=d",
         seen={"path": "/replaced?c=d", "host": "inner.example"}, **to("a")),
    Case("a redirect to a host", "/moved/host", status=301, gets={"location": "http://new.example/moved/host"}),
    Case("a redirect with everything", "/moved/whole?c=d", status=302,
         gets={"location": "https://new.example:8443/here?c=d"}),
    Case("a redirect of a prefix", "/moved/on?c=d", status=308, gets={"location": "http://any.example/kept/on?c=d"}),
    Case("an origin's status and headers", "/", origin={"status": 418, "header": "x-kind: teapot"}, status=418,
         gets={"x-kind": "teapot"}),

    # Time, and trying again.
    Case("too slow", "/short", origin={"delay": 3}, status=504, tries=1),
    Case("in time", "/short", **to("a")),
    Case("it fails twice", "/again", origin={"failures": 2}, tries=3, **to("a")),
    Case("it fails once too often", "/again", origin={"failures": 3}, status=503, tries=3),
    Case("the next instance is tried", "/again/elsewhere", origin={"failures": 1}, times=4, tries=8),
    Case("a try is too slow, and so is the next", "/again/slow", origin={"delay": 3}, status=504, tries=2),
    Case("what is not said is not tried again", "/", origin={"failures": 1}, status=503, tries=1),
    Case("nobody listens there", "/gone", status=503, tries=0),
    Case("nobody is there", "/empty", status=503, tries=0),

    # Who answers.
    Case("round robin ignores weights", "/even", times=40, shares={"a": 20, "b": 20}),
    Case("weighted honours them", "/heavy", times=40, shares={"a": 30, "b": 10}),
    Case("least request, one at a time", "/least", times=400, shares={"a": 300, "b": 100}, chance=0.15),
    Case("any", "/any", times=600, shares={"a": 200, "b": 200, "c": 200}, chance=0.1),
    Case("a service's share", "/split", times=600, shares={"a": 450, "b": 150}, chance=0.1),
    Case("a service without a share", "/all", times=20, shares={"b": 20}),
    Case("a name's address", "/named", **to("b")),
    Case("who is not well gets nothing", "/careful", times=20, shares={"c": 20}),
    Case("none is well", "/hopeless", status=503, tries=0, text="no healthy upstream"),
    Case("others rather ask the unwell", "/hopeful", **to("sick")),
    Case("a session by its cookie", "/sticky", times=10, cookie=True, same=True, lacks=("set-cookie",)),
    Case("a session by its header", "/sticky", headers={"x-mine": "me"}, times=9, same=True,
         differs="load_balancer.sticky_sessions.header_name",
         envoy={"same": False, "shares": {"a": 3, "b": 3, "c": 3}}),

    # Compression.
    Case("gzip", "/", headers=GZIP, origin=LONG, gets={"content-encoding": "gzip", "vary": "accept-encoding"}),
    Case("gzip among others", "/", headers={"accept-encoding": "br;q=1, gzip;q=0.5"}, origin=LONG,
         gets={"content-encoding": "gzip"}),
    Case("not asked for", "/", origin=LONG, lacks=("content-encoding",)),
    Case("refused", "/", headers={"accept-encoding": "gzip;q=0"}, origin=LONG, lacks=("content-encoding",)),
    Case("too short", "/", headers=GZIP, lacks=("content-encoding",)),
    Case("another type", "/", headers=GZIP, origin={"type": "image/png", **LONG}, lacks=("content-encoding",)),
    Case("encoded already", "/", headers=GZIP, origin={"header": "content-encoding: br", **LONG},
         gets={"content-encoding": "br"}),
    Case("not to be transformed", "/", headers=GZIP, origin={"header": "cache-control: no-transform", **LONG},
         lacks=("content-encoding",)),
    Case("a strong tag", "/", headers=GZIP, origin={"header": 'etag: "1"', **LONG},
         gets={"content-encoding": "gzip", "etag": 'W/"1"'}, because="a weak tag serves validation, none does not",
         envoy={"gets": {"content-encoding": "gzip"}, "lacks": ("etag",)}),
    Case("not on this route", "/plain", headers=GZIP, origin=LONG, lacks=("content-encoding",)),
    Case("a compressed request", "/exact", method="POST", body=b"some text", headers={"content-encoding": "gzip"},
         seen={"body": "some text", "content-encoding": None}),
    Case("deflate", "/", headers={"accept-encoding": "deflate"}, origin=LONG, gets={"content-encoding": "deflate"},
         differs="compression.supported_encodings[1]", envoy={"gets": {}, "lacks": ("content-encoding",)}),
    Case("a path that is left alone", "/health", headers=GZIP, origin=LONG, lacks=("content-encoding",),
         differs="compression.exclude_paths", envoy={"lacks": (), "gets": {"content-encoding": "gzip"}}),
    Case("a size of the route's own", "/small", headers=GZIP, origin={"size": 200}, gets={"content-encoding": "gzip"},
         differs="routes[0].compression", envoy={"gets": {}, "lacks": ("content-encoding",)}),

    # The cache.
    Case("an answer that is kept", "/cached", times=3, tries=1, origin={"header": "cache-control: max-age=60"},
         differs="cache", envoy={"tries": 3}),
]
