//! A stored response.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, StatusCode};
use tokio::time::Instant;

use super::copies::Copied;
use super::policy::{Freshness, time};
use super::vary::Variant;

/// What an entry takes beside its bytes: the table, the maps, the counters.
const OVERHEAD: u64 = 768;
const HEADER_OVERHEAD: u64 = 64;
/// Between two attempts to get a newer response behind requests' backs.
const BEHIND_EVERY_MS: u64 = 1_000;
/// What a tag takes in the index.
const TAG_OVERHEAD: u64 = 96;

/// Bodies are kept in pieces of this many bytes: few enough pieces to write them quickly, and all of one size
/// but the last, so that what one body leaves fits the next. Nine of them fill a page of the allocator, which
/// is half a MiB; larger ones come from pages of 4 MiB, and much would be lost around those.
pub(super) const PIECE: usize = 56 << 10;

/// Which responses belong together, as their origin says; for both, a list.
const TAG_HEADERS: [(HeaderName, u8); 2] = [
    (HeaderName::from_static("surrogate-key"), b' '),
    (HeaderName::from_static("cache-tag"), b','),
];

/// A body, in pieces of their own memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    pieces: Vec<Bytes>,
    length: u64,
}

impl Stored {
    /// Copies what came into memory of its own, so that nothing else is kept with it.
    pub fn copy_of<'a>(came: impl Iterator<Item = &'a Bytes> + Clone) -> Self {
        let length: usize = came.clone().map(Bytes::len).sum();
        let mut pieces = Vec::with_capacity(length.div_ceil(PIECE));
        let mut left = length;
        let mut piece = BytesMut::with_capacity(left.min(PIECE));
        for bytes in came {
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                let (now, later) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
                piece.extend_from_slice(now);
                left -= now.len();
                bytes = later;
                if piece.len() == PIECE || left == 0 {
                    let next = BytesMut::with_capacity(left.min(PIECE));
                    pieces.push(std::mem::replace(&mut piece, next).freeze());
                }
            }
        }
        Self { pieces, length: length as u64 }
    }

    /// Takes pieces as they are.
    pub fn of(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum();
        Self { pieces, length }
    }

    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Its pieces, none of them empty.
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// The bytes from `start` on, `length` of them, without a copy.
    pub fn slice(&self, start: u64, length: u64) -> impl Iterator<Item = Bytes> {
        let (mut skip, mut left) = (start, length);
        self.pieces.iter().filter_map(move |piece| {
            let size = piece.len() as u64;
            let from = skip.min(size);
            let to = size.min(from.saturating_add(left));
            skip -= from;
            left -= to - from;
            let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
            (to > from).then(|| piece.slice(at(from)..at(to)))
        })
    }
}

/// What may be made of a response beside what came. A response with one more form takes the place of the one
/// without, so one is made at a time.
#[derive(Debug, Default)]
pub struct Others {
    is_being_made: AtomicBool,
    no_gzip: AtomicBool,
    no_copy: AtomicBool,
}

/// Another form of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other {
    /// In gzip.
    Gzip,
    /// In a file.
    Copy,
}

impl Others {
    fn refused(&self, other: Other) -> &AtomicBool {
        match other {
            Other::Gzip => &self.no_gzip,
            Other::Copy => &self.no_copy,
        }
    }

    /// Whether it may be made, as far as is known.
    pub fn may_make(&self, other: Other) -> bool {
        !self.is_being_made.load(Ordering::Relaxed) && !self.refused(other).load(Ordering::Relaxed)
    }

    /// Whether the caller is the one to make it.
    pub fn make(&self, other: Other) -> bool {
        self.may_make(other) && !self.is_being_made.swap(true, Ordering::Relaxed)
    }

    /// It cannot be made, or is not worth it.
    pub fn refuse(&self, other: Other) {
        self.refused(other).store(true, Ordering::Relaxed);
        self.is_being_made.store(false, Ordering::Relaxed);
    }

    fn like(&self) -> Self {
        let same = |flag: &AtomicBool| AtomicBool::new(flag.load(Ordering::Relaxed));
        let (no_gzip, no_copy) = (same(&self.no_gzip), same(&self.no_copy));
        Self { is_being_made: AtomicBool::new(false), no_gzip, no_copy }
    }
}

/// A stored response. What is said in it does not change; a validation makes another.
#[derive(Debug)]
pub struct Entry {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Stored,
    /// Its body in gzip, if that was asked for.
    pub gzip: Option<Stored>,
    /// Its body in a file as well.
    pub copy: Option<Copied>,
    /// What of the request it depends on.
    pub variant: Variant,
    /// How long it may be used.
    pub freshness: Freshness,
    /// When it came, or was validated last.
    pub stored: Instant,
    /// How often it was the answer.
    pub hits: AtomicU32,
    /// Other forms of it, as far as they are not there yet.
    pub others: Others,
    /// The store's number for when its fill began. What was purged since is not it.
    pub(super) begun: u64,
    /// The last purge that it is known to have outlived.
    pub(super) outlived: AtomicU64,
    /// It was marked stale.
    pub(super) marked: AtomicBool,
    /// When the origin was last asked for a newer one behind a request's back: milliseconds after it was
    /// stored, and one more; 0 before the first time.
    asked_behind: AtomicU64,
}

impl Entry {
    /// A response that comes now, without its body.
    pub fn new(
        (status, headers): (StatusCode, HeaderMap),
        variant: Variant,
        freshness: Freshness,
    ) -> Self {
        Self {
            status,
            headers,
            body: Stored::default(),
            gzip: None,
            copy: None,
            variant,
            freshness,
            stored: Instant::now(),
            hits: AtomicU32::new(0),
            others: Others::default(),
            begun: 0,
            outlived: AtomicU64::new(0),
            marked: AtomicBool::new(false),
            asked_behind: AtomicU64::new(0),
        }
    }

    /// The same with another head, or other forms of the body.
    pub fn like(&self) -> Self {
        Self {
            status: self.status,
            headers: self.headers.clone(),
            body: self.body.clone(),
            gzip: self.gzip.clone(),
            copy: self.copy.clone(),
            variant: self.variant.clone(),
            freshness: self.freshness.clone(),
            stored: self.stored,
            hits: AtomicU32::new(self.hits.load(Ordering::Relaxed)),
            others: self.others.like(),
            begun: self.begun,
            outlived: AtomicU64::new(self.outlived.load(Ordering::Relaxed)),
            marked: AtomicBool::new(self.is_marked()),
            asked_behind: AtomicU64::new(0),
        }
    }

    /// It was validated: a purge that marked it counts no more, nor how often it was the answer.
    pub fn marked_fresh(&mut self) {
        self.marked = AtomicBool::new(false);
        self.hits = AtomicU32::new(0);
    }

    /// How old it is (RFC 9111 section 4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.freshness.initial_age + now.saturating_duration_since(self.stored)
    }

    /// Whether it was marked stale by a soft purge.
    pub fn is_marked(&self) -> bool {
        self.marked.load(Ordering::Relaxed)
    }

    /// Whether it is time to ask for a newer one behind a request's back; whoever is told so does it. An origin
    /// that fails is not asked again and again.
    pub fn is_to_be_asked_behind(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.stored).as_millis();
        let at = u64::try_from(since).unwrap_or(u64::MAX - 1) + 1;
        let last = self.asked_behind.load(Ordering::Relaxed);
        let is_time = last == 0 || at - last.min(at) >= BEHIND_EVERY_MS;
        let (yes, no) = (Ordering::Relaxed, Ordering::Relaxed);
        is_time && self.asked_behind.compare_exchange(last, at, yes, no).is_ok()
    }

    /// It is known not to hold any more.
    pub fn mark(&self) {
        self.marked.store(true, Ordering::Relaxed);
    }

    /// When it was made, as far as it says.
    pub(super) fn date(&self) -> Option<SystemTime> {
        time(self.headers.get(http::header::DATE))
    }

    /// The tags that its origin gave it.
    pub fn tags(&self) -> impl Iterator<Item = &[u8]> {
        tags(&self.headers)
    }

    /// Whether the origin can be asked if it still holds.
    pub fn can_be_validated(&self) -> bool {
        self.headers.contains_key(http::header::ETAG)
            || self.headers.contains_key(http::header::LAST_MODIFIED)
    }

    /// The memory that it takes, in bytes.
    pub(super) fn weight(&self) -> u64 {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().len() + value.len()) as u64 + HEADER_OVERHEAD);
        let body = |stored: &Stored| stored.pieces.iter().map(allocated).sum::<u64>();
        body(&self.body)
            + self.gzip.as_ref().map_or(0, body)
            + self.copy.as_ref().map_or(0, Copied::bytes)
            + headers.sum::<u64>()
            + self.variant.len() as u64
            + self.tags().count() as u64 * TAG_OVERHEAD
            + OVERHEAD
    }
}

/// The tags in a response's headers.
pub fn tags(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    TAG_HEADERS.into_iter().flat_map(move |(name, separator)| {
        let lists = headers.get_all(name).iter();
        let parts = lists.flat_map(move |list| list.as_bytes().split(move |b| *b == separator));
        parts.map(<[u8]>::trim_ascii).filter(|tag| !tag.is_empty())
    })
}

/// What an allocator takes for so many bytes: there are four sizes from one power of two to the next.
fn allocated(piece: &Bytes) -> u64 {
    let size = piece.len().max(64);
    let step = (size.next_power_of_two() / 8).max(16);
    size.next_multiple_of(step) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_cut_without_a_copy() {
        let came = [vec![b'a'; 100], vec![b'b'; PIECE], vec![], vec![b'c'; PIECE]].map(Bytes::from);
        let stored = Stored::copy_of(came.iter());
        assert_eq!(stored.length(), (100 + 2 * PIECE) as u64);
        let sizes: Vec<usize> = stored.pieces().iter().map(Bytes::len).collect();
        assert_eq!(sizes, [PIECE, PIECE, 100]);
        let whole = came.concat();
        for (start, length) in [(0, 1), (90, 20), (PIECE - 1, 2), (0, whole.len()), (5, PIECE * 2)]
        {
            let slices: Vec<Bytes> = stored.slice(start as u64, length as u64).collect();
            assert_eq!(slices.concat(), whole[start..start + length], "{start} {length}");
            let first = stored.pieces()[start / PIECE].as_ptr().wrapping_add(start % PIECE);
            assert_eq!(slices[0].as_ptr(), first);
        }
        assert_eq!(Stored::copy_of([].iter()), Stored::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_newer_one_is_asked_for_once_a_second() {
        let head = (StatusCode::OK, HeaderMap::new());
        let entry = Entry::new(head, Variant::default(), Freshness::default());
        let asks = || entry.is_to_be_asked_behind(Instant::now());
        assert!(asks() && !asks());
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(!asks());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(asks() && !asks());
    }

    #[test]
    fn tags_are_lists_of_two_kinds() {
        let headers: HeaderMap = [("surrogate-key", "a b  c"), ("cache-tag", "d e, f,")]
            .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
            .into_iter()
            .collect();
        let found: Vec<&[u8]> = tags(&headers).collect();
        assert_eq!(found, [&b"a"[..], b"b", b"c", b"d e", b"f"]);
    }
}
