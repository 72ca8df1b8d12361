//! Requests from the form of HTTP/1.1: what their heads say, and where their bodies end
//! (RFC 9112 sections 3, 5 and 6). Pure: bytes in, facts out.
//!
//! Whatever two readers could understand in two ways is refused: the other one may stand behind us.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Uri, Version};

use crate::exchange::headers::{asks_to_switch, expects_continue};
use crate::exchange::{LocalReply, RequestHead};
use crate::hcm::HcmConfig;
use crate::http1::chunked::Chunked;
use crate::http1::fields::{TransferCoding, content_length, keeps_alive, owned, transfer_coding};
use crate::http1::{Framing, Malformed, OriginalNames};

/// The usual limit on headers, for which room is kept on the stack.
const USUAL_HEADERS: usize = 100;

/// Bytes of a head beside the names and values of its headers, which are what `max_request_headers_kb`
/// limits.
const BESIDE_HEADERS: usize = 16 * 1024;

/// A request's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: RequestHead,
    pub(super) framing: Framing,
    /// The client leaves the connection open for another request.
    pub(super) keep_alive: bool,
    /// The client wants to be told to send its body (RFC 9110 section 10.1.1).
    pub(super) expects_continue: bool,
    /// It wants to leave HTTP on this connection: `CONNECT`, or an `Upgrade`.
    pub(super) wants_tunnel: bool,
}

/// Why a request cannot be read. The connection ends with the answer, for nobody knows where the next one
/// would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Malformed(&'static str),
    UnknownCoding,
    TooLarge,
}

impl From<Malformed> for Refusal {
    fn from(Malformed(reason): Malformed) -> Self {
        Self::Malformed(reason)
    }
}

impl Refusal {
    pub(super) fn reply(self) -> LocalReply {
        match self {
            Self::Malformed(_) => LocalReply::bad_request("http1.codec_error"),
            Self::UnknownCoding => {
                let reply = LocalReply::bad_request("http1.invalid_transfer_encoding");
                reply.with_bare_status(StatusCode::NOT_IMPLEMENTED)
            }
            Self::TooLarge => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                LocalReply::new(status, "request_headers_too_large", "")
            }
        }
    }
}

/// What a head may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    headers: usize,
    /// Of all of it.
    bytes: usize,
    keeps_names: bool,
    chunked_length: bool,
}

impl Limits {
    /// Whether so many bytes are no head any more, complete or not.
    pub(super) fn are_exceeded_by(self, bytes: usize) -> bool {
        bytes > self.bytes
    }

    pub(super) fn of(config: &HcmConfig) -> Self {
        Self {
            headers: config.max_headers_count as usize,
            bytes: config.max_request_headers_bytes as usize + BESIDE_HEADERS,
            keeps_names: config.http1.names.preserves(),
            chunked_length: config.http1.chunked_length,
        }
    }
}

/// Takes a head from the front of `input`; `None` if it is not all there yet.
pub(super) fn head(input: &mut Bytes, limits: Limits) -> Result<Option<Head>, Refusal> {
    let parsed = if limits.headers <= USUAL_HEADERS {
        let mut fields = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
        parse(input, &mut fields[..limits.headers], limits)
    } else {
        let mut fields = vec![MaybeUninit::uninit(); limits.headers];
        parse(input, &mut fields, limits)
    };
    let Some((mut parts, minor, len, seen)) = parsed? else { return Ok(None) };
    let framing = match seen.length {
        true => framing(&mut parts.headers, minor, limits.chunked_length)?,
        false => Framing::Length(0),
    };
    let keep_alive = if seen.connection { keeps_alive(&parts.headers, minor) } else { minor > 0 };
    let has_body = framing != Framing::Length(0);
    let may_want = seen.connection || parts.method == Method::CONNECT;
    let wants_tunnel = minor > 0 && may_want && wants_tunnel(&parts, has_body);
    let expects = minor > 0 && has_body && expects_continue(&parts.headers);
    let framing = if wants_tunnel { Framing::Close } else { framing };
    drop(input.split_to(len));
    Ok(Some(Head { parts, framing, keep_alive, expects_continue: expects, wants_tunnel }))
}

/// A head, the minor version, its length in bytes, and which of its headers are to be looked at.
type Parsed = Option<(RequestHead, u8, usize, Seen)>;

/// Which headers are there at all, so that few are looked for.
#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    /// `Content-Length` or `Transfer-Encoding`.
    length: bool,
    connection: bool,
}

/// The values share the bytes of `input`.
fn parse<'b>(
    input: &'b Bytes,
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
    limits: Limits,
) -> Result<Parsed, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(input, fields) {
        Ok(httparse::Status::Complete(len)) if len <= limits.bytes => len,
        Ok(httparse::Status::Partial) if input.len() <= limits.bytes => return Ok(None),
        Ok(_) => return Err(Refusal::TooLarge),
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLarge),
        Err(_) => return Err(Refusal::Malformed("this is not a request of HTTP/1")),
    };
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(Refusal::Malformed("no request line"));
    };
    let minor = request.version.unwrap_or_default();
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(method.as_bytes())
        .map_err(|_invalid| Refusal::Malformed("the method is no token"))?;
    parts.uri = uri(&parts.method, input.slice_ref(target.as_bytes()))?;
    parts.version = if minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    // Room for what is added on the way as well.
    let mut headers = HeaderMap::with_capacity(request.headers.len() + 4);
    let mut seen = Seen::default();
    for field in &*request.headers {
        let (name, value) = owned(input, field)?;
        seen.length |= name == CONTENT_LENGTH || name == TRANSFER_ENCODING;
        seen.connection |= name == CONNECTION;
        headers.try_append(name, value).map_err(|_full| Refusal::TooLarge)?;
    }
    parts.headers = headers;
    if limits.keeps_names {
        let names = request.headers.iter().map(|field| input.slice_ref(field.name.as_bytes()));
        parts.extensions.insert(OriginalNames::new(names));
    }
    Ok(Some((parts, minor, len, seen)))
}

/// A target in one of its four forms (RFC 9112 section 3.2).
fn uri(method: &Method, target: Bytes) -> Result<Uri, Refusal> {
    const INVALID: Refusal = Refusal::Malformed("the target is no URI");
    let is_authority = *method == Method::CONNECT;
    let has_its_form = match target.first() {
        Some(b'/') => !is_authority,
        Some(b'*') => target.len() == 1 && *method == Method::OPTIONS,
        // `host:port` for a tunnel, else absolute.
        _ => is_authority || target.windows(3).any(|three| three == b"://"),
    };
    let has_its_bytes = target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    if !has_its_form || !has_its_bytes {
        return Err(INVALID);
    }
    // As long as a URI may be for those who represent it here.
    if target.len() >= usize::from(u16::MAX) {
        return Err(Refusal::TooLarge);
    }
    let uri = Uri::from_maybe_shared(target).map_err(|_invalid| INVALID)?;
    match is_authority && (uri.authority().is_none() || uri.path_and_query().is_some()) {
        true => Err(INVALID),
        false => Ok(uri),
    }
}

/// RFC 9112 section 6.3.
fn framing(headers: &mut HeaderMap, minor: u8, chunked_length: bool) -> Result<Framing, Refusal> {
    let length = content_length(headers)?;
    match transfer_coding(headers) {
        TransferCoding::None => Ok(Framing::Length(length.unwrap_or_default())),
        _ if minor == 0 => Err(Refusal::Malformed("transfer-encoding in HTTP/1.0")),
        TransferCoding::Other => Err(Refusal::UnknownCoding),
        TransferCoding::Chunked if length.is_some() => {
            if !chunked_length {
                return Err(Refusal::Malformed("transfer-encoding beside content-length"));
            }
            headers.remove(CONTENT_LENGTH);
            Ok(Framing::Chunked(Chunked::default()))
        }
        TransferCoding::Chunked => Ok(Framing::Chunked(Chunked::default())),
    }
}

/// An upgrade beside a body is left alone: the body would be read by one, and taken for the new protocol
/// by the other.
fn wants_tunnel(head: &RequestHead, has_body: bool) -> bool {
    if has_body {
        return false;
    }
    if head.method == Method::CONNECT {
        return true;
    }
    asks_to_switch(&head.headers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { headers: 10, bytes: 1_000, keeps_names: false, chunked_length: false };

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        head(&mut Bytes::copy_from_slice(text.as_bytes()), LIMITS)
    }

    #[test]
    fn a_head_says_where_its_body_ends_and_whether_another_follows() {
        let chunked = || Framing::Chunked(Chunked::default());
        for (text, framing, keep_alive) in [
            ("GET / HTTP/1.1\r\nhost: h\r\n", Framing::Length(0), true),
            ("GET / HTTP/1.1\r\nconnection: x, Close\r\n", Framing::Length(0), false),
            ("GET / HTTP/1.0\r\n", Framing::Length(0), false),
            ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n", Framing::Length(0), true),
            ("POST / HTTP/1.1\r\ncontent-length: 5\r\n", Framing::Length(5), true),
            (
                "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n",
                Framing::Length(5),
                true,
            ),
            ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n", chunked(), true),
        ] {
            let mut input = Bytes::from(format!("{text}\r\nrest"));
            let found = head(&mut input, LIMITS).unwrap().unwrap();
            assert_eq!((found.framing, found.keep_alive), (framing, keep_alive), "{text}");
            assert_eq!(&input[..], b"rest", "{text}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        const MALFORMED: StatusCode = StatusCode::BAD_REQUEST;
        for (text, status) in [
            ("POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked", MALFORMED),
            ("POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6", MALFORMED),
            ("POST / HTTP/1.1\r\ncontent-length: 5, 5", MALFORMED),
            ("POST / HTTP/1.1\r\ncontent-length: +5", MALFORMED),
            ("POST / HTTP/1.1\r\ncontent-length: 0x5", MALFORMED),
            ("POST / HTTP/1.1\r\ncontent-length:", MALFORMED),
            ("POST / HTTP/1.1\r\ncontent-length: 99999999999999999999", MALFORMED),
            ("POST / HTTP/1.0\r\ntransfer-encoding: chunked", MALFORMED),
            ("POST / HTTP/1.1\r\ntransfer-encoding: gzip", StatusCode::NOT_IMPLEMENTED),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
                StatusCode::NOT_IMPLEMENTED,
            ),
            ("POST / HTTP/1.1\r\ntransfer-encoding : chunked", MALFORMED),
            ("GET / HTTP/1.1\r\na: b\r\n c", MALFORMED),
            ("GET / HTTP/1.1\r\na b: c", MALFORMED),
            ("GET / HTTP/1.1\r\na: b\0c", MALFORMED),
            ("GET / HTTP/1.1\r\na: b\rc", MALFORMED),
            ("GET /a#b HTTP/1.1", MALFORMED),
            ("GET /\u{e4} HTTP/1.1", MALFORMED),
            ("GET a HTTP/1.1", MALFORMED),
            ("GET * HTTP/1.1", MALFORMED),
            ("GET h:80 HTTP/1.1", MALFORMED),
            ("CONNECT /a HTTP/1.1", MALFORMED),
            ("CONNECT http://h:80/a HTTP/1.1", MALFORMED),
            ("GET /a b HTTP/1.1", MALFORMED),
            ("GET  /a HTTP/1.1", MALFORMED),
            ("GET / HTTP/2.0", MALFORMED),
            ("GET /", MALFORMED),
        ] {
            let refusal = read(&format!("{text}\r\n\r\n")).expect_err(text);
            assert_eq!(refusal.reply().status(), status, "{text}");
        }
        let lenient = Limits { chunked_length: true, ..LIMITS };
        let both = "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
        let both = head(&mut Bytes::from(both), lenient).unwrap().unwrap();
        assert_eq!(both.framing, Framing::Chunked(Chunked::default()));
        assert!(both.parts.headers.get(CONTENT_LENGTH).is_none());
    }

    #[test]
    fn who_wants_a_tunnel_has_no_body() {
        let upgrade = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n";
        for (text, wants) in [
            (format!("GET / HTTP/1.1\r\n{upgrade}"), true),
            ("CONNECT h:80 HTTP/1.1\r\n".to_owned(), true),
            (format!("GET / HTTP/1.0\r\n{upgrade}"), false),
            ("GET / HTTP/1.1\r\nupgrade: websocket\r\n".to_owned(), false),
            (format!("POST / HTTP/1.1\r\ncontent-length: 3\r\n{upgrade}"), false),
        ] {
            let found = read(&format!("{text}\r\n")).unwrap().unwrap();
            assert_eq!(found.wants_tunnel, wants, "{text}");
            assert_eq!(found.framing == Framing::Close, wants, "{text}");
        }
    }

    #[test]
    fn a_head_has_limits() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(11));
        assert_eq!(read(&many).unwrap_err(), Refusal::TooLarge);
        let more = Limits { headers: 200, ..LIMITS };
        let found = head(&mut Bytes::from(many), more).unwrap().unwrap();
        assert_eq!(found.parts.headers.get_all("a").iter().count(), 11);
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(1_000));
        assert_eq!(read(&long).unwrap_err(), Refusal::TooLarge);
        assert_eq!(read(&long[..1_001]).unwrap_err(), Refusal::TooLarge, "its end is not here");
        assert!(read(&long[..1_000]).unwrap().is_none());
        let target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
        let vast = Limits { bytes: 1 << 20, ..LIMITS };
        assert_eq!(head(&mut Bytes::from(target), vast).unwrap_err(), Refusal::TooLarge);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = [b"GET / HTTP/1.1\r\n".as_slice(), &bytes].concat();
            let _ = head(&mut Bytes::from(text), LIMITS);
            let _ = head(&mut Bytes::from(bytes), LIMITS);
        }
    }
}
