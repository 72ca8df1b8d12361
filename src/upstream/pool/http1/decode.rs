//! Responses from the form of HTTP/1.1: what their heads say, and where their bodies end
//! (RFC 9112 sections 4 to 6). Pure: bytes in, facts out.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, StatusCode, Version};

use crate::exchange::ResponseHead;
use crate::http1::chunked::Chunked;
use crate::http1::fields::{TransferCoding, content_length, keeps_alive, owned, transfer_coding};
use crate::http1::{Framing, Malformed, OriginalNames};
use crate::upstream::pool::settings::ConnectionSettings;

/// Bytes of a head: Envoy's limit on response headers, 60 KiB.
pub(super) const MAX_HEAD: usize = 60 * 1024;

/// The usual limit on headers, for which room is kept on the stack.
const USUAL_HEADERS: usize = 100;

/// A response's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) parts: ResponseHead,
    pub(super) framing: Framing,
    /// The connection may serve another request once the body has ended.
    pub(super) keep_alive: bool,
    /// Its length in bytes.
    pub(super) len: usize,
}

impl Head {
    /// What the far end of a tunnel would say if it spoke HTTP.
    pub(super) fn of_tunnel() -> Self {
        let parts = http::Response::new(()).into_parts().0;
        Self { parts, framing: Framing::Close, keep_alive: false, len: 0 }
    }
}

/// Reads the head of a response to a request of this method; `None` if it is not all there yet.
pub(super) fn head(
    input: &Bytes,
    method: &Method,
    settings: &ConnectionSettings,
) -> Result<Option<Head>, Malformed> {
    let max_headers = settings.max_headers as usize;
    let keeps_names = settings.http1.names.preserves();
    let parsed = if max_headers <= USUAL_HEADERS {
        let mut fields = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
        parse(input, &mut fields[..max_headers], keeps_names)
    } else {
        let mut fields = vec![MaybeUninit::uninit(); max_headers];
        parse(input, &mut fields, keeps_names)
    };
    let Some((mut parts, minor, len)) = parsed? else {
        return match input.len() > MAX_HEAD {
            true => Err(Malformed("the head is too large")),
            false => Ok(None),
        };
    };
    if len > MAX_HEAD {
        return Err(Malformed("the head is too large"));
    }
    let mut keep_alive = keeps_alive(&parts.headers, minor);
    let framing = framing(&mut parts, method, (minor, settings.http1.chunked_length))?;
    keep_alive &= framing != Framing::Close;
    parts.version = Version::HTTP_11;
    Ok(Some(Head { parts, framing, keep_alive, len }))
}

type Parsed = Option<(ResponseHead, u8, usize)>;

/// The values share the bytes of `input`.
fn parse<'b>(
    input: &'b Bytes,
    fields: &mut [MaybeUninit<httparse::Header<'b>>],
    keeps_names: bool,
) -> Result<Parsed, Malformed> {
    let mut response = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        input,
        fields,
    );
    let len = match status {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed("too many headers")),
        Err(_) => return Err(Malformed("this is not HTTP/1")),
    };
    let mut parts = http::Response::new(()).into_parts().0;
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    parts.status = status.ok_or(Malformed("no such status"))?;
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in &*response.headers {
        let (name, value) = owned(input, field)?;
        headers.try_append(name, value).map_err(|_full| Malformed("too many headers"))?;
    }
    parts.headers = headers;
    if keeps_names {
        let names = response.headers.iter().map(|field| input.slice_ref(field.name.as_bytes()));
        parts.extensions.insert(OriginalNames::new(names));
    }
    Ok(Some((parts, response.version.unwrap_or_default(), len)))
}

/// RFC 9112 section 6.3. A response that says two things about its length is refused: the next
/// proxy may believe the other one.
fn framing(
    parts: &mut ResponseHead,
    method: &Method,
    (minor, chunked_length): (u8, bool),
) -> Result<Framing, Malformed> {
    let bodyless = *method == Method::HEAD
        || parts.status.is_informational()
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = content_length(&parts.headers)?;
    let is_tunnel = parts.status == StatusCode::SWITCHING_PROTOCOLS
        || *method == Method::CONNECT && parts.status.is_success();
    if is_tunnel {
        return Ok(Framing::Close);
    }
    if bodyless {
        return Ok(Framing::Length(0));
    }
    match transfer_coding(&parts.headers) {
        TransferCoding::None => Ok(length.map_or(Framing::Close, Framing::Length)),
        TransferCoding::Chunked if minor > 0 && chunked_length && length.is_some() => {
            parts.headers.remove(CONTENT_LENGTH);
            Ok(Framing::Chunked(Chunked::default()))
        }
        _ if minor == 0 || length.is_some() => {
            Err(Malformed("transfer-encoding beside another length"))
        }
        TransferCoding::Chunked => Ok(Framing::Chunked(Chunked::default())),
        TransferCoding::Other => Err(Malformed("a transfer coding that is not chunked")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(max_headers: u32) -> ConnectionSettings {
        ConnectionSettings { max_headers, ..ConnectionSettings::default() }
    }

    fn read(text: &str, method: Method) -> Result<Option<Head>, Malformed> {
        head(&Bytes::copy_from_slice(text.as_bytes()), &method, &settings(100))
    }

    #[test]
    fn a_body_ends_where_the_head_says() {
        let chunked = || Framing::Chunked(Chunked::default());
        let cases = [
            ("200 OK\r\nContent-Length: 5\r\n", Method::GET, Framing::Length(5), true),
            (
                "200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n",
                Method::GET,
                Framing::Length(5),
                true,
            ),
            ("200 OK\r\ntransfer-encoding: Chunked\r\n", Method::GET, chunked(), true),
            ("200 OK\r\n", Method::GET, Framing::Close, false),
            ("200 OK\r\ncontent-length: 5\r\n", Method::HEAD, Framing::Length(0), true),
            ("200 OK\r\ntransfer-encoding: chunked\r\n", Method::HEAD, Framing::Length(0), true),
            ("204 No Content\r\n", Method::GET, Framing::Length(0), true),
            ("304 Not Modified\r\ncontent-length: 9\r\n", Method::GET, Framing::Length(0), true),
            (
                "200 OK\r\ncontent-length: 0\r\nConnection: Close\r\n",
                Method::GET,
                Framing::Length(0),
                false,
            ),
        ];
        for (text, method, framing, keep_alive) in cases {
            let found = read(&format!("HTTP/1.1 {text}\r\n"), method).unwrap().unwrap();
            assert_eq!((found.framing, found.keep_alive), (framing, keep_alive), "{text}");
        }
        for (text, keep_alive) in [("", false), ("connection: keep-alive\r\n", true)] {
            let text = format!("HTTP/1.0 200\r\ncontent-length: 1\r\n{text}\r\n");
            assert_eq!(read(&text, Method::GET).unwrap().unwrap().keep_alive, keep_alive);
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let cases = [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nname : value\r\n\r\n",
            "HTTP/1.1 099 ?\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ];
        for text in cases {
            assert!(read(text, Method::GET).is_err(), "{text}");
        }
    }

    #[test]
    fn a_head_has_limits() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101));
        assert!(read(&many, Method::GET).is_err());
        let more = head(&Bytes::from(many), &Method::GET, &settings(101)).unwrap().unwrap();
        assert_eq!(more.parts.headers.get_all("a").iter().count(), 101);
        let long = format!("HTTP/1.1 200 OK\r\na: {}\r\n\r\n", "b".repeat(MAX_HEAD));
        assert!(read(&long, Method::GET).is_err());
        assert!(read(&long[..MAX_HEAD + 1], Method::GET).is_err(), "though its end is not here");
        assert!(read(&long[..MAX_HEAD], Method::GET).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let text = [b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes].concat();
            let _ = head(&Bytes::from(text), &Method::GET, &settings(100));
            let _ = head(&Bytes::from(bytes), &Method::GET, &settings(100));
        }
    }
}
