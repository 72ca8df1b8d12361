//! Envoy's decompressor tells at a body's end how many bytes went in and came out, in trailers.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use crate::exchange::{Body, BodyError};

/// The names of the trailers.
#[derive(Debug)]
pub(super) struct Names {
    compressed: HeaderName,
    uncompressed: HeaderName,
}

impl Names {
    /// With the name of a library in them; what cannot be in a header's name is `_` there.
    pub(super) fn of(library: &str) -> Self {
        let letter = |letter: char| match letter {
            'a'..='z' | '0'..='9' | '-' | '.' | '_' => letter,
            'A'..='Z' => letter.to_ascii_lowercase(),
            _ => '_',
        };
        let library: String = library.chars().map(letter).collect();
        let name = |what: &str| {
            HeaderName::try_from(format!("x-envoy-decompressor-{library}-{what}-bytes"))
                .expect("letters, digits, dashes, dots and underscores make a header's name")
        };
        Self { compressed: name("compressed"), uncompressed: name("uncompressed") }
    }
}

/// How many bytes went in and came out, once that is known. Clones are of the same body.
#[derive(Clone, Default)]
pub(super) struct ByteCounts(Arc<OnceLock<(u64, u64)>>);

impl ByteCounts {
    pub(super) fn set(&self, compressed: u64, uncompressed: u64) {
        // A body ends once.
        let _ = self.0.set((compressed, uncompressed));
    }
}

/// A body with its counts behind it.
pub(super) struct WithByteCounts {
    body: Body,
    counts: ByteCounts,
    names: Arc<Names>,
    told: bool,
}

impl WithByteCounts {
    pub(super) fn new(body: Body, counts: ByteCounts, names: &Arc<Names>) -> Self {
        Self { body, counts, names: Arc::clone(names), told: false }
    }

    /// The trailers with the counts among them; none if there are neither.
    fn tell(&mut self, mut trailers: HeaderMap) -> Option<Frame<Bytes>> {
        self.told = true;
        if let Some((compressed, uncompressed)) = self.counts.0.get() {
            trailers.insert(self.names.compressed.clone(), HeaderValue::from(*compressed));
            trailers.insert(self.names.uncompressed.clone(), HeaderValue::from(*uncompressed));
        }
        (!trailers.is_empty()).then(|| Frame::trailers(trailers))
    }
}

impl http_body::Body for WithByteCounts {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.told {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => match frame.into_trailers() {
                Ok(trailers) => self.tell(trailers),
                Err(data) => Some(data),
            },
            Some(Err(error)) => {
                self.told = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => self.tell(HeaderMap::new()),
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.told
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn counts_come_last_among_what_trailers_there_are() {
        let names = Arc::new(Names::of("My lib"));
        for given in [None, Some("x-sum")] {
            let trailers = given.map(|name| {
                let mut trailers = HeaderMap::new();
                trailers.insert(name, HeaderValue::from_static("1"));
                Ok(Frame::trailers(trailers))
            });
            let frames = [Ok(Frame::data(Bytes::from_static(b"abc")))].into_iter().chain(trailers);
            let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
            let counts = ByteCounts::default();
            counts.set(2, 3);
            let body = WithByteCounts::new(body, counts, &names);
            let all = body.collect().await.unwrap();
            let trailers = all.trailers().unwrap();
            assert_eq!(trailers["x-envoy-decompressor-my_lib-compressed-bytes"], "2");
            assert_eq!(trailers["x-envoy-decompressor-my_lib-uncompressed-bytes"], "3");
            assert_eq!(trailers.len(), 2 + usize::from(given.is_some()));
            assert_eq!(all.to_bytes(), "abc");
        }
    }
}
