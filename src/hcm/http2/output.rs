//! What is to be sent on a connection: frames in a row, large bodies by reference.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::frame::{DATA, PING, RST_STREAM, SETTINGS, put_head};

/// Payloads up to this are copied beside their heads: that is cheaper than a longer vector.
const COPIED: usize = 4096;

/// Slices of one write.
const SLICES: usize = 64;

/// Sent bytes are kept in front of those to be sent up to so many.
const SLACK: usize = 16 * 1024;

/// What a connection that has nothing to send keeps.
const KEPT: usize = 1024;

/// Frames that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Heads, control frames and small payloads, in order.
    own: Vec<u8>,
    /// How much of it is sent.
    sent: usize,
    /// Large payloads, each with how many bytes of `own` come before it.
    bodies: VecDeque<(usize, Bytes)>,
    /// Bytes of them.
    bodies_length: usize,
    /// Frames that wait.
    pub(super) frames: Frames,
    /// Frames by where they end, counted from `passed` on, while not everything could be sent.
    marks: VecDeque<(u64, Frames)>,
    /// All of those.
    marked: Frames,
    /// Bytes ever sent.
    passed: u64,
}

/// So many frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Frames {
    pub(super) all: u32,
    /// Those among them that a peer can ask for: PING, SETTINGS, RST_STREAM.
    pub(super) control: u32,
}

impl Frames {
    fn without(self, gone: Self) -> Self {
        Self { all: self.all - gone.all, control: self.control - gone.control }
    }
}

impl Output {
    /// Bytes that wait to be sent.
    pub(super) fn len(&self) -> usize {
        self.own.len() - self.sent + self.bodies_length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a frame of `kind` is to be appended.
    pub(super) fn frame(&mut self, kind: u8) -> &mut Vec<u8> {
        self.frames.all += 1;
        self.frames.control += u32::from(matches!(kind, PING | SETTINGS | RST_STREAM));
        &mut self.own
    }

    /// Appends a DATA frame.
    pub(super) fn data(&mut self, stream: u32, flags: u8, payload: Bytes) {
        let own = self.frame(DATA);
        put_head(own, payload.len(), (DATA, flags), stream);
        if payload.len() <= COPIED {
            return own.extend_from_slice(&payload);
        }
        let at = own.len();
        self.bodies_length += payload.len();
        self.bodies.push_back((at, payload));
    }

    /// Sends until nothing is left.
    pub(super) fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        io: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let sent = match self.bodies.is_empty() {
                true => Pin::new(&mut *io).poll_write(cx, &self.own[self.sent..]),
                false => {
                    let mut slices = [IoSlice::new(&[]); SLICES];
                    let count = self.slices(&mut slices);
                    Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count])
                }
            };
            match sent {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(sent) => self.advance(sent?),
                Poll::Pending => {
                    self.mark();
                    return Poll::Pending;
                }
            }
        }
        (self.frames, self.marked) = (Frames::default(), Frames::default());
        self.marks.clear();
        ready!(Pin::new(io).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Bytes ever sent.
    pub(super) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether it holds more memory than it should while nothing goes on.
    pub(super) fn is_large(&self) -> bool {
        self.own.capacity() > KEPT
    }

    /// Gives memory back, if nothing waits.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.own = Vec::new();
            self.bodies = VecDeque::new();
            self.marks = VecDeque::new();
        }
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let (mut count, mut at) = (0, self.sent);
        for (before, body) in &self.bodies {
            if count + 2 > SLICES {
                return count;
            }
            if *before > at {
                slices[count] = IoSlice::new(&self.own[at..*before]);
                (count, at) = (count + 1, *before);
            }
            slices[count] = IoSlice::new(body);
            count += 1;
        }
        if at < self.own.len() && count < SLICES {
            slices[count] = IoSlice::new(&self.own[at..]);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut sent: usize) {
        self.passed += sent as u64;
        while sent > 0 {
            let own_end = self.bodies.front().map_or(self.own.len(), |(before, _)| *before);
            let own = sent.min(own_end - self.sent);
            self.sent += own;
            sent -= own;
            let Some((_, body)) = self.bodies.front_mut() else { break };
            let now = sent.min(body.len());
            body.advance(now);
            self.bodies_length -= now;
            sent -= now;
            if body.is_empty() {
                self.bodies.pop_front();
            } else {
                break;
            }
        }
        if self.is_empty() {
            self.own.clear();
            self.sent = 0;
        } else if self.sent > SLACK {
            self.own.drain(..self.sent);
            self.bodies.iter_mut().for_each(|(before, _)| *before -= self.sent);
            self.sent = 0;
        }
        while let Some((end, _)) = self.marks.front()
            && *end <= self.passed
            && let Some((_, gone)) = self.marks.pop_front()
        {
            self.frames = self.frames.without(gone);
            self.marked = self.marked.without(gone);
        }
    }

    /// Remembers where the frames end that were added since the last mark.
    fn mark(&mut self) {
        let new = self.frames.without(self.marked);
        if new.all > 0 {
            self.marked = self.frames;
            self.marks.push_back((self.passed + self.len() as u64, new));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::frame::{HEAD_LENGTH, Head, put_numbers};
    use super::*;

    /// Takes so many bytes at a time, until it is full.
    struct Sink {
        bytes: Vec<u8>,
        most: usize,
        room: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = buf.len().min(self.most).min(self.room);
            if n == 0 {
                return Poll::Pending;
            }
            self.room -= n;
            self.bytes.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.poll_write(cx, &bufs.iter().flat_map(|b| b.iter().copied()).collect::<Vec<_>>())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn fill(output: &mut Output) -> Vec<u8> {
        let mut expected = Vec::new();
        for (stream, length) in [(1u32, 10usize), (3, 9000), (5, COPIED), (7, 16_384), (9, 0)] {
            let payload: Vec<u8> = (0..length).map(|i| (i * 7).to_le_bytes()[0]).collect();
            put_head(&mut expected, length, (DATA, 0), stream);
            expected.extend_from_slice(&payload);
            output.data(stream, 0, payload.into());
        }
        for _ in 0..3 {
            put_numbers(output.frame(RST_STREAM), RST_STREAM, 11, &[7]);
            put_numbers(&mut expected, RST_STREAM, 11, &[7]);
        }
        expected
    }

    #[test]
    fn frames_leave_in_order_however_little_a_peer_takes() {
        for most in [1, 100, 5000, 1 << 20] {
            let mut cx = Context::from_waker(Waker::noop());
            let mut output = Output::default();
            let mut sink = Sink { bytes: Vec::new(), most, room: usize::MAX };
            let mut expected = fill(&mut output);
            expected.extend(fill(&mut output));
            assert_eq!(output.len(), expected.len());
            assert!(output.poll_send(&mut sink, &mut cx).is_ready());
            assert!(sink.bytes == expected, "{most}");
            assert!(output.is_empty() && output.own.is_empty() && output.bodies.is_empty());
        }
    }

    #[test]
    fn frames_are_counted_until_they_are_sent() {
        let mut cx = Context::from_waker(Waker::noop());
        let mut output = Output::default();
        let mut sink = Sink { bytes: Vec::new(), most: usize::MAX, room: 100 };
        let expected = fill(&mut output);
        assert_eq!(output.frames, Frames { all: 8, control: 3 });
        assert!(output.poll_send(&mut sink, &mut cx).is_pending());
        fill(&mut output);
        assert!(output.poll_send(&mut sink, &mut cx).is_pending());
        assert_eq!(output.frames, Frames { all: 16, control: 6 });
        sink.room = expected.len() - 100;
        assert!(output.poll_send(&mut sink, &mut cx).is_pending());
        assert_eq!(output.frames, Frames { all: 8, control: 3 });
        sink.room = usize::MAX;
        assert!(output.poll_send(&mut sink, &mut cx).is_ready());
        assert_eq!(output.frames, Frames::default());
        assert_eq!(sink.bytes.len(), 2 * expected.len());
        assert_eq!(Head::parse(&sink.bytes[HEAD_LENGTH + 10..]).unwrap().length, 9000);
    }
}
