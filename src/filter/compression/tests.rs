//! Bodies around bodies: what comes out, when, and what is told of it.

mod flush;
mod pace;
mod story;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::BodyExt;

use super::*;
use crate::coding::{Coding, Encoding, Limits, Pool, Slots, Zlib};
use crate::exchange::deadline::Deadlines;
use crate::exchange::{Body, BodyError};

const WIDE: Limits = Limits { max_bytes: u64::MAX, max_ratio: u32::MAX };

/// What a body does each time it is asked.
#[derive(Debug)]
enum Turn {
    Data(Bytes),
    Trailers(HeaderMap),
    /// Pending, and ready at once.
    Pause,
    /// Pending for ever.
    Stop,
    Break,
}

/// Does one turn after the other.
#[derive(Debug)]
struct Script(VecDeque<Turn>);

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(match self.0.pop_front() {
            None => None,
            Some(Turn::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Turn::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Turn::Break) => Some(Err(BodyError::Timeout)),
            Some(Turn::Pause) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Some(Turn::Stop) => {
                self.0.push_front(Turn::Stop);
                return Poll::Pending;
            }
        })
    }
}

fn script(turns: impl IntoIterator<Item = Turn>) -> Body {
    Body::boxed(Script(turns.into_iter().collect()))
}

fn data(bytes: &[u8]) -> Turn {
    Turn::Data(Bytes::copy_from_slice(bytes))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(ETAG, "\"1\"".parse().unwrap())])
}

fn gzip() -> Arc<Encoding> {
    Arc::new(Encoding::Gzip(Zlib::default()))
}

fn pool() -> Pool {
    Pool::new(&Slots::default())
}

/// Remembers what a body came to; a second time is a mistake.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Option<Outcome>>>);

impl Told {
    fn hear(&self) -> impl FnOnce(Outcome) + Send + use<> {
        let told = self.clone();
        move |outcome| assert!(told.0.lock().unwrap().replace(outcome).is_none())
    }

    fn end(&self) -> Option<End> {
        self.0.lock().unwrap().map(|outcome| outcome.end)
    }

    #[track_caller]
    fn outcome(&self) -> Outcome {
        self.0.lock().unwrap().expect("it has ended")
    }
}

fn encode(body: Body, encoding: &Arc<Encoding>, told: &Told) -> Body {
    encoded(body, encoding, &pool(), Flush::Soon(Deadlines::default()), told.hear())
}

fn decode(body: Body, coding: Coding, limits: Limits, told: &Told) -> Body {
    decoded(body, coding.into(), limits, &pool(), told.hear())
}

async fn collect(body: Body) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
    let collected = body.collect().await?;
    let trailers = collected.trailers().cloned();
    Ok((collected.to_bytes(), trailers))
}
