//! Leaving HTTP on a connection: `Upgrade` (RFC 9110 section 7.8) and `CONNECT` (section 9.3.6).
//!
//! What follows the head of such a request is its body, and what the other side says is the body of the
//! answer, without a length, until either side ends it. The body is not read before the upstream agreed.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::RequestHead;

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// The codec can leave HTTP on this connection, and the request asks for it: an extension of its head.
#[derive(Debug, Clone, Copy)]
pub struct WantsTunnel;

/// The upstream is no HTTP server but the far end of the tunnel: an extension of a request's head.
#[derive(Debug, Clone, Copy)]
pub struct EndsHere;

/// A request that asks to leave HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedUpgrade {
    /// What for.
    pub upgrade: Upgrade,
    /// The connection manager lets it, unless the route says otherwise.
    pub is_allowed: bool,
}

/// What a request changes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    /// A tunnel.
    Connect,
    /// A protocol, as `Upgrade` names it.
    Protocol(HeaderValue),
}

impl Upgrade {
    /// What a request asks for that wants a tunnel. HTTP/2 is not changed to; who offers it goes on as it
    /// began.
    pub fn asked(head: &mut RequestHead) -> Option<Self> {
        if head.method == Method::CONNECT {
            return Some(Self::Connect);
        }
        let protocol = head.headers.get(UPGRADE).cloned()?;
        if protocol.as_bytes().trim_ascii().eq_ignore_ascii_case(b"h2c") {
            head.headers.remove(HTTP2_SETTINGS);
            return None;
        }
        Some(Self::Protocol(protocol))
    }

    /// The name that configurations have for it.
    fn kind(&self) -> &[u8] {
        match self {
            Self::Connect => b"CONNECT",
            Self::Protocol(protocol) => protocol.as_bytes().trim_ascii(),
        }
    }

    /// Whether a configuration means it by this name.
    pub fn is(&self, kind: &str) -> bool {
        self.kind().eq_ignore_ascii_case(kind.as_bytes())
    }

    /// Puts back what was removed as of one hop only: the next one is asked as well.
    pub fn ask(&self, headers: &mut HeaderMap) {
        if let Self::Protocol(protocol) = self {
            headers.insert(UPGRADE, protocol.clone());
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
    }
}
