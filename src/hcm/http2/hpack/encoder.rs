//! Writes header blocks. What repeats is sent as an index into the dynamic table; strings are sent as
//! they are, which costs a client a few bytes and us nothing.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use http::header::{
    AGE, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, COOKIE, ETAG, EXPIRES, LAST_MODIFIED,
    LOCATION, PROXY_AUTHENTICATE, SET_COOKIE, WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, StatusCode};

use super::fields::{STATIC_ENTRIES, static_index};
use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD};

/// The table holds what responses of one origin have in common. An idle connection keeps it.
const LARGEST_TABLE: usize = 1024;

/// Values longer than this are not worth the entries they would evict.
const LONGEST_ENTRY: usize = 256;

/// Places where entries are looked for; more than there are entries.
const PLACES: usize = 64;

/// The writing half of a connection's header compression.
#[derive(Debug)]
pub(in crate::hcm::http2) struct Encoder {
    /// Newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    /// Entries ever inserted.
    inserted: u32,
    /// Which entry was last inserted at a place, counted from 1: by name and value, and by name.
    fields: [u32; PLACES],
    names: [u32; PLACES],
    /// Smallest and last sizes that the peer must be told.
    resized: Option<(usize, usize)>,
}

#[derive(Debug)]
struct Entry {
    name: HeaderName,
    value: HeaderValue,
}

impl Entry {
    fn size(&self) -> usize {
        self.name.as_str().len() + self.value.len() + ENTRY_OVERHEAD
    }
}

impl Encoder {
    pub(in crate::hcm::http2) fn new() -> Self {
        let mut encoder = Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: DEFAULT_TABLE_SIZE as usize,
            inserted: 0,
            fields: [0; PLACES],
            names: [0; PLACES],
            resized: None,
        };
        encoder.set_limit(DEFAULT_TABLE_SIZE);
        encoder
    }

    /// The largest table that the peer takes.
    pub(in crate::hcm::http2) fn set_limit(&mut self, limit: u32) {
        let size = (limit as usize).min(LARGEST_TABLE);
        if size != self.max_size {
            let smallest = self.resized.map_or(size, |(smallest, _)| smallest.min(size));
            self.resized = Some((smallest, size));
            self.max_size = size;
            self.evict(0);
        }
    }

    /// Begins a block, of a response if it has a status.
    pub(in crate::hcm::http2) fn begin(&mut self, status: Option<StatusCode>, block: &mut Vec<u8>) {
        if let Some((smallest, last)) = self.resized.take() {
            if smallest < last {
                integer(smallest, 5, 0x20, block);
            }
            integer(last, 5, 0x20, block);
        }
        let Some(status) = status else { return };
        match status.as_u16() {
            200 => block.push(0x88),
            204 => block.push(0x89),
            206 => block.push(0x8a),
            304 => block.push(0x8b),
            400 => block.push(0x8c),
            404 => block.push(0x8d),
            500 => block.push(0x8e),
            _ => {
                // A literal with the name of entry 8.
                block.push(0x08);
                string(status.as_str().as_bytes(), block);
            }
        }
    }

    /// Adds a field to a block.
    pub(in crate::hcm::http2) fn field(
        &mut self,
        name: &HeaderName,
        value: &HeaderValue,
        block: &mut Vec<u8>,
    ) {
        let places = places(name, value);
        for place in [places.field, places.field ^ 1] {
            if let Some((index, entry)) = self.entry(self.fields[place])
                && entry.name == *name
                && entry.value == *value
            {
                return integer(index, 7, 0x80, block);
            }
        }
        let is_secret = value.is_sensitive() || *name == AUTHORIZATION || *name == SET_COOKIE;
        let is_kept = !is_secret && !varies(name) && value.len() <= LONGEST_ENTRY;
        let (bits, flags) = match (is_kept, is_secret) {
            (true, _) => (6, 0x40),
            (false, true) => (4, 0x10),
            (false, false) => (4, 0x00),
        };
        let known = self.entry(self.names[places.name]).filter(|(_, entry)| entry.name == *name);
        match known.map(|(index, _)| index).or_else(|| static_index(name)) {
            Some(index) => integer(index, bits, flags, block),
            None => {
                block.push(flags);
                string(name.as_str().as_bytes(), block);
            }
        }
        string(value.as_bytes(), block);
        if is_kept {
            self.insert(places, Entry { name: name.clone(), value: value.clone() });
        }
    }

    /// The entry that was inserted so manyth, if it is still there, and its index.
    fn entry(&self, number: u32) -> Option<(usize, &Entry)> {
        let age = self.inserted.wrapping_sub(number) as usize;
        Some((STATIC_ENTRIES + 1 + age, self.entries.get(age)?))
    }

    fn insert(&mut self, places: Places, entry: Entry) {
        let size = entry.size();
        self.evict(size);
        if size <= self.max_size {
            self.size += size;
            self.entries.push_front(entry);
            self.inserted = self.inserted.wrapping_add(1);
            self.fields[self.older(places.field)] = self.inserted;
            self.names[places.name] = self.inserted;
        }
    }

    /// A place or the one beside it, whichever has the older entry.
    fn older(&self, place: usize) -> usize {
        let age = |place: &usize| self.inserted.wrapping_sub(self.fields[*place]);
        [place, place ^ 1].into_iter().max_by_key(age).unwrap_or(place)
    }

    fn evict(&mut self, room: usize) {
        while self.size + room > self.max_size {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= oldest.size();
        }
    }
}

/// Where a field is looked for, there and beside it, and where its name is. When several share a place, one
/// of them is not found, which costs bytes only.
#[derive(Debug, Clone, Copy)]
struct Places {
    field: usize,
    name: usize,
}

fn places(name: &HeaderName, value: &HeaderValue) -> Places {
    let place = |hash: u64| usize::try_from(hash % PLACES as u64).unwrap_or(0);
    let mut hasher = FixedState::default().build_hasher();
    hasher.write(name.as_str().as_bytes());
    let name = place(hasher.finish());
    hasher.write(value.as_bytes());
    Places { field: place(hasher.finish()), name }
}

/// Whether a header seldom has the same value twice.
fn varies(name: &HeaderName) -> bool {
    const VARYING: [HeaderName; 11] = [
        AGE,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        COOKIE,
        ETAG,
        EXPIRES,
        LAST_MODIFIED,
        LOCATION,
        PROXY_AUTHENTICATE,
        WWW_AUTHENTICATE,
        crate::exchange::headers::X_REQUEST_ID,
    ];
    VARYING.contains(name)
}

/// An integer whose first byte has `bits` bits of it beside `flags`.
fn integer(value: usize, bits: u32, flags: u8, block: &mut Vec<u8>) {
    let most = (1usize << bits) - 1;
    let low = |value: usize| value.to_le_bytes()[0];
    if value < most {
        return block.push(flags | low(value));
    }
    block.push(flags | low(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        block.push(low(rest) | 0x80);
        rest >>= 7;
    }
    block.push(low(rest));
}

fn string(text: &[u8], block: &mut Vec<u8>) {
    integer(text.len(), 7, 0, block);
    block.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use http::header::{CONTENT_TYPE, SERVER};
    use proptest::prelude::*;

    use super::super::{Decoder, Field, Name, Value};
    use super::*;

    fn round(
        encoder: &mut Encoder,
        decoder: &mut Decoder,
        fields: &[(HeaderName, HeaderValue)],
    ) -> usize {
        let mut block = Vec::new();
        encoder.begin(Some(StatusCode::IM_A_TEAPOT), &mut block);
        fields.iter().for_each(|(name, value)| encoder.field(name, value, &mut block));
        let mut read = Vec::new();
        decoder.decode(&block, |field| read.push(field)).unwrap();
        let status = read.remove(0);
        assert_eq!(status.value, Value::Sound(HeaderValue::from_static("418")));
        let expected: Vec<Field> = fields
            .iter()
            .map(|(n, v)| Field { name: Name::Header(n.clone()), value: Value::Sound(v.clone()) })
            .collect();
        assert_eq!(read, expected);
        block.len()
    }

    #[test]
    fn what_repeats_costs_a_byte() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let fields = [
            (SERVER, HeaderValue::from_static("nuncio")),
            (CONTENT_TYPE, HeaderValue::from_static("text/html")),
            (HeaderName::from_static("x-own"), HeaderValue::from_static("always")),
        ];
        round(&mut encoder, &mut decoder, &fields);
        assert_eq!(round(&mut encoder, &mut decoder, &fields), 5 + fields.len());
    }

    #[test]
    fn fields_of_a_time_do_not_push_those_away_that_stay() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
        let lasting = ["server", "content-type", "cache-control", "vary", "x-frame-options", "via"];
        let mut bytes = 0;
        for second in 0..200 {
            let date = format!("Sun, 06 Nov 1994 08:49:{second} GMT");
            let mut fields = vec![(http::header::DATE, HeaderValue::try_from(date).unwrap())];
            fields
                .extend(lasting.map(|name| (name.parse().unwrap(), HeaderValue::from_static("a"))));
            for _ in 0..100 {
                bytes += round(&mut encoder, &mut decoder, &fields);
            }
        }
        let each = bytes as f64 / 20_000.0;
        let least = 5.0 + 7.0;
        assert!(each < least + 2.0, "{each} bytes a response");
    }

    #[test]
    fn secrets_are_never_in_a_table() {
        let mut encoder = Encoder::new();
        let mut secret = HeaderValue::from_static("hush");
        secret.set_sensitive(true);
        let mut block = Vec::new();
        for _ in 0..2 {
            block.clear();
            encoder.begin(None, &mut block);
            encoder.field(&HeaderName::from_static("x-key"), &secret, &mut block);
            encoder.field(&SET_COOKIE, &HeaderValue::from_static("a=b"), &mut block);
        }
        assert_eq!(block, b"\x10\x05x-key\x04hush\x1f\x28\x03a=b");
        assert!(encoder.entries.is_empty());
    }

    #[test]
    fn a_peer_without_a_table_gets_none() {
        let mut encoder = Encoder::new();
        encoder.set_limit(0);
        encoder.set_limit(64);
        let mut block = Vec::new();
        encoder.begin(None, &mut block);
        assert_eq!(block, [0x20, 0x3f, 64 - 31]);
        encoder.field(&SERVER, &HeaderValue::from_static("nuncio"), &mut block);
        encoder.field(&CONTENT_TYPE, &HeaderValue::from_static("text/html"), &mut block);
        assert_eq!(encoder.entries.len(), 1);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            blocks in prop::collection::vec(
                prop::collection::vec((0usize..12, 0usize..40, 0usize..400), 0..12),
                1..20,
            ),
            limits in prop::collection::vec(0u32..5000, 20),
        ) {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
            for (block, limit) in blocks.into_iter().zip(limits) {
                let limit = limit.min(DEFAULT_TABLE_SIZE);
                if limit % 3 == 0 {
                    encoder.set_limit(limit);
                }
                let fields: Vec<_> = block
                    .into_iter()
                    .map(|(name, value, length)| {
                        let name = format!("x-{name}");
                        let value = value.to_string().repeat(length / 8);
                        (name.parse().unwrap(), value.parse().unwrap())
                    })
                    .collect();
                round(&mut encoder, &mut decoder, &fields);
            }
        }
    }
}
