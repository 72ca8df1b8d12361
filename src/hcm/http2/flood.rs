//! What a client may ask of us without asking for anything useful: `Http2ProtocolOptions` names the limits.

use super::frame::{
    CONTINUATION, DATA, END_STREAM, Fault, HEADERS, Head, PRIORITY, Reason, WINDOW_UPDATE,
};
use super::output::Frames;
use super::stats::Http2Stats;

/// Streams after which clients that reset more than every other one are sent away: what Envoy calls
/// premature resets.
const MANY_STREAMS: u32 = 500;

/// A priority frame of the kind that goes to stream 0 (RFC 9218 section 7.1).
const PRIORITY_UPDATE: u8 = 0x10;

/// Limits on frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FloodLimits {
    /// Frames that wait to be sent.
    pub outbound: u32,
    /// Those among them that answer a client's control frames.
    pub outbound_control: u32,
    /// Frames in a row with neither bytes nor an end.
    pub empty: u32,
    /// Priorities for each stream.
    pub priority: u32,
    /// Window updates for each DATA frame.
    pub window_update: u32,
}

impl Default for FloodLimits {
    fn default() -> Self {
        Self {
            outbound: 10_000,
            outbound_control: 1000,
            empty: 1,
            priority: 100,
            window_update: 10,
        }
    }
}

/// What one client did.
#[derive(Debug)]
pub(super) struct Watch {
    limits: FloodLimits,
    /// Streams it opened.
    streams: u64,
    empty: u32,
    priority: u64,
    window_updates: u64,
    /// DATA frames sent to it.
    data_sent: u64,
    /// Streams that are over, up to [`MANY_STREAMS`].
    over: u32,
    /// Those among them that it ended before it saw an answer.
    early: u32,
}

const fn flood(what: &'static str) -> Fault {
    Fault::Connection(Reason::ENHANCE_YOUR_CALM, what)
}

impl Watch {
    pub(super) fn new(limits: FloodLimits) -> Self {
        Self {
            limits,
            streams: 0,
            empty: 0,
            priority: 0,
            window_updates: 0,
            data_sent: 0,
            over: 0,
            early: 0,
        }
    }

    /// A frame came. `content` is its length without padding.
    pub(super) fn frame(
        &mut self,
        head: Head,
        content: usize,
        stats: &Http2Stats,
    ) -> Result<(), Fault> {
        match head.kind {
            DATA | HEADERS | CONTINUATION => {
                let ends = head.kind != CONTINUATION && head.has(END_STREAM);
                self.empty = if content == 0 && !ends { self.empty + 1 } else { 0 };
                if self.empty > self.limits.empty {
                    stats.inbound_empty_frames_flood.inc();
                    return Err(flood("too many empty frames"));
                }
            }
            PRIORITY | PRIORITY_UPDATE => {
                self.priority += 1;
                if self.priority > u64::from(self.limits.priority) * (1 + self.streams) {
                    stats.inbound_priority_frames_flood.inc();
                    return Err(flood("too many priorities"));
                }
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let sent = u64::from(self.limits.window_update) * self.data_sent;
                if self.window_updates > 5 + 2 * (self.streams + sent) {
                    stats.inbound_window_update_frames_flood.inc();
                    return Err(flood("too many window updates"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn opened(&mut self) {
        self.streams += 1;
    }

    pub(super) fn sent_data(&mut self) {
        self.data_sent += 1;
    }

    /// A stream is over; `early` if the client made it so before it saw an answer.
    pub(super) fn over(&mut self, early: bool) {
        if self.over == MANY_STREAMS {
            self.over /= 2;
            self.early /= 2;
        }
        self.over += 1;
        self.early += u32::from(early);
    }

    /// Whether the client resets streams for the sake of it.
    pub(super) fn resets_too_much(&self) -> bool {
        self.over == MANY_STREAMS && self.early > MANY_STREAMS / 2
    }

    /// Whether so many frames wait that they should leave before more come.
    pub(super) fn wants_flush(&self, waiting: Frames) -> bool {
        waiting.control > self.limits.outbound_control / 2 || waiting.all > self.limits.outbound / 2
    }

    /// Whether more frames wait than may.
    pub(super) fn waiting(&self, waiting: Frames, stats: &Http2Stats) -> Result<(), Fault> {
        if waiting.control > self.limits.outbound_control {
            stats.outbound_control_flood.inc();
            return Err(flood("too many control frames wait to be sent"));
        }
        if waiting.all > self.limits.outbound {
            stats.outbound_flood.inc();
            return Err(flood("too many frames wait to be sent"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{END_HEADERS, PING};
    use super::*;

    fn head(kind: u8, flags: u8) -> Head {
        Head { length: 0, kind, flags, stream: 1 }
    }

    #[test]
    fn frames_without_use_are_taken_up_to_a_limit() {
        let stats = Http2Stats::default();
        let new = || Watch::new(FloodLimits::default());
        let count = |watch: &mut Watch, head, content| {
            (0..).find(|_| watch.frame(head, content, &stats).is_err()).unwrap()
        };
        assert_eq!(count(&mut new(), head(DATA, 0), 0), 1);
        assert_eq!(count(&mut new(), head(CONTINUATION, END_HEADERS), 0), 1);
        assert_eq!(count(&mut new(), head(PRIORITY, 0), 5), 100);
        assert_eq!(count(&mut new(), head(WINDOW_UPDATE, 0), 4), 5);
        let mut busy = new();
        busy.opened();
        busy.sent_data();
        assert_eq!(count(&mut busy, head(PRIORITY_UPDATE, 0), 5), 200);
        assert_eq!(count(&mut busy, head(WINDOW_UPDATE, 0), 4), 27);
        for useful in [head(DATA, END_STREAM), head(PING, 0)] {
            assert!((0..5000).all(|_| busy.frame(useful, 0, &stats).is_ok()));
        }
        assert_eq!(stats.inbound_empty_frames_flood.value(), 2);
    }

    #[test]
    fn who_resets_most_streams_is_sent_away() {
        let mut watch = Watch::new(FloodLimits::default());
        assert_eq!((0..).find(|_| (watch.over(true), watch.resets_too_much()).1), Some(499));
        let mut fair = Watch::new(FloodLimits::default());
        assert!((0..10_000).all(|n| (fair.over(n % 2 == 0), !fair.resets_too_much()).1));
    }
}
