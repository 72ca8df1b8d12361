#!/usr/bin/env python3
"""Real Envoy and nuncio beside each other, both made from one gateway file by xds-server.

One server translates `gateway.yaml` for nuncio, another the same file for Envoy. Both proxies are sent the
same requests, those of `gateway_cases.py`, and then live through the same changes: instances come, drain
and go by the API, the file is edited well and badly, an instance turns ill and well again. What they
answer, and what the origins see of them, must be the same.

    gateway.py --envoy PATH --nuncio PATH --xds-server PATH
"""
import argparse
import collections
import concurrent.futures
import contextlib
import gzip
import http.client
import itertools
import json
import pathlib
import signal
import sys
import tempfile
import zlib

from common import DRAIN, ENVOY_ARGS, Failed, Process, Requests, bootstrap, free_port, get, wait
from gateway_cases import CASES
from gateway_origins import Origins

FILE = pathlib.Path(__file__).resolve().parent / "gateway.yaml"
TOKEN = "s3cret"
# What differs from request to request, or by who the proxy is.
OWN = {"date", "server", "x-envoy-upstream-service-time", "set-cookie", "cache-status", "age"}
# Envoy says in its own errors that it had tried again.
AFTER_RETRY = "retried and the latest reset reason"


class Answer:
    """What matters of a response, in a form that can be compared."""

    def __init__(self, response, body):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        if "vary" in self.headers:
            self.headers["vary"] = self.headers["vary"].lower()
        self.instance = self.headers.pop("x-instance", None)
        coding = self.headers.get("content-encoding")
        if coding in ("gzip", "deflate"):
            body = gzip.decompress(body) if coding == "gzip" else zlib.decompress(body)
            # Two libraries need not come to the same length, nor know it before the end.
            self.headers.pop("content-length", None)
            self.headers.pop("transfer-encoding", None)
        self.text = body.decode(errors="replace")
        if AFTER_RETRY in self.text:
            self.text = self.text.replace(AFTER_RETRY, "reset reason")
            self.headers["content-length"] = str(len(self.text))
        self.cookie = self.headers.get("set-cookie", "").partition(";")[0]

    def compared(self):
        """Without what may differ, and without who answered, which is counted instead."""
        headers = {name: value for name, value in self.headers.items() if name not in OWN}
        if not self.text:
            # Envoy says what an answer depends on even if it has nothing to compress.
            headers.pop("vary", None)
        return {"status": self.status, **headers, "text": self.text.removeprefix(self.instance or ""),
                "has a cookie": bool(self.cookie),
                "tries": len(self.asked), "instances asked": len(set(self.asked)),
                **{f"the origin saw {part}": value for part, value in self.seen.items()}}


class Side:
    """One proxy, with the server that translates the file for it."""

    ids = itertools.count()

    def __init__(self, name, args, file, origins, folder, cleanup):
        self.name, self.origins, self.folder, self.cleanup = name, origins, folder / name, cleanup
        self.folder.mkdir()
        token, addresses = self.folder / "token", self.folder / "addresses"
        token.write_text(TOKEN)
        self.server = self.start("xds-server", [
            args.xds_server, "--gateway", file, "--flavour", name, "--listen", "127.0.0.1:0", "--status",
            "127.0.0.1:0", "--api", "127.0.0.1:0", "--api-token-file", token, "--overlay",
            self.folder / "overlay.json", "--address-file", addresses])
        wait(10, "xds-server says where it listens", lambda: self.server.alive() and addresses.exists())
        at = dict(line.split() for line in addresses.read_text().splitlines())
        self.status, self.api = at["status"], at["api"]
        config, admin = self.folder / "bootstrap.json", self.folder / "admin-address"
        config.write_text(json.dumps(bootstrap(name, "delta", int(at["xds"].rpartition(":")[2]))))
        binary, more = (args.envoy, ENVOY_ARGS) if name == "envoy" else (args.nuncio, [])
        # One worker: its turns are then those of the proxy, and can be counted.
        self.proxy = self.start(name, [
            binary, "-c", config, "--concurrency", "1", "--admin-address-path", admin, *DRAIN, *more])
        wait(20, f"{name} is ready", lambda: self.proxy.alive() and admin.exists()
             and get(admin.read_text().strip(), "/ready")[0].status == 200)
        self.admin = admin.read_text().strip()
        listeners = json.loads(get(self.admin, "/listeners?format=json")[1])
        bound = listeners["listener_statuses"][0]["local_address"]["socket_address"]
        self.gateway = f"{bound['address']}:{bound['port_value']}"

    def start(self, name, command):
        process = Process(command, self.folder / f"{name}.log")
        self.cleanup.callback(process.kill)
        return process

    def ask(self, path, method="GET", host="any.example", headers=(), body=b"", origin=None):
        """Answer, and which instances were asked for it, and what they saw last."""
        self.proxy.alive()
        key = f"{self.name} {next(Side.ids)}"
        headers = {"host": host, "origin-id": key, "origin": json.dumps(origin or {}), **dict(headers)}
        if headers.get("content-encoding") == "gzip":
            body = gzip.compress(body)
        connection = http.client.HTTPConnection(self.gateway, timeout=10)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            response = connection.getresponse()
            answer = Answer(response, response.read())
        finally:
            connection.close()
        # Both grow if a try that was given up comes to its origin late.
        answer.asked, answer.seen = self.origins.asked[key], self.origins.seen[key]
        return answer

    def shares(self, path, times):
        return dict(collections.Counter(self.ask(path).instance for _ in range(times)))

    def change(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.api, timeout=5)
        try:
            connection.request(method, f"/v1/services/{path}", body=json.dumps(body) if body else None,
                               headers={"authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            text = response.read().decode()
            if response.status >= 300:
                raise Failed(f"{self.name}: {method} {path}: {response.status} {text}")
        finally:
            connection.close()

    def problems(self, kind):
        """The warnings or errors of the server: which key, and what."""
        group = json.loads(get(self.status, "/status")[1])["groups"][0]
        return [(problem["field"] or "", problem["message"]) for problem in group[kind]]


def hold(case, want, answers, name):
    """What a case says of the answers of one proxy."""
    last = answers[-1]
    counts = dict(collections.Counter(answer.instance for answer in answers))

    def check(good, what):
        if not good:
            raise Failed(f"{case.story}: {name}: {what}; the last answer is {last.status} "
                         f"{last.headers} {last.text[:200]!r}, by {counts}")
    check(all(answer.status == want["status"] for answer in answers), f"not all are {want['status']}")
    for header, value in want["gets"].items():
        check(last.headers.get(header) == value, f"{header} is {last.headers.get(header)!r}, not {value!r}")
    for header in want["lacks"]:
        check(header not in last.headers, f"it has {header}")
    if want["text"] is not None:
        check(last.text == want["text"], f"the text is not {want['text']!r}")
    if want["shares"] is not None:
        check(near(counts, want["shares"], want["chance"]), f"the shares are not {want['shares']}")
    if want["same"]:
        check(len(counts) == 1, "more than one answered")
    if want["tries"] is not None:
        def tried():
            tries = sum(len(answer.asked) for answer in answers)
            check(tries == want["tries"], f"the origins were asked {tries} times, not {want['tries']}")
            return True
        wait(2, "the last try", tried)
    for part, value in want["seen"].items():
        check(last.seen.get(part) == value, f"the origin saw {last.seen}, not {part} {value!r}")


def near(counts, shares, chance):
    slack = chance * sum(shares.values())
    return all(abs(counts.get(name, 0) - shares.get(name, 0)) <= slack for name in {*counts, *shares})


def answers_of(case, side):
    headers, answers = dict(case.headers), []
    for _ in range(case.times):
        answers.append(side.ask(case.path, case.method, case.host, headers, case.body, case.origin))
        if case.cookie and answers[-1].cookie:
            headers["cookie"] = answers[-1].cookie
    return answers


def compare(case, sides, warned):
    """One case on both proxies."""
    fields = ("status", "gets", "lacks", "text", "shares", "chance", "same", "tries", "seen")
    want = {name: getattr(case, name) for name in fields}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        nuncio, envoy = pool.map(lambda side: answers_of(case, side), sides)
    hold(case, want, nuncio, "nuncio")
    hold(case, {**want, **case.envoy}, envoy, "Envoy")
    if case.differs and case.differs not in warned:
        raise Failed(f"{case.story}: xds-server does not warn of {case.differs}, only of {sorted(warned)}")
    if case.differs or case.because:
        return
    for index, (one, other) in enumerate(zip(nuncio, envoy)):
        one, other = one.compared(), other.compared()
        apart = [f"{part} is {one.get(part)!r} from nuncio, {other.get(part)!r} from Envoy"
                 for part in sorted({*one, *other}) if one.get(part) != other.get(part)]
        if apart:
            raise Failed(f"{case.story}: request {index + 1}: " + "; ".join(apart)[:1000])


class Story:
    """Both proxies, from the same file."""

    def __init__(self, args, folder, cleanup):
        self.origins = Origins("a", "b", "c", "sick")
        self.origins.ill.add("sick")
        self.file = folder / "gateway.yaml"
        ports = self.origins.ports
        self.words = {"A": ports["a"], "B": ports["b"], "C": ports["c"], "SICK": ports["sick"], "GONE": free_port()}
        self.write()
        self.sides = [Side(name, args, self.file, self.origins, folder, cleanup) for name in ("nuncio", "envoy")]

    def write(self, *edits):
        """The file whole, with parts of it replaced."""
        text = FILE.read_text()
        for old, new in edits:
            if old not in text:
                raise Failed(f"there is no {old!r} in {FILE.name}")
            text = text.replace(old, new)
        for word, value in self.words.items():
            text = text.replace(f"@{word}@", str(value))
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.file)

    def on_both(self, do):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return list(pool.map(do, self.sides))

    def become(self, what, path, shares):
        """Waits until both proxies share the requests so."""
        times = sum(shares.values())

        def settled(side):
            def check():
                found = side.shares(path, times)
                if found != shares:
                    raise Failed(f"{side.name} shares them {found} and not {shares}")
                return True
            wait(5, what, check)
        self.on_both(settled)

    def tell(self):
        """Everything; how many cases held."""
        warned = {key for key, _ in self.sides[1].problems("warnings")}
        failed = []
        for case in CASES:
            try:
                compare(case, self.sides, warned)
            except Failed as failure:
                failed.append(str(failure))
        if failed:
            raise Failed("\n".join(failed))
        self.hashes()
        clients = [Requests(side.gateway) for side in self.sides]
        for client in clients:
            client.start()
        self.instances()
        self.edits()
        self.health()
        requests = [client.stop() for client in clients]
        self.limits()
        return f"{len(CASES)} cases, {sum(requests)} requests while all changed, 0 failed"

    def hashes(self):
        """A header means the same instance to both."""
        for path in ("/ring", "/maglev"):
            for user in range(30):
                here, there = self.on_both(lambda side: side.ask(path, headers={"x-mine": f"user-{user}"}).instance)
                if here != there:
                    raise Failed(f"{path}: user-{user} is sent to {here} by nuncio and to {there} by Envoy")

    def instances(self):
        """Instances come, are weighed, drain and go by the API."""
        self.become("two instances", "/busy", {"a": 10, "b": 10})
        url = f"http://127.0.0.1:{self.words['C']}"
        self.on_both(lambda side: side.change("POST", "busy/instances", {"id": "c", "url": url}))
        self.become("an instance came", "/busy", {"a": 10, "b": 10, "c": 10})
        self.on_both(lambda side: side.change("PUT", "heavy/weights", {"a": 1, "b": 4}))
        self.become("weights changed", "/heavy", {"a": 4, "b": 16})
        self.drained()
        self.on_both(lambda side: side.change("DELETE", "busy/instances/a/drain"))
        self.become("it is taken back", "/busy", {"a": 10, "b": 10, "c": 10})
        self.on_both(lambda side: side.change("DELETE", "busy/instances/b"))
        self.become("an instance went", "/busy", {"a": 10, "c": 10})
        self.sessions()

    def sessions(self):
        """A session whose instance goes moves on, and stays where it came to."""
        def on_one(side):
            first = side.ask("/sticky")
            cookie = first.cookie
            side.change("DELETE", f"sticky/instances/{first.instance}")

            def moved():
                nonlocal cookie
                answer = side.ask("/sticky", headers={"cookie": cookie})
                cookie = answer.cookie or cookie
                return answer.status == 200 and answer.instance != first.instance
            wait(5, f"a session of {side.name} moves on", moved)
            found = {side.ask("/sticky", headers={"cookie": cookie}).instance for _ in range(6)}
            if len(found) != 1:
                raise Failed(f"a session of {side.name} that moved is at {found}")
        self.on_both(on_one)

    def drained(self):
        """An instance that drains finishes what it has."""
        def on_one(side):
            with concurrent.futures.ThreadPoolExecutor() as pool:
                held = [pool.submit(side.ask, "/busy", origin={"held": True}) for _ in range(3)]
                wait(5, f"all instances of {side.name} have a request", lambda: all(
                    self.origins.active[name, side.name] == 1 for name in "abc"))
                side.change("POST", "busy/instances/a/drain")
                wait(5, f"nothing new comes to a of {side.name}", lambda: side.shares("/busy", 8) == {"b": 4, "c": 4})
                self.origins.release[side.name].set()
                return sorted((answer.result().status, answer.result().instance) for answer in held)
        for side, finished in zip(self.sides, self.on_both(on_one)):
            if finished != [(200, "a"), (200, "b"), (200, "c")]:
                raise Failed(f"what {side.name} had when a drained ends so: {finished}")

    def edits(self):
        """A good edit takes effect, a bad one changes nothing."""
        new = ("routes:\n", "routes:\n- { path: /new, service: other }\n")
        self.write(new)
        self.become("a route came", "/new", {"b": 2})
        for edit, key, words in [
            (("service: sticky }", "service: stikcy }"), "service", 'did you mean "sticky"?'),
            (("[0-9]+", "[0-9+"), "regex", "unclosed"),
        ]:
            self.write(edit)
            for side in self.sides:
                def refused():
                    errors = side.problems("errors")
                    if any(key in field and words in message for field, message in errors):
                        return True
                    raise Failed(f"it says {errors}")
                wait(5, f"the bad edit is refused for {side.name}", refused)
            self.become("the last good one goes on", "/new", {"b": 2})
        self.write()
        self.on_both(lambda side: wait(5, f"the route of {side.name} goes", lambda: side.ask("/new").status == 404))

    def health(self):
        """An instance turns ill, and well again."""
        self.origins.ill.add("c")
        self.on_both(lambda side: wait(5, f"{side.name} has no instance left", lambda: (
            side.ask("/careful").text == "no healthy upstream")))
        self.become("others turn to those that are well", "/busy", {"a": 6})
        self.origins.ill.clear()
        self.become("they are well again", "/careful", {"c": 2, "sick": 2})

    def limits(self):
        """No more connections than the file says, and what is beyond waits."""
        self.write(("max_connections: 100", "max_connections: 2"))

        def limited(side):
            def check():
                self.origins.most["a", side.name] = 0
                with concurrent.futures.ThreadPoolExecutor() as pool:
                    asked = [pool.submit(side.ask, "/", origin={"delay": 0.1}) for _ in range(6)]
                statuses, most = [one.result().status for one in asked], self.origins.most["a", side.name]
                if statuses != [200] * 6 or most != 2:
                    raise Failed(f"6 requests at once end in {side.name} as {statuses}, {most} at a time")
                return True
            wait(5, "the limit holds", check)
        self.on_both(limited)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("envoy", "nuncio", "xds-server"):
        parser.add_argument(f"--{name}", required=True, metavar="PATH")
    args = parser.parse_args()
    # So that a time limit from outside unwinds and leaves nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="nuncio-interop-") as folder, contextlib.ExitStack() as cleanup:
        folder = pathlib.Path(folder)
        try:
            print(f"one gateway file: ok, {Story(args, folder, cleanup).tell()}", flush=True)
        except Failed as failure:
            print(f"one gateway file: FAILED: {failure}", flush=True)
            for log in folder.glob("*/*.log"):
                print(f"--- {log.parent.name}/{log.name} ends:\n{log.read_text(errors='replace')[-2000:]}", flush=True)
            sys.exit(1)


if __name__ == "__main__":
    main()
