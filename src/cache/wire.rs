//! Stored responses and purges as bytes, for the other proxies of a fleet.
//!
//! Numbers are big-endian; texts and lists have their length before them. What cannot be read, or was
//! written by another version, is nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::entry::{Entry, Stored};
use super::glob::{Glob, UrlPattern};
use super::index::Scope;
use super::policy::Freshness;
use super::vary::Variant;

const VERSION: u8 = 1;

const RESPONSE: u8 = 0;
const VARIES: u8 = 1;

/// What stands under a key.
#[derive(Debug)]
pub enum Record {
    /// A response.
    Response(Box<Entry>),
    /// Responses that depend on these request headers stand under keys of their own, which this is part of.
    Varies(Vec<HeaderName>, u64),
}

/// Writes a response.
pub fn response(entry: &Entry) -> Bytes {
    let head = entry.headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 8).sum::<usize>();
    let length = usize::try_from(entry.body.length()).unwrap_or_default();
    let mut out = BytesMut::with_capacity(128 + head + entry.variant.len() + length);
    out.put_u8(VERSION);
    out.put_u8(RESPONSE);
    out.put_u16(entry.status.as_u16());
    let Freshness {
        lifetime,
        initial_age: _,
        always_validate,
        never_stale,
        stale_while_revalidate,
        stale_if_error,
        no_transform,
    } = &entry.freshness;
    // Since ages go on, what is written is when it was made.
    let made = SystemTime::now().checked_sub(entry.age(Instant::now())).unwrap_or(UNIX_EPOCH);
    out.put_u64(millis(made.duration_since(UNIX_EPOCH).unwrap_or_default()));
    out.put_u64(millis(*lifetime));
    out.put_u64(millis(*stale_while_revalidate));
    out.put_u64(millis(*stale_if_error));
    for flag in [*always_validate, *never_stale, *no_transform] {
        out.put_u8(u8::from(flag));
    }
    put_length(&mut out, entry.headers.len());
    for (name, value) in &entry.headers {
        put(&mut out, name.as_str().as_bytes());
        put(&mut out, value.as_bytes());
    }
    put_length(&mut out, entry.variant.parts().len());
    for (name, value) in entry.variant.parts() {
        put(&mut out, name.as_str().as_bytes());
        out.put_u8(u8::from(value.is_some()));
        put(&mut out, value.as_deref().unwrap_or_default());
    }
    put_length(&mut out, length);
    entry.body.pieces().iter().for_each(|piece| out.extend_from_slice(piece));
    out.freeze()
}

/// Writes what responses under a key depend on.
pub fn varies<'a>(names: impl ExactSizeIterator<Item = &'a HeaderName>, mark: u64) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(VARIES);
    out.put_u64(mark);
    put_length(&mut out, names.len());
    names.for_each(|name| put(&mut out, name.as_str().as_bytes()));
    out.freeze()
}

/// Reads what [`response`] or [`varies`] wrote.
pub fn record(mut bytes: Bytes) -> Option<Record> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let record = match bytes.try_get_u8().ok()? {
        RESPONSE => Record::Response(Box::new(take_response(&mut bytes)?)),
        VARIES => {
            let mark = bytes.try_get_u64().ok()?;
            let count = take_length(&mut bytes)?;
            let names = (0..count).map(|_| HeaderName::from_bytes(&take(&mut bytes)?).ok());
            Record::Varies(names.collect::<Option<_>>()?, mark)
        }
        _ => return None,
    };
    bytes.is_empty().then_some(record)
}

fn take_response(bytes: &mut Bytes) -> Option<Entry> {
    let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
    let made = UNIX_EPOCH.checked_add(take_time(bytes)?)?;
    let (lifetime, stale_while_revalidate, stale_if_error) =
        (take_time(bytes)?, take_time(bytes)?, take_time(bytes)?);
    let (always_validate, never_stale, no_transform) =
        (take_flag(bytes)?, take_flag(bytes)?, take_flag(bytes)?);
    let mut headers = HeaderMap::new();
    for _ in 0..take_length(bytes)? {
        let name = HeaderName::from_bytes(&take(bytes)?).ok()?;
        let value = HeaderValue::from_maybe_shared(take(bytes)?).ok()?;
        headers.try_append(name, value).ok()?;
    }
    let mut variant = Vec::new();
    for _ in 0..take_length(bytes)? {
        let name = HeaderName::from_bytes(&take(bytes)?).ok()?;
        let is_there = take_flag(bytes)?;
        let value = take(bytes)?;
        variant.push((name, is_there.then(|| value.to_vec())));
    }
    let body = take(bytes)?;
    let freshness = Freshness {
        lifetime,
        initial_age: SystemTime::now().duration_since(made).unwrap_or_default(),
        always_validate,
        never_stale,
        stale_while_revalidate,
        stale_if_error,
        no_transform,
    };
    let mut entry = Entry::new((status, headers), Variant::from_parts(variant), freshness);
    entry.body = Stored::copy_of(std::iter::once(&body));
    Some(entry)
}

/// Writes a purge.
pub fn purge(scope: &Scope, soft: bool) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(VERSION);
    out.put_u8(u8::from(soft));
    let put_host = |out: &mut BytesMut, host: &Option<Box<str>>| {
        out.put_u8(u8::from(host.is_some()));
        put(out, host.as_deref().unwrap_or_default().as_bytes());
    };
    match scope {
        Scope::Everything => out.put_u8(0),
        Scope::Url(host, path) => {
            out.put_u8(1);
            put_host(&mut out, host);
            put(&mut out, path.as_bytes());
        }
        Scope::Pattern(UrlPattern { host, path }) => {
            out.put_u8(2);
            put_host(&mut out, host);
            put(&mut out, path.to_string().as_bytes());
        }
        Scope::Tag(tag) => {
            out.put_u8(3);
            put(&mut out, tag);
        }
    }
    out.freeze()
}

/// Reads what [`purge`] wrote.
pub fn purged(mut bytes: Bytes) -> Option<(Scope, bool)> {
    if bytes.try_get_u8().ok()? != VERSION {
        return None;
    }
    let soft = take_flag(&mut bytes)?;
    let text = |bytes: &mut Bytes| Some(String::from_utf8(take(bytes)?.to_vec()).ok()?.into());
    let host = |bytes: &mut Bytes| {
        let is_there = take_flag(bytes)?;
        let host: Box<str> = text(bytes)?;
        Some(is_there.then_some(host))
    };
    let scope = match bytes.try_get_u8().ok()? {
        0 => Scope::Everything,
        1 => Scope::Url(host(&mut bytes)?, text(&mut bytes)?),
        2 => {
            let host = host(&mut bytes)?;
            Scope::Pattern(UrlPattern { host, path: Glob::new(&text(&mut bytes)?) })
        }
        3 => Scope::Tag(take(&mut bytes)?.to_vec().into()),
        _ => return None,
    };
    bytes.is_empty().then_some((scope, soft))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn put(out: &mut BytesMut, text: &[u8]) {
    put_length(out, text.len());
    out.extend_from_slice(text);
}

/// Nothing that is stored is as long as that.
fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
}

fn take_length(bytes: &mut Bytes) -> Option<usize> {
    usize::try_from(bytes.try_get_u32().ok()?).ok()
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = take_length(bytes)?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn take_flag(bytes: &mut Bytes) -> Option<bool> {
    match bytes.try_get_u8().ok()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn take_time(bytes: &mut Bytes) -> Option<Duration> {
    Some(Duration::from_millis(bytes.try_get_u64().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        of.iter().map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap())).collect()
    }

    fn entry() -> Entry {
        let head = headers(&[("vary", "x-a, x-b"), ("etag", "\"1\""), ("etag", "\"2\"")]);
        let variant = Variant::of(&head, &headers(&[("x-a", "1")]));
        let freshness = Freshness {
            lifetime: Duration::from_secs(60),
            initial_age: Duration::from_secs(7),
            never_stale: true,
            ..Freshness::default()
        };
        let mut entry = Entry::new((StatusCode::NOT_FOUND, head), variant, freshness);
        entry.body = Stored::copy_of([Bytes::from(vec![b'x'; 300_000])].iter());
        entry
    }

    #[test]
    fn responses_are_the_same_on_the_other_side_and_as_old() {
        let entry = entry();
        let Some(Record::Response(read)) = record(response(&entry)) else { panic!("it is whole") };
        assert_eq!((read.status, &read.headers), (entry.status, &entry.headers));
        assert_eq!((&read.variant, &read.body), (&entry.variant, &entry.body));
        let age = read.age(Instant::now()).as_millis();
        assert!((6_990..8_000).contains(&age), "{age}");
        let plain =
            |freshness: &Freshness| Freshness { initial_age: Duration::ZERO, ..freshness.clone() };
        assert_eq!(plain(&read.freshness), plain(&entry.freshness));
        let names = [HeaderName::from_static("x-a")];
        let Some(Record::Varies(read, 9)) = record(varies(names.iter(), 9)) else {
            panic!("whole")
        };
        assert_eq!(read, names);
    }

    #[test]
    fn purges_are_the_same_on_the_other_side() {
        for scope in [
            Scope::Everything,
            Scope::Url(None, "/a?b".into()),
            Scope::Url(Some("h".into()), "/".into()),
            Scope::Pattern(UrlPattern::parse("//h/a*b*").unwrap()),
            Scope::Tag((*b"\xff t").into()),
        ] {
            for soft in [false, true] {
                assert_eq!(purged(purge(&scope, soft)), Some((scope.clone(), soft)));
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in prop::collection::vec(any::<u8>(), 0..200), at in 0..400_usize, by in 1..=255_u8) {
            let _ = record(Bytes::from(noise.clone()));
            let _ = purged(Bytes::from(noise));
            let mut whole = response(&entry()).to_vec();
            prop_assert!(record(Bytes::from(whole[..at].to_vec())).is_none());
            whole[at] ^= by;
            let _ = record(Bytes::from(whole));
        }
    }
}
