//! Heads of requests.

use super::*;

/// What unknown transfer codings are answered with.
const UNKNOWN: &[u16] = &[400, 501];

#[rustfmt::skip]
const LENGTHS: &[Case] = &[
    served("one length", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc", &["POST /a | content-length: 3 = abc"]),
    served("a GET with a body", b"GET /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc", &["GET /a | content-length: 3 = abc"]),
    refused("two lengths", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
    refused("two lengths, one of them nothing", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\ncontent-length: 50\r\n\r\n"),
    refused("two lengths in a list", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3, 4\r\n\r\nabc"),
    either("a length twice", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", &["POST /a | content-length: 3 = abc"]),
    either("a length twice in a list", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3, 3\r\n\r\nabc", &["POST /a | content-length: 3 = abc"]),
    refused("a length and one that is none", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ncontent-length: x\r\n\r\nabc"),
    refused("a length with a sign", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: +3\r\n\r\nabc"),
    refused("a length below zero", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: -3\r\n\r\nabc"),
    refused("a length in hexadecimal", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 0x3\r\n\r\nabc"),
    refused("a length with a space within", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3 3\r\n\r\nabc"),
    refused("a length with a fraction", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3.0\r\n\r\nabc"),
    refused("a length with a comma", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3,\r\n\r\nabc"),
    refused("a length of no digits", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: \r\n\r\nabc"),
    refused("a length that wraps to 3", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 18446744073709551619\r\n\r\nabc"),
    refused("a length of forty digits", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 9999999999999999999999999999999999999999\r\n\r\nabc"),
    either("a length with zeros before", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 003\r\n\r\nabc", &["POST /a | content-length: 3 = abc"]),
    served("a length under a name like it", b"GET /a HTTP/1.1\r\nhost: t\r\ncontent_length: 50\r\n\r\n", &["GET /a | content_length: 50"]),
];

#[rustfmt::skip]
const CODINGS: &[Case] = &[
    served("chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &["POST /a | transfer-encoding: chunked = abc"]),
    served("chunked in capitals", b"POST /a HTTP/1.1\r\nhost: t\r\nTRANSFER-ENCODING: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &["POST /a | transfer-encoding: chunked = abc"]),
    served("chunked after a tab", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding:\tchunked\t \r\n\r\n3\r\nabc\r\n0\r\n\r\n", &["POST /a | transfer-encoding: chunked = abc"]),
    refused("a length before chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("a length after chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
    refused("no length after chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ncontent-length: \r\n\r\n0\r\n\r\n"),
    refused("a bad length after chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ncontent-length: x\r\n\r\n0\r\n\r\n"),
    refused("a length that the client takes back", b"POST /a HTTP/1.1\r\nhost: t\r\nconnection: content-length\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked, identity", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "identity, chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked, chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "gzip, chunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "gzip", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip\r\n\r\n"),
    refused_with(UNKNOWN, "gzip with a length", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"),
    refused_with(UNKNOWN, "identity", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: identity\r\ncontent-length: 3\r\n\r\nabc"),
    refused_with(UNKNOWN, "xchunked", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunkedx", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunkedx\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked with a parameter", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked in quotes", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    either("chunked after a comma", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: ,chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &["POST /a | transfer-encoding: chunked = abc"]),
    refused_with(UNKNOWN, "chunked before a vertical tab", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\x0b\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked after a wide space", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: \xa0chunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "no coding", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: \r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked, then identity in a header of its own", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "identity, then chunked in a header of its own", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused_with(UNKNOWN, "chunked twice", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("chunked after a space before the colon", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n"),
    refused("chunked after a tab before the colon", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n"),
    refused("chunked in a folded line", b"POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    refused("chunked behind a bare CR", b"POST /a HTTP/1.1\r\nhost: t\r\nx: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("chunked behind a NUL", b"POST /a HTTP/1.1\r\nhost: t\r\nx: a\0transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
    either("chunked behind a bare LF", b"POST /a HTTP/1.1\r\nhost: t\r\nx: a\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &["POST /a | transfer-encoding: chunked | x: a = abc"]),
    served("chunked under a name like it", b"GET /a HTTP/1.1\r\nhost: t\r\ntransfer_encoding: chunked\r\n\r\n", &["GET /a | transfer_encoding: chunked"]),
    served("chunked that the client takes back", b"POST /a HTTP/1.1\r\nhost: t\r\nconnection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", &["POST /a | transfer-encoding: chunked = abc"]),
];

#[rustfmt::skip]
const LINES: &[Case] = &[
    served("odd but allowed", b"GET /a HTTP/1.1\r\nHOST:t\r\nx:\r\ny: \t b\tc \t\r\n!#$%&'*+-.^_`|~: d\r\n\r\n", &["GET /a | !#$%&'*+-.^_`|~: d | x:  | y: b\tc"]),
    served("bytes beyond ASCII in a value", b"GET /a HTTP/1.1\r\nhost: t\r\nx: \xc3\xa4\r\n\r\n", &["GET /a | x: \u{e4}"]),
    refused("a folded line", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\r\n b\r\n\r\n"),
    refused("a line folded with a tab", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\r\n\tb\r\n\r\n"),
    refused("a folded first header", b"GET /a HTTP/1.1\r\n host: t\r\n\r\n"),
    refused("a folded line of spaces", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\r\n \r\ny: b\r\n\r\n"),
    refused("a bare CR in a value", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\rb\r\n\r\n"),
    refused("a bare CR before the end of a line", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\r\r\n\r\n"),
    refused("a bare CR at the start of a line", b"GET /a HTTP/1.1\r\nhost: t\r\n\rx: a\r\n\r\n"),
    refused("lines that end with CR", b"GET /a HTTP/1.1\rhost: t\r\r\n\r\n"),
    refused("a NUL in a value", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\0b\r\n\r\n"),
    refused("a NUL in a name", b"GET /a HTTP/1.1\r\nhost: t\r\nx\0y: a\r\n\r\n"),
    refused("a control byte in a value", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\x01b\r\n\r\n"),
    refused("a backspace in a value", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\x08b\r\n\r\n"),
    refused("a DEL in a value", b"GET /a HTTP/1.1\r\nhost: t\r\nx: a\x7fb\r\n\r\n"),
    refused("a space in a name", b"GET /a HTTP/1.1\r\nhost: t\r\nx y: a\r\n\r\n"),
    refused("a space before the colon", b"GET /a HTTP/1.1\r\nhost: t\r\nx : a\r\n\r\n"),
    refused("a space before the colon of Host", b"GET /a HTTP/1.1\r\nhost : t\r\n\r\n"),
    refused("no name", b"GET /a HTTP/1.1\r\nhost: t\r\n: a\r\n\r\n"),
    refused("no colon", b"GET /a HTTP/1.1\r\nhost: t\r\nx\r\n\r\n"),
    refused("a name with a slash", b"GET /a HTTP/1.1\r\nhost: t\r\nx/y: a\r\n\r\n"),
    refused("a name beyond ASCII", b"GET /a HTTP/1.1\r\nhost: t\r\nx\xc3\xa4: a\r\n\r\n"),
    either("lines that end with LF", b"GET /a HTTP/1.1\nhost: t\nx: a\n\n", &["GET /a | x: a"]),
    either("one line that ends with LF", b"GET /a HTTP/1.1\r\nhost: t\nx: a\r\n\r\n", &["GET /a | x: a"]),
    either("a head that ends with LF LF", b"GET /a HTTP/1.1\r\nhost: t\n\n", &["GET /a"]),
    served("an empty line before", b"\r\nGET /a HTTP/1.1\r\nhost: t\r\n\r\n", &["GET /a"]),
    served("an empty line between", b"GET /a HTTP/1.1\r\nhost: t\r\n\r\n\r\n", &["GET /a"]),
    refused("spaces before", b" GET /a HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a NUL before", b"\0GET /a HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a bare CR before", b"\rGET /a HTTP/1.1\r\nhost: t\r\n\r\n"),
];

#[rustfmt::skip]
const TARGETS: &[Case] = &[
    served("every byte of a path", b"GET /a-._~!$&'()*+,;=:@%2f?a=/?[]|^`{} HTTP/1.1\r\nhost: t\r\n\r\n", &["GET /a-._~!$&'()*+,;=:@%2f?a=/?[]|^`{}"]),
    served("two slashes are a path", b"GET //a.test/b HTTP/1.1\r\nhost: t\r\n\r\n", &["GET //a.test/b"]),
    refused("a control byte in the target", b"GET /a\x01b HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a NUL in the target", b"GET /a\0b HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a tab in the target", b"GET /a\tb HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a DEL in the target", b"GET /a\x7fb HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a bare CR in the target", b"GET /a\rb HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a LF in the target", b"GET /a\nb HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a space in the target", b"GET /a b HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a version in the target", b"GET /a HTTP/1.1 HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("bytes beyond ASCII in the target", b"GET /\xc3\xa4 HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("bytes of no encoding in the target", b"GET /\xff HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a fragment", b"GET /a#/b HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a fragment after a query", b"GET /a?b#c HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a target without slash", b"GET a HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a target like an authority", b"GET t:80 HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("no target", b"GET  HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("two spaces before the target", b"GET  /a HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("two spaces after the target", b"GET /a  HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a space after the version", b"GET /a HTTP/1.1 \r\nhost: t\r\n\r\n"),
    refused("tabs between", b"GET\t/a\tHTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("a name in lower case", b"GET /a http/1.1\r\nhost: t\r\n\r\n"),
    refused_with(&[400, 505], "a version to come", b"GET /a HTTP/1.2\r\nhost: t\r\n\r\n"),
    refused_with(&[400, 505], "a version of other frames", b"GET /a HTTP/2.0\r\nhost: t\r\n\r\n"),
    refused_with(&[400, 505], "a version with more digits", b"GET /a HTTP/1.10\r\nhost: t\r\n\r\n"),
    refused("no version", b"GET /a\r\nhost: t\r\n\r\n"),
    refused("a method that is no token", b"G<T /a HTTP/1.1\r\nhost: t\r\n\r\n"),
    refused("no method", b" /a HTTP/1.1\r\nhost: t\r\n\r\n"),
];

#[rustfmt::skip]
const HOSTS: &[Case] = &[
    rejected("no Host", b"GET /a HTTP/1.1\r\n\r\n"),
    rejected("two Hosts", b"GET /a HTTP/1.1\r\nhost: t\r\nhost: u\r\n\r\n"),
    rejected("the same Host twice", b"GET /a HTTP/1.1\r\nhost: t\r\nhost: t\r\n\r\n"),
    rejected("two Hosts, one in capitals", b"GET /a HTTP/1.1\r\nhost: t\r\nHOST: u\r\n\r\n"),
    rejected("an empty Host", b"GET /a HTTP/1.1\r\nhost:\r\n\r\n"),
    rejected("a Host with a space", b"GET /a HTTP/1.1\r\nhost: t u\r\n\r\n"),
    rejected("a Host with a path", b"GET /a HTTP/1.1\r\nhost: t/b\r\n\r\n"),
    rejected("a Host with a query", b"GET /a HTTP/1.1\r\nhost: t?b\r\n\r\n"),
    rejected("a Host with a fragment", b"GET /a HTTP/1.1\r\nhost: t#b\r\n\r\n"),
    rejected("a Host with a backslash", b"GET /a HTTP/1.1\r\nhost: t\\u\r\n\r\n"),
    rejected("a Host beyond ASCII", b"GET /a HTTP/1.1\r\nhost: \xc3\xa4\r\n\r\n"),
    rejected("a Host with a tab", b"GET /a HTTP/1.1\r\nhost: t\tu\r\n\r\n"),
    served("an absolute target says the host", b"GET http://u.test/a?b HTTP/1.1\r\nhost: t\r\n\r\n", &["GET /a?b | host: u.test"]),
    served("an absolute target in capitals", b"GET HTTP://u.test/a HTTP/1.1\r\nhost: t\r\n\r\n", &["GET /a | host: u.test"]),
    served("an absolute target without a path", b"GET http://u.test?b HTTP/1.1\r\nhost: t\r\n\r\n", &["GET /?b | host: u.test"]),
    either("an absolute target without Host", b"GET http://u.test/a HTTP/1.1\r\n\r\n", &["GET /a | host: u.test"]),
    either("an absolute target and a bad Host", b"GET http://u.test/a HTTP/1.1\r\nhost: t/b\r\n\r\n", &["GET /a | host: u.test"]),
    either("an absolute target and two Hosts", b"GET http://u.test/a HTTP/1.1\r\nhost: t\r\nhost: v\r\n\r\n", &["GET /a | host: u.test"]),
    rejected("an absolute target without a host", b"GET http:///a HTTP/1.1\r\nhost: t\r\n\r\n"),
    rejected("an absolute target with a fragment", b"GET http://u.test/a#b HTTP/1.1\r\nhost: t\r\n\r\n"),
];

#[tokio::test]
async fn lengths() {
    World::start(false).await.play(LENGTHS).await;
}

#[tokio::test]
async fn transfer_codings() {
    World::start(false).await.play(CODINGS).await;
}

#[tokio::test]
async fn lines_and_names() {
    World::start(false).await.play(LINES).await;
}

#[tokio::test]
async fn targets_and_versions() {
    World::start(false).await.play(TARGETS).await;
}

#[tokio::test]
async fn hosts() {
    World::start(false).await.play(HOSTS).await;
}
