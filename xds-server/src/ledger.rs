//! What was sent of one type on one stream, and how the client took it.

use std::sync::Arc;
use std::time::SystemTime;

/// A refusal by the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nack {
    /// What the client said.
    pub(crate) message: String,
    /// The version it refused.
    pub(crate) version: Arc<str>,
    /// The nonce of the response it refused.
    pub(crate) nonce: Arc<str>,
    /// When the refusal came.
    pub(crate) since: SystemTime,
}

/// How a request relates to the last response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Neither accepts nor refuses anything.
    Subscribed,
    /// Accepts the last response.
    Acked,
    /// Refuses the last response.
    Nacked,
    /// Answers a response that is not the last, or one that was answered already.
    Stale,
}

/// Responses of one type on one stream. At most one waits for its answer.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Nonce of the last response; `None` before the first.
    pub(crate) nonce: Option<Arc<str>>,
    /// The last response has no answer yet.
    pub(crate) outstanding: bool,
    /// Version of the last response.
    pub(crate) sent: Option<Arc<str>>,
    /// Version of the last response that was accepted.
    pub(crate) acked: Option<Arc<str>>,
    /// The last refusal; kept after later responses are accepted.
    pub(crate) nack: Option<Nack>,
}

/// Refusals are kept for as long as the stream lives and shown: a bound keeps them readable.
const LONGEST_MESSAGE_BYTES: usize = 16 * 1024;

impl Ledger {
    /// Enters a response.
    pub(crate) fn send(&mut self, version: Arc<str>, nonce: u64) -> Arc<str> {
        let nonce: Arc<str> = nonce.to_string().into();
        self.sent = Some(version);
        self.nonce = Some(Arc::clone(&nonce));
        self.outstanding = true;
        nonce
    }

    /// Enters the nonce and error of a request.
    pub(crate) fn answer(
        &mut self,
        nonce: &str,
        error: Option<String>,
        now: SystemTime,
    ) -> Outcome {
        let Some(last) = &self.nonce else {
            // Nothing was sent on this stream, so a nonce can only come from another.
            return Outcome::Subscribed;
        };
        if nonce.is_empty() {
            return Outcome::Subscribed;
        }
        if **last != *nonce {
            return Outcome::Stale;
        }
        if !self.outstanding {
            // State of the world puts the last nonce on every request.
            return Outcome::Subscribed;
        }
        self.outstanding = false;
        match error {
            None => {
                self.acked.clone_from(&self.sent);
                Outcome::Acked
            }
            Some(mut message) => {
                truncate(&mut message);
                let version = self.sent.clone().unwrap_or_default();
                let nonce = Arc::clone(last);
                self.nack = Some(Nack { message, version, nonce, since: now });
                Outcome::Nacked
            }
        }
    }
}

fn truncate(message: &mut String) {
    if message.len() > LONGEST_MESSAGE_BYTES {
        let end = (0..=LONGEST_MESSAGE_BYTES).rev().find(|i| message.is_char_boundary(*i));
        message.truncate(end.unwrap_or(0));
        message.push_str(" [cut]");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_response_is_answered_once() {
        let now = SystemTime::UNIX_EPOCH;
        let mut ledger = Ledger::default();
        assert_eq!(ledger.answer("9", None, now), Outcome::Subscribed, "of an earlier stream");
        ledger.send("v1".into(), 1);
        assert_eq!(ledger.answer("", None, now), Outcome::Subscribed);
        assert!(ledger.outstanding);
        assert_eq!(ledger.answer("1", None, now), Outcome::Acked);
        assert_eq!(ledger.answer("1", None, now), Outcome::Subscribed);
        ledger.send("v2".into(), 2);
        assert_eq!(ledger.answer("1", None, now), Outcome::Stale);
        assert_eq!(ledger.answer("2", Some("no".into()), now), Outcome::Nacked);
        assert_eq!(ledger.acked.as_deref(), Some("v1"));
        assert_eq!(ledger.nack.as_ref().map(|n| &*n.version), Some("v2"));
    }

    #[test]
    fn a_long_refusal_is_cut_at_a_character() {
        let mut message = "é".repeat(LONGEST_MESSAGE_BYTES);
        truncate(&mut message);
        assert!(message.len() < LONGEST_MESSAGE_BYTES + 10 && message.ends_with(" [cut]"));
    }
}
