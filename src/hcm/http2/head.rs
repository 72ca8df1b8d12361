//! From the fields of a header block to a request, if they make one (RFC 9113 sections 8.2 and 8.3).

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use super::hpack::{Field, Name, Pseudo, Value};
use crate::exchange::headers::is_hop_by_hop;
use crate::hcm::sane::is_authority;

/// A message breaks a rule of HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of names and values.
    pub(super) bytes: usize,
    /// Headers; one more is kept, so that whoever counts them sees it.
    pub(super) count: usize,
    /// `CONNECT` may name a protocol.
    pub(super) allow_connect: bool,
}

/// Fields of a block as they are read. A block is always read to its end, whatever is wrong with it.
#[derive(Debug)]
pub(super) struct Fields {
    limits: Limits,
    is_trailers: bool,
    bytes: usize,
    method: Option<HeaderValue>,
    scheme: Option<HeaderValue>,
    authority: Option<HeaderValue>,
    path: Option<HeaderValue>,
    protocol: Option<HeaderValue>,
    headers: HeaderMap,
    length: Option<u64>,
    malformed: Option<Malformed>,
}

/// A request without its body.
#[derive(Debug)]
pub(super) struct RequestFields {
    pub(super) method: Method,
    pub(super) uri: Uri,
    /// With the authority in `Host`.
    pub(super) headers: HeaderMap,
    /// What `Content-Length` says.
    pub(super) length: Option<u64>,
    /// Not all headers are here, there were so many.
    pub(super) is_too_large: bool,
    /// It asks for a tunnel.
    pub(super) wants_tunnel: bool,
}

impl Fields {
    pub(super) fn of_request(limits: Limits) -> Self {
        Self::new(limits, false)
    }

    pub(super) fn of_trailers(limits: Limits) -> Self {
        Self::new(limits, true)
    }

    fn new(limits: Limits, is_trailers: bool) -> Self {
        Self {
            limits,
            is_trailers,
            bytes: 0,
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            headers: HeaderMap::with_capacity(if is_trailers { 0 } else { 16 }),
            length: None,
            malformed: None,
        }
    }

    /// Takes the next field.
    pub(super) fn push(&mut self, field: Field) {
        if self.malformed.is_none()
            && let Err(malformed) = self.take(field)
        {
            self.malformed = Some(malformed);
        }
    }

    fn take(&mut self, Field { name, value }: Field) -> Result<(), Malformed> {
        let Value::Sound(value) = value else { return Err(Malformed("a value")) };
        let name = match name {
            Name::Header(name) => name,
            Name::Malformed(_) => return Err(Malformed("a name")),
            Name::Pseudo(pseudo) => return self.take_pseudo(pseudo, value),
        };
        self.bytes = self.bytes.saturating_add(name.as_str().len() + value.len());
        check_header(&name, &value)?;
        if name == CONTENT_LENGTH {
            if self.length.is_some() {
                return Err(Malformed("two content lengths"));
            }
            self.length = Some(length_of(&value).ok_or(Malformed("a content length"))?);
        }
        let is_second_host = name == HOST && !self.is_trailers && self.headers.contains_key(HOST);
        if is_second_host {
            return Err(Malformed("two hosts"));
        }
        if !self.is_too_large() && self.headers.len() <= self.limits.count {
            // There is room for more headers than the limits allow.
            let appended = self.headers.try_append(name, value);
            appended.map_err(|_full| Malformed("more headers than can be counted"))?;
        }
        Ok(())
    }

    fn take_pseudo(&mut self, pseudo: Pseudo, value: HeaderValue) -> Result<(), Malformed> {
        if self.is_trailers || self.bytes > 0 || !self.headers.is_empty() {
            return Err(Malformed("a pseudo-header after a header"));
        }
        let place = match pseudo {
            Pseudo::Method => &mut self.method,
            Pseudo::Scheme => &mut self.scheme,
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Protocol if self.limits.allow_connect => &mut self.protocol,
            Pseudo::Protocol => return Err(Malformed("a protocol nobody offered")),
            Pseudo::Status => return Err(Malformed("a status in a request")),
        };
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Malformed("a pseudo-header twice")),
        }
    }

    fn is_too_large(&self) -> bool {
        self.bytes > self.limits.bytes
    }

    /// The request, which is one without a body if the stream ends here.
    pub(super) fn into_request(mut self, ends: bool) -> Result<RequestFields, Malformed> {
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        if ends && self.length.is_some_and(|length| length > 0) {
            return Err(Malformed("a length without a body"));
        }
        let method = self.method.as_ref().ok_or(Malformed("no method"))?;
        let method = Method::from_bytes(method.as_bytes());
        let method = method.map_err(|_invalid| Malformed("a method"))?;
        let path = self.path.as_ref().map_or(0, HeaderValue::len);
        let is_too_large = self.is_too_large() || path > self.limits.bytes;
        let authority = self.authority.as_ref().or_else(|| self.headers.get(HOST));
        if !authority.is_some_and(|authority| is_authority(authority.as_bytes())) {
            return Err(Malformed("an authority"));
        }
        if let Some(authority) = self.authority.take() {
            self.headers.insert(HOST, authority);
        }
        let (method, wants_tunnel) = self.tunnel(method)?;
        let uri = match (&method, &self.scheme, &self.path) {
            (&Method::CONNECT, None, None) => {
                let host = self.headers.get(HOST).map_or(&b""[..], HeaderValue::as_bytes);
                Authority::try_from(host)
                    .map(Uri::from)
                    .map_err(|_invalid| Malformed("an authority"))?
            }
            (&Method::CONNECT, ..) => return Err(Malformed("CONNECT with a path or a scheme")),
            (_, Some(scheme), Some(path)) if is_scheme(scheme.as_bytes()) => match is_too_large {
                true => Uri::default(),
                false => Uri::from(path_of(&method, path.as_bytes())?),
            },
            _ => return Err(Malformed("no path or scheme")),
        };
        let Self { headers, length, .. } = self;
        Ok(RequestFields { method, uri, headers, length, is_too_large, wants_tunnel })
    }

    /// The method, and whether it is for a tunnel. One with a protocol is what HTTP/1.1 asks for by `Upgrade`
    /// (RFC 8441 section 5), and goes on as such.
    fn tunnel(&mut self, method: Method) -> Result<(Method, bool), Malformed> {
        let is_connect = method == Method::CONNECT;
        let Some(protocol) = self.protocol.take() else { return Ok((method, is_connect)) };
        if !is_connect {
            return Err(Malformed("a protocol without CONNECT"));
        }
        self.headers.insert(UPGRADE, protocol);
        self.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        Ok((Method::GET, true))
    }

    /// The trailers.
    pub(super) fn into_trailers(self) -> Result<HeaderMap, Malformed> {
        match self.malformed {
            Some(malformed) => Err(malformed),
            None if self.is_too_large() || self.headers.len() > self.limits.count => {
                Err(Malformed("too many trailers"))
            }
            None => Ok(self.headers),
        }
    }
}

impl RequestFields {
    /// The request with its body.
    pub(super) fn with<B>(self, body: B) -> http::Request<B> {
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Headers of a connection have no place in HTTP/2 (RFC 9113 section 8.2.2).
fn check_header(name: &HeaderName, value: &HeaderValue) -> Result<(), Malformed> {
    if is_hop_by_hop(name) && (*name != TE || value != "trailers") {
        return Err(Malformed("a header of the connection"));
    }
    Ok(())
}

fn length_of(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok()?;
    let is_number = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// A path begins with a slash, but that of `OPTIONS *`, and has no fragment.
fn path_of(method: &Method, text: &[u8]) -> Result<PathAndQuery, Malformed> {
    let begins = text.starts_with(b"/") || *method == Method::OPTIONS && text == b"*";
    if !begins || text.contains(&b'#') {
        return Err(Malformed("a path"));
    }
    PathAndQuery::try_from(text).map_err(|_invalid| Malformed("a path"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { bytes: 200, count: 5, allow_connect: true };

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::of_request(LIMITS);
        push(&mut fields, list);
        fields
    }

    fn push(fields: &mut Fields, list: &[(&str, &str)]) {
        for (name, value) in list {
            let name = match *name {
                ":method" => Name::Pseudo(Pseudo::Method),
                ":scheme" => Name::Pseudo(Pseudo::Scheme),
                ":path" => Name::Pseudo(Pseudo::Path),
                ":protocol" => Name::Pseudo(Pseudo::Protocol),
                ":authority" => Name::Pseudo(Pseudo::Authority),
                ":status" => Name::Pseudo(Pseudo::Status),
                other => HeaderName::from_lowercase(other.as_bytes())
                    .map_or(Name::Malformed(other.len()), Name::Header),
            };
            fields.push(Field { name, value: Value::Sound(value.parse().unwrap()) });
        }
    }

    const USUAL: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":path", "/a?b"), (":authority", "a.test")];

    fn with(more: &[(&str, &str)]) -> Result<RequestFields, Malformed> {
        fields(&[&USUAL, more].concat()).into_request(false)
    }

    #[test]
    fn connect_with_a_protocol_is_an_upgrade_if_it_is_allowed() {
        let connect = |protocol: &'static str| {
            [
                (":method", "CONNECT"),
                (":protocol", protocol),
                (":scheme", "http"),
                (":path", "/chat"),
                (":authority", "a.test"),
            ]
        };
        let request = fields(&connect("websocket")).into_request(false).unwrap();
        assert_eq!((&request.method, request.uri.path()), (&Method::GET, "/chat"));
        assert_eq!(request.headers[UPGRADE], "websocket");
        assert!(request.wants_tunnel);
        let mut refused = Fields::of_request(Limits { allow_connect: false, ..LIMITS });
        push(&mut refused, &connect("websocket"));
        assert!(refused.into_request(false).is_err());
        assert!(with(&[(":protocol", "websocket")]).is_err(), "a GET");
    }

    #[test]
    fn the_authority_is_the_host() {
        let request = with(&[("host", "b.test"), ("te", "trailers"), ("content-length", "7")]);
        let request = request.unwrap();
        assert_eq!(request.uri, "/a?b");
        assert_eq!(request.headers[HOST], "a.test");
        assert_eq!((request.length, request.is_too_large), (Some(7), false));
        let only_host = [&USUAL[..3], &[("host", "b.test")]].concat();
        assert_eq!(fields(&only_host).into_request(true).unwrap().headers[HOST], "b.test");
        let options = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), ("host", "b")];
        assert_eq!(fields(&options).into_request(true).unwrap().uri, "*");
        let connect = [(":method", "CONNECT"), (":authority", "b.test:443")];
        assert_eq!(fields(&connect).into_request(true).unwrap().uri, "b.test:443");
    }

    #[test]
    fn what_breaks_a_rule_is_no_request() {
        for more in [
            ("X-Upper", "a"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("te", "trailers, deflate"),
            (":path", "/"),
            (":status", "200"),
            ("content-length", "+1"),
            ("content-length", ""),
            ("content-length", "1,1"),
            ("content-length", "99999999999999999999"),
        ] {
            assert!(with(&[more]).is_err(), "{more:?}");
        }
        assert!(with(&[("content-length", "1"), ("content-length", "1")]).is_err());
        assert!(with(&[("host", "a"), ("host", "a")]).is_err());
        assert!(with(&[("x-a", ""), (":protocol", "websocket")]).is_err());
        let length = [&USUAL[..], &[("content-length", "1")]].concat();
        assert!(fields(&length).into_request(true).is_err());
        let late = [&USUAL[..3], &[("x-a", "b"), (":authority", "a.test")]].concat();
        assert!(fields(&late).into_request(true).is_err());
        for (without, _) in USUAL {
            let list: Vec<_> = USUAL.into_iter().filter(|(name, _)| *name != without).collect();
            assert!(fields(&list).into_request(true).is_err(), "{without}");
        }
        for (at, value) in [
            (0, "G T"),
            (0, ""),
            (1, ""),
            (1, "ht tp"),
            (2, ""),
            (2, "*"),
            (2, "a"),
            (2, "/a b"),
            (2, "/a#b"),
            (3, ""),
            (3, "a/b"),
            (3, "a b"),
        ] {
            let mut list = USUAL;
            list[at].1 = value;
            assert!(fields(&list).into_request(true).is_err(), "{:?}", list[at]);
        }
        for (name, value) in [(":scheme", "http"), (":path", "/")] {
            let list = [(":method", "CONNECT"), (":authority", "a:1"), (name, value)];
            assert!(fields(&list).into_request(true).is_err());
        }
    }

    #[test]
    fn what_is_too_large_is_told_and_not_kept() {
        let long = "x".repeat(150);
        let request = with(&[("x-a", &long), ("x-b", &long), ("x-c", &long)]).unwrap();
        assert!(request.is_too_large);
        assert_eq!(request.headers.len(), 2);
        let many: Vec<_> = (0..9).map(|_| ("x-a", "b")).collect();
        let request = with(&many).unwrap();
        assert!(!request.is_too_large);
        assert_eq!(request.headers.len(), LIMITS.count + 2);
        let path = format!("/{}", "p".repeat(200));
        let mut list = USUAL;
        list[2].1 = &path;
        assert!(fields(&list).into_request(true).unwrap().is_too_large);
    }

    #[test]
    fn trailers_are_headers_only() {
        let trailers = |list: &[(&str, &str)]| {
            let mut fields = Fields::of_trailers(LIMITS);
            push(&mut fields, list);
            fields.into_trailers()
        };
        assert_eq!(trailers(&[("x-sum", "1")]).unwrap()["x-sum"], "1");
        for wrong in [(":path", "/"), ("connection", "close"), ("X-A", "b")] {
            assert!(trailers(&[wrong]).is_err(), "{wrong:?}");
        }
        assert!(trailers(&[("x-a", "b"); 6]).is_err());
    }
}
