//! Whose turn it is within one resource type: responses are taken in order, one at a time, and
//! each is answered exactly once before the next is handed on.
//!
//! Waiting responses are bounded: when a type holds too many, its stream is not read until control
//! has decided about one, and the transport pushes back on the server.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use super::types::{Rejection, Verdict};
use crate::proto::google::rpc::Status;

/// Responses of one type that may wait while another is being decided about.
const MOST_WAITING: usize = 16;
/// Their size together, in bytes of resources, above which no more are read.
const MOST_WAITING_BYTES: usize = 64 << 20;
/// Length of an `error_detail` message, in bytes.
const MOST_ERROR_BYTES: usize = 16 << 10;
/// `google.rpc.Code.INVALID_ARGUMENT`
const INVALID_ARGUMENT: i32 = 3;

/// The responses of one type, from arrival to answer.
#[derive(Debug)]
pub(super) struct Turn<R> {
    waiting: VecDeque<(usize, R)>,
    waiting_bytes: usize,
    outstanding: Option<Decision>,
    pub(super) answer: Option<Answer>,
    last_seq: u64,
}

/// A decision that control owes.
#[derive(Debug)]
struct Decision {
    seq: u64,
    /// The stream has ended: the decision counts, but nobody waits for an answer.
    stale: bool,
    about: Outstanding,
}

/// A response that control is deciding about.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    pub(super) nonce: String,
    pub(super) version: String,
    pub(super) named: Vec<Named>,
    /// Names that are there without being sent again.
    pub(super) kept: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) full: bool,
    pub(super) malformed: Vec<Rejection>,
}

/// A resource of an outstanding response, as far as the protocol must remember it.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) ttl: Option<Duration>,
}

/// An ACK, or with an error a NACK, that is to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) nonce: String,
    pub(super) error: Option<Status>,
}

/// What became of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Accepted,
    /// With the text of the NACK.
    Rejected(String),
}

impl<R> Default for Turn<R> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            outstanding: None,
            answer: None,
            last_seq: 0,
        }
    }
}

impl<R> Turn<R> {
    pub(super) fn arrive(&mut self, response: R, bytes: usize) {
        self.waiting_bytes += bytes;
        self.waiting.push_back((bytes, response));
    }

    /// Whether no further response should be read.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING || self.waiting_bytes >= MOST_WAITING_BYTES
    }

    /// Whether [`Self::take`] has a response to give.
    pub(super) fn is_due(&self) -> bool {
        self.outstanding.is_none() && self.answer.is_none() && !self.waiting.is_empty()
    }

    /// The next response, once the one before has been decided about and answered.
    pub(super) fn take(&mut self) -> Option<R> {
        if !self.is_due() {
            return None;
        }
        let (bytes, response) = self.waiting.pop_front()?;
        self.waiting_bytes -= bytes;
        Some(response)
    }

    /// Whether no response is anywhere between arrival and decision.
    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_none() && self.waiting.is_empty()
    }

    /// Whether control is deciding about a response.
    pub(super) fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Whether control is deciding about a response of a stream that has ended.
    pub(super) fn is_stale(&self) -> bool {
        self.outstanding.as_ref().is_some_and(|o| o.stale)
    }

    /// A number for something handed to control.
    pub(super) fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    /// Notes what was handed to control, and gives its number.
    pub(super) fn hand(&mut self, about: Outstanding) -> u64 {
        let seq = self.next_seq();
        self.outstanding = Some(Decision { seq, stale: false, about });
        seq
    }

    /// The name was given up: what is being decided about it need not be remembered.
    pub(super) fn forget(&mut self, name: &str) {
        if let Some(decision) = &mut self.outstanding {
            decision.about.named.retain(|n| n.name != name);
        }
    }

    /// Ends the turn of the response numbered `seq`; none when it is not outstanding.
    pub(super) fn decide(&mut self, seq: u64, verdict: &Verdict) -> Option<(Outstanding, Outcome)> {
        let Decision { stale, about: mut outstanding, seq: _ } =
            self.outstanding.take_if(|decision| decision.seq == seq)?;
        let error = detail(&outstanding.malformed, &verdict.rejected);
        let outcome = match &error {
            None => Outcome::Accepted,
            Some(status) => Outcome::Rejected(status.message.clone()),
        };
        if !verdict.rejected.is_empty() {
            let rejected: HashSet<_> = verdict.rejected.iter().map(|r| r.name.as_str()).collect();
            outstanding.named.retain(|n| !rejected.contains(n.name.as_str()));
        }
        if !stale {
            let nonce = outstanding.nonce.clone();
            self.answer = Some(Answer { nonce, error });
        }
        Some((outstanding, outcome))
    }

    /// The stream ended. Waiting responses will be sent again, since nothing of them was recorded.
    pub(super) fn close(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.answer = None;
        if let Some(decision) = &mut self.outstanding {
            decision.stale = true;
        }
    }
}

/// The `error_detail` of a NACK: one line for each resource, cut at a line's end.
fn detail(malformed: &[Rejection], rejected: &[Rejection]) -> Option<Status> {
    let mut lines = malformed.iter().chain(rejected);
    let mut message = String::new();
    let mut left = malformed.len() + rejected.len();
    if left == 0 {
        return None;
    }
    for Rejection { name, error } in lines.by_ref() {
        // Reasons that control gives begin with the kind and name of the resource.
        let named = name.is_empty() || error.contains(&format!("{name:?}"));
        let line = if named { error.clone() } else { format!("{name}: {error}") };
        if !message.is_empty() && message.len() + 1 + line.len() > MOST_ERROR_BYTES {
            break;
        }
        if !message.is_empty() {
            message.push('\n');
        }
        message.push_str(cut(&line, MOST_ERROR_BYTES));
        left -= 1;
    }
    if left > 0 {
        message.push_str(&format!("\nand {left} more"));
    }
    Some(Status { code: INVALID_ARGUMENT, message, details: Vec::new() })
}

fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(name: &str, error: &str) -> Rejection {
        Rejection { name: name.into(), error: error.into() }
    }

    #[test]
    fn the_error_names_each_bad_resource_on_its_own_line() {
        let status =
            detail(&[rejection("", "resources[2]: odd")], &[rejection("a", "port: too big")]);
        let status = status.unwrap();
        assert_eq!(status.code, INVALID_ARGUMENT);
        assert_eq!(status.message, "resources[2]: odd\na: port: too big");
        let status = detail(&[], &[rejection("a", "Cluster \"a\": name: odd")]).unwrap();
        assert_eq!(status.message, "Cluster \"a\": name: odd", "the name is not said twice");
        assert_eq!(detail(&[], &[]), None);
    }

    #[test]
    fn the_error_has_a_length_cap_and_says_what_it_left_out() {
        let long = "é".repeat(500);
        let many: Vec<_> = (0..100).map(|n| rejection(&format!("c{n}"), &long)).collect();
        let message = detail(&[], &many).unwrap().message;
        assert!(message.len() <= MOST_ERROR_BYTES + 32, "{}", message.len());
        let lines = message.lines().count();
        assert!(message.ends_with(&format!("\nand {} more", 100 - (lines - 1))), "{message}");

        let huge = detail(&[], &[rejection("c", &"é".repeat(MOST_ERROR_BYTES))]).unwrap();
        assert!(huge.message.len() <= MOST_ERROR_BYTES);
    }

    #[test]
    fn reading_stops_while_too_much_waits() {
        let mut turn = Turn::default();
        for _ in 0..MOST_WAITING {
            assert!(!turn.is_full());
            turn.arrive((), 1);
        }
        assert!(turn.is_full());
        turn.take();
        assert!(!turn.is_full());
        turn.arrive((), MOST_WAITING_BYTES);
        assert!(turn.is_full());
    }
}
