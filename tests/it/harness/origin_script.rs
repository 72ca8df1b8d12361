//! What an origin is told to answer.

use bytes::Bytes;
use http::HeaderMap;

/// One answer, for every request until another is given.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body; the origin's name if none is said.
    pub(crate) body: Option<Bytes>,
    /// How many bytes the body has instead, whatever they are.
    pub(crate) size: Option<u64>,
    /// The last part of the path says how many.
    pub(crate) size_by_path: bool,
    /// Announce the size with `content-length`.
    pub(crate) sized: bool,
    /// Say when, if the headers do not.
    pub(crate) dated: bool,
    /// Answer with the request's own body and trailers.
    pub(crate) echo: bool,
    /// Answer without reading the request's body.
    pub(crate) early: bool,
    pub(crate) trailers: HeaderMap,
    /// Wait before the head until the origin is released.
    pub(crate) held: bool,
    /// Send this much of the body, then wait until the origin is released.
    pub(crate) held_after: Option<u64>,
    pub(crate) ending: Ending,
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As it should.
    Whole,
    /// The connection is cut (HTTP/2: the stream is reset) instead of an answer.
    BeforeHead,
    /// The same, after so many bytes of the body.
    After(u64),
    /// The connection is closed after the answer, without a word before.
    ThenClose,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            status: 200,
            headers: HeaderMap::new(),
            body: None,
            size: None,
            size_by_path: false,
            sized: true,
            dated: true,
            echo: false,
            early: false,
            trailers: HeaderMap::new(),
            held: false,
            held_after: None,
            ending: Ending::Whole,
        }
    }
}

impl Script {
    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn size(size: u64) -> Self {
        Self { size: Some(size), ..Self::default() }
    }

    pub(crate) fn echo() -> Self {
        Self { echo: true, ..Self::default() }
    }

    /// Waits before the head.
    pub(crate) fn held() -> Self {
        Self { held: true, ..Self::default() }
    }

    pub(crate) fn ending(ending: Ending) -> Self {
        Self { ending, size: Some(4096), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub(crate) fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.append(name, value.parse().unwrap());
        self.chunked()
    }

    pub(crate) fn chunked(mut self) -> Self {
        self.sized = false;
        self
    }
}
