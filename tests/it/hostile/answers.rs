//! Answers of origins.

use super::recorder::Told;
use super::*;

/// An answer, and what becomes of it.
struct Answer {
    name: &'static str,
    bytes: &'static [u8],
    wants: Wanted,
}

enum Wanted {
    /// It reaches the client with this body.
    Passed(&'static str),
    /// The client gets an answer of ours instead.
    Replaced,
    /// The one or the other.
    Either(&'static str),
    /// The client sees that it is not whole.
    Cut,
}

#[rustfmt::skip]
const FRAMED: &[Answer] = &[
    Answer { name: "a length", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Passed("abc") },
    Answer { name: "chunks", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n", wants: Wanted::Passed("abc") },
    Answer { name: "more than the length", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef", wants: Wanted::Passed("abc") },
    Answer { name: "an answer more", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", wants: Wanted::Passed("abc") },
    Answer { name: "an answer more after chunks", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", wants: Wanted::Passed("abc") },
    Answer { name: "a body with 204", bytes: b"HTTP/1.1 204 No Content\r\ncontent-length: 6\r\n\r\npoison", wants: Wanted::Either("") },
    Answer { name: "chunks with 204", bytes: b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n6\r\npoison\r\n0\r\n\r\n", wants: Wanted::Either("") },
    Answer { name: "a body with 304", bytes: b"HTTP/1.1 304 Not Modified\r\ncontent-length: 6\r\n\r\npoison", wants: Wanted::Passed("") },
    Answer { name: "two lengths", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 6\r\n\r\nabcdef", wants: Wanted::Replaced },
    Answer { name: "two lengths in a list", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3, 6\r\n\r\nabcdef", wants: Wanted::Replaced },
    Answer { name: "a length twice", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Either("abc") },
    Answer { name: "a length with a sign", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a length below zero", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a length that wraps to 3", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551619\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a length and chunks", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", wants: Wanted::Either("abc") },
    Answer { name: "chunks and a length", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 50\r\n\r\n3\r\nabc\r\n0\r\n\r\n", wants: Wanted::Either("abc") },
    Answer { name: "an unknown coding", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "chunked, identity", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", wants: Wanted::Replaced },
    Answer { name: "chunked twice", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", wants: Wanted::Replaced },
];

#[rustfmt::skip]
const HEADS: &[Answer] = &[
    Answer { name: "interim answers", bytes: b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Passed("abc") },
    Answer { name: "no reason", bytes: b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Either("abc") },
    Answer { name: "a bare CR in a value", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: a\rset-cookie: b\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a NUL in a value", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: a\0b\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a bare LF between headers", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: a\ny: b\r\n\r\nabc", wants: Wanted::Either("abc") },
    Answer { name: "a bare CR in the reason", bytes: b"HTTP/1.1 200 O\rK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a folded line", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx: a\r\n b\r\n\r\nabc", wants: Wanted::Either("abc") },
    Answer { name: "a folded coding", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding:\r\n chunked\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a space before the colon", bytes: b"HTTP/1.1 200 OK\r\ncontent-length : 6\r\n\r\nabcdef", wants: Wanted::Replaced },
    Answer { name: "a space in a name", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx y: a\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "no colon", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "garbage before", bytes: b"garbage\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "an empty line before", bytes: b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Either("abc") },
    Answer { name: "another protocol", bytes: b"ICY 200 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "another version", bytes: b"HTTP/2.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a status of two digits", bytes: b"HTTP/1.1 20 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a status of four digits", bytes: b"HTTP/1.1 2000 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a status below all", bytes: b"HTTP/1.1 099 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a status that is no number", bytes: b"HTTP/1.1 2x0 OK\r\ncontent-length: 3\r\n\r\nabc", wants: Wanted::Replaced },
    Answer { name: "a switch that nobody asked for", bytes: b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison", wants: Wanted::Replaced },
];

#[rustfmt::skip]
const LAST: &[Answer] = &[
    Answer { name: "until the end", bytes: b"HTTP/1.1 200 OK\r\n\r\nabc", wants: Wanted::Passed("abc") },
    Answer { name: "HTTP/1.0 until the end", bytes: b"HTTP/1.0 200 OK\r\n\r\nabc", wants: Wanted::Passed("abc") },
    Answer { name: "nothing", bytes: b"", wants: Wanted::Replaced },
    Answer { name: "half a head", bytes: b"HTTP/1.1 200 OK\r\ncontent-le", wants: Wanted::Replaced },
    Answer { name: "interim answers alone", bytes: b"HTTP/1.1 103 Early Hints\r\n\r\n", wants: Wanted::Replaced },
    Answer { name: "half a body", bytes: b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc", wants: Wanted::Cut },
    Answer { name: "half a chunk", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nabc", wants: Wanted::Cut },
    Answer { name: "no last chunk", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", wants: Wanted::Cut },
    Answer { name: "half a last chunk", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", wants: Wanted::Cut },
    Answer { name: "a size of other letters", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", wants: Wanted::Cut },
    Answer { name: "a size that wraps to 3", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000003\r\nabc\r\n0\r\n\r\n", wants: Wanted::Cut },
    Answer { name: "a chunk longer than its size", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", wants: Wanted::Cut },
    Answer { name: "a size that ends with LF", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", wants: Wanted::Cut },
    Answer { name: "an extension that hides a chunk", bytes: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;\nxx\r\nabc\r\n0\r\n\r\n", wants: Wanted::Cut },
];

impl World {
    /// Plays a table; `closes` says whether the origin closes the connection after each answer.
    async fn play_answers(&self, answers: &[Answer], closes: bool) {
        for Answer { name, bytes, wants } in answers {
            self.origin.tell(Told { bytes: bytes.to_vec(), times: 1, closes });
            let ask = b"GET /told HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
            let said = self.exchange(&[ask], false).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            let said = String::from_utf8(said).unwrap();
            let shown = said.escape_debug();
            let got = Got::of(&said);
            let passed = |body: &str| got.whole && !got.ours && got.body == body;
            let replaced = got.whole && got.ours;
            let right = match wants {
                Wanted::Passed(body) => passed(body),
                Wanted::Replaced => replaced,
                Wanted::Either(body) => passed(body) || replaced,
                Wanted::Cut => !got.whole || replaced,
            };
            assert!(right, "{name}: {shown}");
            assert!(!said.contains("poison"), "{name}: {shown}");
            for _ in 0..2 {
                let seen = self.innocent(name).await;
                assert!(seen.iter().all(|seen| seen == "GET /told"), "{name}: {seen:?}");
            }
        }
        self.proxy.until_stat("http.in.downstream_rq_active", 0).await;
        self.proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    }
}

/// What a client makes of an answer after which the connection is closed.
struct Got {
    whole: bool,
    /// We made it.
    ours: bool,
    body: String,
}

impl Got {
    fn of(said: &str) -> Self {
        let (head, rest) = said.split_once("\r\n\r\n").unwrap_or((said, ""));
        assert!(!head.replace("\r\n", "").contains(['\r', '\n', '\0']), "{said:?}");
        assert!(!head.contains("\r\n ") && !head.contains(" :"), "{said:?}");
        let status = head.split(' ').nth(1).unwrap_or_default();
        let value = |name| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
        let length = value("content-length").map(|length| length.parse::<usize>().unwrap());
        let chunked = value("transfer-encoding") == Some("chunked");
        assert!(length.is_none() || !chunked, "{said:?}");
        let mut whole = !head.is_empty();
        let mut body = rest.to_owned();
        if matches!(status, "204" | "304") {
            assert_eq!(rest, "");
        } else if chunked {
            whole = rest.ends_with("0\r\n\r\n");
            body = rest.split("\r\n").skip(1).step_by(2).collect();
        } else {
            whole &= length.is_none_or(|length| length == rest.len());
        }
        Self { whole, ours: matches!(status, "502" | "503"), body }
    }
}

#[tokio::test]
async fn framing() {
    World::start(false).await.play_answers(FRAMED, false).await;
}

#[tokio::test]
async fn heads() {
    World::start(false).await.play_answers(HEADS, false).await;
}

#[tokio::test]
async fn the_last_on_their_connection() {
    World::start(false).await.play_answers(LAST, true).await;
}

#[tokio::test]
async fn a_body_of_an_answer_to_head_is_nobodys_answer() {
    let world = World::start(false).await;
    let bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 45\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    world.origin.tell(Told { bytes: bytes.to_vec(), times: 1, closes: false });
    let ask = b"HEAD /told HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let said = String::from_utf8(world.exchange(&[ask], false).await.unwrap()).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\n"), "{said:?}");
    assert_eq!(world.innocent("HEAD").await, ["HEAD /told"]);
}
