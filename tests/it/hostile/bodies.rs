//! Bodies of requests, what stands behind them, and their ends.

use super::*;

const CHUNKED: &str = "POST /a | transfer-encoding: chunked = abc";

/// A request with this in place of its chunks.
macro_rules! chunked {
    ($body:literal) => {
        concat!("POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n", $body)
            .as_bytes()
    };
}

#[rustfmt::skip]
const CHUNKS: &[Case] = &[
    served("two chunks", chunked!("1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), &[CHUNKED]),
    served("a size in capitals", chunked!("A\r\n0123456789\r\n0\r\n\r\n"), &["POST /a | transfer-encoding: chunked = 0123456789"]),
    served("zeros before a size", chunked!("0003\r\nabc\r\n000\r\n\r\n"), &[CHUNKED]),
    served("an extension", chunked!("3;x=1\r\nabc\r\n0;y\r\n\r\n"), &[CHUNKED]),
    served("an extension in quotes", chunked!("3;x=\"0\\\";y\"\r\nabc\r\n0\r\n\r\n"), &[CHUNKED]),
    served("trailers", chunked!("3\r\nabc\r\n0\r\nx: 1\r\n\r\n"), &[CHUNKED]),
    served("framing in trailers", chunked!("3\r\nabc\r\n0\r\ncontent-length: 50\r\ntransfer-encoding: chunked\r\nhost: u\r\n\r\n"), &[CHUNKED]),
    broken("a size of other letters", chunked!("zz\r\nabc\r\n0\r\n\r\n")),
    broken("a size below zero", chunked!("-3\r\nabc\r\n0\r\n\r\n")),
    broken("a size with a sign", chunked!("+3\r\nabc\r\n0\r\n\r\n")),
    broken("a size with a prefix", chunked!("0x3\r\nabc\r\n0\r\n\r\n")),
    broken("a size after a space", chunked!(" 3\r\nabc\r\n0\r\n\r\n")),
    broken("a size with an underscore", chunked!("0_3\r\nabc\r\n0\r\n\r\n")),
    broken("no size", chunked!("\r\nabc\r\n0\r\n\r\n")),
    broken("no size but an extension", chunked!(";x\r\nabc\r\n0\r\n\r\n")),
    broken("a size that wraps to 3", chunked!("10000000000000003\r\nabc\r\n0\r\n\r\n")),
    cut("the largest size there is", chunked!("ffffffffffffffff\r\nabc\r\n0\r\n\r\n")),
    broken("a size beyond it", chunked!("fffffffffffffffffffff\r\nabc\r\n0\r\n\r\n")),
    broken("no end of a chunk", chunked!("3\r\nabc0\r\n\r\n")),
    broken("a chunk longer than its size", chunked!("3\r\nabcd\r\n0\r\n\r\n")),
    broken("a chunk shorter than its size", chunked!("4\r\nabc\r\n0\r\n\r\n")),
    broken("a size that ends with LF", chunked!("3\nabc\r\n0\r\n\r\n")),
    broken("a size that ends with CR", chunked!("3\rabc\r\n0\r\n\r\n")),
    broken("a size that ends with CR CR LF", chunked!("3\r\r\nabc\r\n0\r\n\r\n")),
    broken("a chunk that ends with LF", chunked!("3\r\nabc\n0\r\n\r\n")),
    broken("a chunk that ends with CR", chunked!("3\r\nabc\r0\r\n\r\n")),
    broken("a chunk that ends with LF CR", chunked!("3\r\nabc\n\r0\r\n\r\n")),
    broken("an extension with a bare LF", chunked!("3;x\nabc\r\n0\r\n\r\n")),
    broken("an extension with a bare CR", chunked!("3;x\rabc\r\n0\r\n\r\n")),
    broken("an extension that hides a chunk", chunked!("3;\nxx\r\nabc\r\n0\r\n\r\n")),
    broken("a last chunk that ends with LF", chunked!("3\r\nabc\r\n0\n\r\n")),
    broken("a trailer without colon", chunked!("3\r\nabc\r\n0\r\nx\r\n\r\n")),
    broken("a trailer with a space before the colon", chunked!("3\r\nabc\r\n0\r\nx : 1\r\n\r\n")),
    broken("a trailer with a bare CR", chunked!("3\r\nabc\r\n0\r\nx: 1\r2\r\n\r\n")),
    broken("a trailer with a NUL", chunked!("3\r\nabc\r\n0\r\nx: 1\02\r\n\r\n")),
    broken("a folded trailer", chunked!("3\r\nabc\r\n0\r\nx: 1\r\n 2\r\n\r\n")),
    broken("a request in place of trailers", chunked!("3\r\nabc\r\n0\r\nGET /b HTTP/1.1\r\nhost: t\r\n\r\n")),
];

const POST: &str = "POST /a | content-length: 3 = abc";

#[rustfmt::skip]
const BEHIND: &[Case] = &[
    served("three at once", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nhost: t\r\n\r\n", &[POST, "GET /b"]),
    Case { name: "more bytes than the length", send: b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc\0\0\0", wants: Wants::ServedThenRefused(&[POST]), ends: false },
    Case { name: "a body that nobody announced", send: b"GET /a HTTP/1.1\r\nhost: t\r\n\r\na=b\r\n", wants: Wants::ServedThenRefused(&["GET /a"]), ends: false },
    Case { name: "a bad one behind a good one", send: b"GET /a HTTP/1.1\r\nhost: t\r\n\r\nGET /b HTTP/1.1\r\nhost : t\r\n\r\n", wants: Wants::ServedThenRefused(&["GET /a"]), ends: false },
    Case { name: "two lengths behind a good one", send: b"GET /a HTTP/1.1\r\nhost: t\r\n\r\nPOST /b HTTP/1.1\r\nhost: t\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", wants: Wants::ServedThenRefused(&["GET /a"]), ends: false },
    Case { name: "bytes behind the last chunk", send: chunked!("3\r\nabc\r\n0\r\n\r\n\x01"), wants: Wants::ServedThenRefused(&[CHUNKED]), ends: false },
    Case { name: "one behind the last", send: b"GET /a HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n", wants: Wants::ServedThenClosed(&["GET /a"]), ends: false },
    served("a body that was not waited for", b"POST /a HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc", &[POST]),
    served("a switch to HTTP/2 that nobody makes", b"GET /a HTTP/1.1\r\nhost: t\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n", &["GET /a"]),
    served("a HEAD has no body", b"HEAD /a HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\nGET /b HTTP/1.1\r\nhost: t\r\n\r\n", &["HEAD /a | content-length: 0", "GET /b"]),
];

#[rustfmt::skip]
const ENDS: &[Case] = &[
    cut("within the first line", b"GET /a HT"),
    cut("after the first line", b"GET /a HTTP/1.1\r\n"),
    cut("within a header", b"GET /a HTTP/1.1\r\nhost: t\r\nx: "),
    cut("before the empty line", b"GET /a HTTP/1.1\r\nhost: t\r\n"),
    cut("within the empty line", b"GET /a HTTP/1.1\r\nhost: t\r\n\r"),
    cut("before the body", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\n"),
    cut("within the body", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nab"),
    cut("before the chunks", chunked!("")),
    cut("within a size", chunked!("3")),
    cut("after a size", chunked!("3\r\n")),
    cut("within a chunk", chunked!("3\r\nab")),
    cut("after a chunk", chunked!("3\r\nabc\r\n")),
    cut("within the last chunk", chunked!("3\r\nabc\r\n0\r\n")),
    cut("within the trailers", chunked!("3\r\nabc\r\n0\r\nx: 1\r\n")),
    cut("with the body still to be asked for", b"POST /a HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n"),
];

#[rustfmt::skip]
const OLD: &[Case] = &[
    Case { name: "one of HTTP/1.0 is the last", send: b"GET /a HTTP/1.0\r\nhost: t\r\n\r\n", wants: Wants::ServedThenClosed(&["GET /a"]), ends: false },
    served("one of HTTP/1.0 that stays", b"GET /a HTTP/1.0\r\nhost: t\r\nconnection: keep-alive\r\n\r\n", &["GET /a"]),
    served("a body of HTTP/1.0", b"POST /a HTTP/1.0\r\nhost: t\r\nconnection: keep-alive\r\ncontent-length: 3\r\n\r\nabc", &[POST]),
    refused("chunks in HTTP/1.0", b"POST /a HTTP/1.0\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    refused("chunks in HTTP/1.0 that stays", b"POST /a HTTP/1.0\r\nhost: t\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    refused("chunks and a length in HTTP/1.0", b"POST /a HTTP/1.0\r\nhost: t\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\nabc"),
    refused("two lengths in HTTP/1.0", b"POST /a HTTP/1.0\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
];

#[tokio::test]
async fn chunks() {
    World::start(false).await.play(CHUNKS).await;
}

#[tokio::test]
async fn what_stands_behind() {
    World::start(false).await.play(BEHIND).await;
}

#[tokio::test]
async fn ends_too_early() {
    World::start(false).await.play(ENDS).await;
}

#[tokio::test]
async fn requests_of_http_1_0() {
    World::start(true).await.play(OLD).await;
}

#[tokio::test]
async fn a_request_in_single_bytes_is_one_request() {
    let world = World::start(false).await;
    for (bytes, seen) in [
        (chunked!("1;x\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), CHUNKED),
        (&b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc"[..], POST),
    ] {
        let parts: Vec<_> = bytes.chunks(1).chain(NEXT.chunks(1)).collect();
        let said = world.exchange(&parts, false).await.unwrap();
        assert_eq!(statuses(&said), [200, 200]);
        assert_eq!(world.innocent("single bytes").await, [seen, "GET /next"]);
    }
}
