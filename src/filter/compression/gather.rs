//! A short body, waited for if it is there at once or soon.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use crate::exchange::deadline::{Deadline, Deadlines};
use crate::exchange::{Body, BodyError};

/// How long a body is waited for. The response's head waits with it.
const PATIENCE: Duration = Duration::from_millis(5);

/// A body after a short wait.
pub(super) enum Gathered {
    /// All of it, without trailers.
    Whole(Bytes),
    /// It is not all here, or has more to it than bytes: the same body as before.
    Streamed(Body),
}

/// Waits for a body that has so many bytes at the most.
pub(super) async fn gather(mut body: Body, limit: u64, deadlines: &Deadlines) -> Gathered {
    if let Body::Full(bytes) = body {
        return Gathered::Whole(bytes);
    }
    let mut frames = VecDeque::new();
    let mut deadline = None;
    let mut length = 0;
    loop {
        let frame = poll_fn(|cx| next(&mut body, &mut deadline, deadlines, cx)).await;
        match frame {
            Some(None) => return Gathered::Whole(join(frames, length)),
            Some(Some(Ok(frame))) => {
                length += frame.data_ref().map_or(0, Bytes::len);
                let is_data = frame.is_data();
                frames.push_back(Ok(frame));
                if !is_data || length as u64 > limit {
                    break;
                }
                if body.is_end_stream() {
                    return Gathered::Whole(join(frames, length));
                }
            }
            Some(Some(Err(error))) => {
                frames.push_back(Err(error));
                break;
            }
            None => break,
        }
    }
    Gathered::Streamed(Body::boxed(Resumed { frames, body }))
}

/// A frame, or the end.
type Next = Option<Result<Frame<Bytes>, BodyError>>;

/// The next frame, or none of it once the wait is over. The wait begins with the first frame that is not
/// there yet.
fn next(
    body: &mut Body,
    deadline: &mut Option<Deadline>,
    deadlines: &Deadlines,
    cx: &mut Context<'_>,
) -> Poll<Option<Next>> {
    if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
        return Poll::Ready(Some(frame));
    }
    let deadline = deadline.get_or_insert_with(|| deadlines.at(Instant::now() + PATIENCE));
    Pin::new(deadline).poll(cx).map(|_over| None)
}

fn join(mut frames: VecDeque<Result<Frame<Bytes>, BodyError>>, length: usize) -> Bytes {
    let mut pieces = frames.drain(..).filter_map(|frame| frame.ok()?.into_data().ok());
    let first = pieces.next().unwrap_or_default();
    if first.len() == length {
        return first;
    }
    let mut all = BytesMut::with_capacity(length);
    all.extend_from_slice(&first);
    pieces.for_each(|piece| all.extend_from_slice(&piece));
    all.freeze()
}

/// A body of which some frames were read already.
struct Resumed {
    frames: VecDeque<Result<Frame<Bytes>, BodyError>>,
    body: Body,
}

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(frame)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.frames.is_empty() {
            true => self.body.size_hint(),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    type Sent = Result<Frame<Bytes>, BodyError>;

    fn channel() -> (mpsc::Sender<Sent>, Body) {
        let (sender, mut receiver) = mpsc::channel(8);
        let frames = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        (sender, Body::boxed(StreamBody::new(frames)))
    }

    fn data(text: &'static str) -> Sent {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn running() -> Deadlines {
        let deadlines = Deadlines::default();
        tokio::spawn(deadlines.clone().run());
        deadlines
    }

    #[tokio::test]
    async fn what_is_there_is_taken_whole() {
        let deadlines = running();
        for pieces in [&["ab"][..], &["a", "b"], &["", "a", "", "b"]] {
            let (sender, body) = channel();
            for piece in pieces {
                sender.send(data(piece)).await.unwrap();
            }
            drop(sender);
            match gather(body, 10, &deadlines).await {
                Gathered::Whole(bytes) => assert_eq!(bytes, "ab"),
                Gathered::Streamed(_) => panic!("{pieces:?} is whole"),
            }
        }
        assert!(matches!(gather("ab".into(), 1, &deadlines).await, Gathered::Whole(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_slow_or_long_or_has_trailers_or_breaks_is_the_body_that_it_was() {
        let deadlines = running();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("a", http::HeaderValue::from_static("b"));
        for (then, limit) in [
            (None, 100),
            (Some(data("cd")), 3),
            (Some(Ok(Frame::trailers(trailers))), 100),
            (Some(Err(BodyError::Timeout)), 100),
        ] {
            let (sender, body) = channel();
            sender.send(data("ab")).await.unwrap();
            let breaks = matches!(then, Some(Err(_)));
            match then {
                Some(frame) => sender.send(frame).await.unwrap(),
                None => {
                    let sender = sender.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(PATIENCE * 3).await;
                        sender.send(data("cd")).await.unwrap();
                    });
                }
            }
            drop(sender);
            let Gathered::Streamed(body) = gather(body, limit, &deadlines).await else {
                panic!("it is not whole")
            };
            match body.collect().await {
                Ok(all) => assert!(!breaks && all.to_bytes().starts_with(b"ab")),
                Err(error) => assert!(breaks && matches!(error, BodyError::Timeout)),
            }
        }
    }
}
