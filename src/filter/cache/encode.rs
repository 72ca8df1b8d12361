//! Encoded forms of stored responses: made once, when somebody first takes one, and kept with the response.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RANGE};
use http::{HeaderMap, HeaderName, StatusCode};

use super::config::media_range;
use crate::cache::{Entry, Key, MediaRange, Other, Store, Stored};
use crate::coding::Coding;
use crate::coding::accept::{Choice, Weights};
use crate::config::{Errors, OrFault, fields};
use crate::filter::head;
use crate::proto::nuncio::extensions::filters::http::cache::v1::cache as proto;

const DEFAULT_LEVEL: u32 = 6;
const DEFAULT_MIN_SIZE: u64 = 1_024;
const DEFAULT_TYPES: [&str; 7] = [
    "text/*",
    "application/json",
    "application/javascript",
    "application/xml",
    "application/xhtml+xml",
    "application/manifest+json",
    "image/svg+xml",
];

/// Which responses are worth it, and how well they are compressed.
#[derive(Debug, Clone)]
pub(super) struct Encoding {
    level: Compression,
    min_size: u64,
    content_types: Vec<MediaRange>,
}

/// In which form a stored response is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it came; there is no other.
    Only,
    /// As it came, though there could be another.
    Identity,
    /// In gzip.
    Gzip,
}

impl Encoding {
    pub(super) fn compile(message: &proto::Compression) -> Result<Self, Errors> {
        let proto::Compression { level, min_size, content_types } = message;
        let mut errors = Errors::new();
        let level = fields::in_range(level.unwrap_or(DEFAULT_LEVEL), 1..=9).at("level");
        let level = errors.take(level).unwrap_or(DEFAULT_LEVEL);
        let given = errors.each("content_types", content_types, |t| media_range(t));
        errors.finish()?;
        let usual = || DEFAULT_TYPES.iter().filter_map(|t| MediaRange::parse(t).ok()).collect();
        Ok(Self {
            level: Compression::new(level),
            min_size: min_size.unwrap_or(DEFAULT_MIN_SIZE),
            content_types: if content_types.is_empty() { usual() } else { given },
        })
    }

    /// Whether a response whose body has so many bytes may be encoded and is worth it.
    pub(super) fn applies(
        &self,
        (status, headers): (StatusCode, &HeaderMap),
        no_transform: bool,
        length: u64,
    ) -> bool {
        status == StatusCode::OK
            && !no_transform
            && length >= self.min_size
            && !headers.contains_key(CONTENT_ENCODING)
            && self.content_types.iter().any(|range| range.holds(headers.get(CONTENT_TYPE)))
    }

    /// The form of a stored response for a request, which is made if nobody makes it now. Only who asks
    /// first waits for that; the others get what is there.
    pub(super) async fn form(
        &self,
        store: &Arc<Store>,
        key: &Key,
        entry: Arc<Entry>,
        asked: &HeaderMap,
    ) -> (Arc<Entry>, Form) {
        let head = (entry.status, &entry.headers);
        if !self.applies(head, entry.freshness.no_transform, entry.body.length()) {
            return (entry, Form::Only);
        }
        // A part is a part of the plain form.
        if !takes_gzip(asked) || asked.contains_key(RANGE) {
            return (entry, Form::Identity);
        }
        if entry.gzip.is_some() {
            return (entry, Form::Gzip);
        }
        // More at a time than there are processors would only take longer.
        let Ok(permit) = Arc::clone(&store.encoders).try_acquire_owned() else {
            return (entry, Form::Identity);
        };
        if !entry.others.make(Other::Gzip) {
            return (entry, Form::Identity);
        }
        let (store, key, plain) = (Arc::clone(store), key.clone(), Arc::clone(&entry));
        let level = self.level;
        // It is kept even if who asked first does not wait for it.
        let made = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            encode(&store, &key, &plain, level)
        });
        match made.await {
            Ok(Some(encoded)) => (encoded, Form::Gzip),
            // Not worth it, now and later.
            _ => (entry, Form::Identity),
        }
    }
}

fn encode(store: &Store, key: &Key, plain: &Arc<Entry>, level: Compression) -> Option<Arc<Entry>> {
    let made = gzip(&plain.body, level).ok();
    let Some(made) = made.filter(|made| made.length() < plain.body.length()) else {
        plain.others.refuse(Other::Gzip);
        return None;
    };
    let mut encoded = plain.like();
    encoded.gzip = Some(made);
    store.stats.encoded.inc();
    Some(store.replace(key, plain, encoded))
}

fn gzip(body: &Stored, level: Compression) -> std::io::Result<Stored> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    for piece in body.pieces() {
        encoder.write_all(piece)?;
    }
    let whole = Bytes::from(encoder.finish()?);
    Ok(Stored::copy_of(std::iter::once(&whole)))
}

/// Gives a head what goes with a form.
pub(super) fn dress(headers: &mut HeaderMap, form: Form) {
    if form == Form::Only {
        return;
    }
    head::vary_by_coding(headers);
    if form == Form::Gzip {
        head::forget_bytes(headers);
        head::say_encoded(headers, Coding::Gzip);
        head::weaken_tag(headers);
    }
}

/// Fields that hold for the very bytes of a message (RFC 9530 section 2).
pub(super) const OF_THE_BYTES: [HeaderName; 2] =
    [HeaderName::from_static("content-md5"), HeaderName::from_static("content-digest")];

/// Whether a request takes gzip, and does not like the plain form better.
fn takes_gzip(asked: &HeaderMap) -> bool {
    Weights::of(asked).choose(&[Coding::Gzip]) == Choice::Coded(Coding::Gzip)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http::HeaderValue;
    use http::header::{ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_LENGTH, ETAG, VARY};

    use super::*;
    use crate::cache::{Bounds, Freshness, Lookup, Variant};

    #[tokio::test]
    async fn a_form_is_made_though_who_asked_first_has_left() {
        let store = Arc::new(Store::new(Bounds { entries: 9, bytes: 10 << 20 }, Arc::default()));
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("text/plain")),
            (ETAG, HeaderValue::from_static("\"1\"")),
        ]);
        let head = (StatusCode::OK, headers);
        let mut entry = Entry::new(head, Variant::default(), Freshness::default());
        entry.body = Stored::copy_of([Bytes::from(vec![b'x'; 1 << 20])].iter());
        let key = Key::new("http", "t", "/");
        let entry = store.insert(key.clone(), entry).unwrap();
        let encoding = Encoding::compile(&proto::Compression::default()).unwrap();
        let asked = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))]);
        let mut form = Box::pin(encoding.form(&store, &key, entry, &asked));
        drop(form.as_mut().now_or_never());
        drop(form);
        while !matches!(store.get(&key, &asked), Lookup::Found(entry) if entry.gzip.is_some()) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_gzip_form_is_dressed_as_one() {
        let mut headers: HeaderMap = [
            ("etag", "\"1\""),
            ("vary", "accept"),
            ("content-length", "9"),
            ("accept-ranges", "bytes"),
        ]
        .map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()))
        .into_iter()
        .collect();
        dress(&mut headers, Form::Identity);
        assert_eq!(headers["etag"], "\"1\"");
        dress(&mut headers, Form::Gzip);
        let lists: Vec<_> = headers.get_all(VARY).iter().collect();
        assert_eq!(lists, ["accept", "accept-encoding"]);
        assert_eq!(
            (&headers["etag"], &headers["content-encoding"]),
            (&"W/\"1\"".parse().unwrap(), &"gzip".parse().unwrap())
        );
        assert!(!headers.contains_key(CONTENT_LENGTH) && !headers.contains_key(ACCEPT_RANGES));
    }
}
