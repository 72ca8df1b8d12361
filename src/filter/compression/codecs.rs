//! Bodies through codecs, counted: what the filters share on one worker.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, HeaderValue};
use http_body_util::BodyExt;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::meter::{End, Outcome};
use super::stats::{Counts, Direction, Operation, Tally};
use super::{Flush, decoded, encoded};
use crate::coding::pace::Pace;
use crate::coding::{Coding, Decoding, Encoding, Limits, Pool, whole};
use crate::exchange::Body;
use crate::exchange::deadline::Deadlines;
use crate::filter::WorkerContext;
use crate::filter::head;
use crate::filter::registry::FilterContext;

/// A body in more codings than these is left alone: each costs memory, and no honest one has as many.
const MOST_CODINGS: usize = 3;

/// The codecs of one filter on one worker.
pub(super) struct Codecs {
    pool: Pool,
    pub(super) deadlines: Deadlines,
    pub(super) counts: Counts,
}

/// What else counts a body, once its end is known.
pub(super) type AlsoCount = Option<Box<dyn FnOnce(&Outcome) + Send>>;

impl Codecs {
    pub(super) fn new(cx: &WorkerContext, place: &FilterContext) -> Self {
        Self {
            pool: Pool::new(&cx.slots),
            deadlines: cx.deadlines.clone(),
            counts: Counts::new(&cx.telemetry, &place.stat_prefix),
        }
    }

    /// Encodes a body as it passes. `headers` are those of the message.
    pub(super) fn encode(
        &self,
        body: &mut Body,
        encoding: &Arc<Encoding>,
        headers: &HeaderMap,
        (direction, also): (Direction, AlsoCount),
    ) {
        let flush = match head::is_event_stream(headers) {
            true => Flush::AtOnce,
            false => Flush::Soon(self.deadlines.clone()),
        };
        let stats = self.counts.of(Operation::Encode, direction, encoding.coding());
        let tally = Tally::begin(stats, Operation::Encode);
        let plain = std::mem::take(body);
        *body = encoded(plain, encoding, &self.pool, flush, count(tally, also));
    }

    /// Encodes all of a body, if that makes it smaller.
    pub(super) async fn encode_whole(
        &self,
        plain: &Bytes,
        encoding: &Arc<Encoding>,
        direction: Direction,
    ) -> Option<Bytes> {
        let (made, time) = self.made_of(plain, encoding).await?;
        if made.len() >= plain.len() {
            return None;
        }
        let stats = self.counts.of(Operation::Encode, direction, encoding.coding());
        Tally::begin(stats, Operation::Encode).end(&Outcome {
            input: plain.len() as u64,
            output: made.len() as u64,
            time,
            end: End::Complete,
        });
        Some(made)
    }

    /// What comes of all of a body, and how long it took.
    async fn made_of(&self, plain: &Bytes, encoding: &Arc<Encoding>) -> Option<(Bytes, Duration)> {
        let Pace { slice, inline } = Pace::of(encoding, Some(plain.len() as u64));
        if plain.len() <= slice.min(inline) {
            let begun = Instant::now();
            let made = whole(plain, encoding, &self.pool).ok()?;
            return Some((made, begun.elapsed()));
        }
        // More than that is made in steps that let others have their turn.
        let took = Arc::new(OnceLock::new());
        let on_end = {
            let took = Arc::clone(&took);
            move |outcome: Outcome| {
                // A body ends once.
                let _ = took.set(outcome.time);
            }
        };
        let body = encoded(plain.clone().into(), encoding, &self.pool, Flush::AtOnce, on_end);
        let made = body.collect().await.ok()?.to_bytes();
        Some((made, took.get().copied().unwrap_or_default()))
    }

    /// Decodes a body of this coding as it passes.
    pub(super) fn decode(
        &self,
        body: &mut Body,
        decoding: Decoding,
        limits: Limits,
        (direction, also): (Direction, AlsoCount),
    ) {
        let stats = self.counts.of(Operation::Decode, direction, decoding.coding());
        let tally = Tally::begin(stats, Operation::Decode);
        let coded = std::mem::take(body);
        *body = decoded(coded, decoding, limits, &self.pool, count(tally, also));
    }

    /// Decodes a body from all of its codings, if all of them are known.
    pub(super) fn decode_all(
        &self,
        headers: &mut HeaderMap,
        body: &mut Body,
        limits: Limits,
        direction: Direction,
    ) {
        let Some(codings) = codings(headers) else { return };
        for coding in codings.iter().rev() {
            self.decode(body, Decoding::from(*coding), limits, (direction, None));
        }
        take_codings_off(headers);
    }
}

/// Counts a body at its end.
fn count(tally: Tally, also: AlsoCount) -> impl FnOnce(Outcome) + Send + Unpin + 'static {
    move |outcome| {
        tally.end(&outcome);
        if let Some(also) = also {
            also(&outcome);
        }
    }
}

/// The codings of a body in the order in which they were done; none if there is none, or one that is not
/// known.
pub(super) fn codings(headers: &HeaderMap) -> Option<SmallVec<[Coding; MOST_CODINGS]>> {
    if !headers.contains_key(CONTENT_ENCODING) {
        return None;
    }
    let mut codings = SmallVec::new();
    for item in head::items(headers, &CONTENT_ENCODING) {
        if item.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        if codings.len() == MOST_CODINGS {
            return None;
        }
        codings.push(Coding::parse(std::str::from_utf8(item).ok()?)?);
    }
    (!codings.is_empty()).then_some(codings)
}

/// Takes away what is said of a body's codings and its bytes.
pub(super) fn take_codings_off(headers: &mut HeaderMap) {
    headers.remove(CONTENT_ENCODING);
    head::forget_bytes(headers);
}

/// Takes away what is said of a body's last coding and its bytes.
pub(super) fn take_last_coding_off(headers: &mut HeaderMap) {
    let rest = {
        let items: SmallVec<[&[u8]; 4]> = head::items(headers, &CONTENT_ENCODING).collect();
        items.split_last().map(|(_, rest)| rest.join(&b", "[..])).unwrap_or_default()
    };
    take_codings_off(headers);
    if !rest.is_empty()
        && let Ok(rest) = HeaderValue::from_bytes(&rest)
    {
        headers.insert(CONTENT_ENCODING, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(encoding: &'static str) -> HeaderMap {
        [(CONTENT_ENCODING, HeaderValue::from_static(encoding))].into_iter().collect()
    }

    #[test]
    fn codings_are_known_all_or_none() {
        use Coding::{Brotli, Gzip, Zstd};
        for (text, expected) in [
            ("gzip", Some(&[Gzip][..])),
            ("x-gzip , BR", Some(&[Gzip, Brotli])),
            ("identity, zstd", Some(&[Zstd])),
            ("gzip, br, zstd", Some(&[Gzip, Brotli, Zstd])),
            ("gzip, gzip, gzip, gzip", None),
            ("gzip, foo", None),
            ("identity", None),
            ("", None),
        ] {
            assert_eq!(codings(&headers(text)).as_deref(), expected, "{text}");
        }
        assert_eq!(codings(&HeaderMap::new()), None);
    }

    #[test]
    fn the_last_coding_is_taken_off_first() {
        let mut headers = headers("foo , br,gzip");
        for rest in [Some("foo, br"), Some("foo"), None] {
            take_last_coding_off(&mut headers);
            assert_eq!(headers.get(CONTENT_ENCODING).map(|v| v.to_str().unwrap()), rest);
        }
    }
}
