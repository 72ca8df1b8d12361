//! Which bodies may be encoded, and are worth it. Our filter and Envoy's ask the same questions; where they
//! take other answers, that is a field of [`Rules`].

use http::header::{CONTENT_ENCODING, ETAG};
use http::{HeaderMap, StatusCode};

use crate::cache::MediaRange;
use crate::filter::head;

/// Why a body stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// There are no bytes, or they are not all: 204, 206, 304.
    Status,
    /// It is shorter than it must be.
    TooSmall,
    /// It is not of a type that is worth it.
    ContentType,
    /// It is encoded already.
    Encoded,
    /// `no-transform`.
    NoTransform,
    /// Its entity tag would not hold any more.
    EntityTag,
    /// The client takes none of our codings, or likes the plain form better.
    NotAccepted,
    /// The path is excluded.
    Path,
    /// It was tried, and took no bytes less.
    NotSmaller,
    /// There is no body.
    Empty,
}

/// What becomes of an entity tag of which the bytes change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tags {
    /// A strong one is made weak.
    Weaken,
    /// A strong one is taken away.
    Drop,
    /// A response with a strong one stays as it is.
    KeepStrong,
    /// A response with any stays as it is.
    KeepAny,
}

/// Which bodies may be encoded, and are worth it.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Shorter bodies are not, if their length is known.
    pub(super) min_size: u64,
    /// Bodies of these types are.
    pub(super) types: Vec<MediaRange>,
    /// And those without a type.
    pub(super) untyped: bool,
    /// And those of gRPC, if they are of the types.
    pub(super) grpc: bool,
    /// Responses with these statuses are not.
    pub(super) excluded_statuses: Vec<u16>,
    pub(super) tags: Tags,
}

impl Rules {
    /// Whether a message may be encoded.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(
        &self,
        status: Option<StatusCode>,
        headers: &HeaderMap,
    ) -> Result<(), Skip> {
        match () {
            () if !self.is_long_enough(headers) => Err(Skip::TooSmall),
            () if !self.has_type(headers) => Err(Skip::ContentType),
            () if status.is_some_and(|status| self.excludes(status)) => Err(Skip::Status),
            () if head::forbids_transforms(headers) => Err(Skip::NoTransform),
            () if self.keeps_tag(headers) => Err(Skip::EntityTag),
            () if headers.contains_key(CONTENT_ENCODING) => Err(Skip::Encoded),
            () => Ok(()),
        }
    }

    pub(super) fn is_long_enough(&self, headers: &HeaderMap) -> bool {
        head::length(headers).is_none_or(|length| length >= self.min_size)
    }

    pub(super) fn has_type(&self, headers: &HeaderMap) -> bool {
        match headers.get(http::header::CONTENT_TYPE) {
            None => self.untyped,
            Some(_) if !self.grpc && head::is_grpc(headers) => false,
            of => self.types.iter().any(|range| range.holds(of)),
        }
    }

    pub(super) fn excludes(&self, status: StatusCode) -> bool {
        self.excluded_statuses.contains(&status.as_u16())
    }

    pub(super) fn keeps_tag(&self, headers: &HeaderMap) -> bool {
        match self.tags {
            Tags::Weaken | Tags::Drop => false,
            Tags::KeepStrong => head::has_strong_tag(headers),
            Tags::KeepAny => headers.contains_key(ETAG),
        }
    }

    /// Does to a response's entity tag what goes with other bytes.
    pub(super) fn treat_tag(&self, headers: &mut HeaderMap) {
        match self.tags {
            Tags::Weaken => head::weaken_tag(headers),
            Tags::Drop if is_strong_or_odd(headers) => {
                headers.remove(ETAG);
            }
            Tags::Drop | Tags::KeepStrong | Tags::KeepAny => {}
        }
    }
}

/// What Envoy takes away: a weak tag may have a small letter, and one of two letters is none.
fn is_strong_or_odd(headers: &HeaderMap) -> bool {
    let Some(tag) = headers.get(ETAG).map(http::HeaderValue::as_bytes) else { return false };
    tag.len() > 2 && !tag[..2].eq_ignore_ascii_case(b"W/")
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn rules() -> Rules {
        Rules {
            min_size: 10,
            types: vec![
                MediaRange::parse("text/*").unwrap(),
                MediaRange::parse("application/*").unwrap(),
            ],
            untyped: false,
            grpc: false,
            excluded_statuses: vec![404],
            tags: Tags::KeepStrong,
        }
    }

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(n, v): &(&'static str, &'static str)| {
            (HeaderName::from_static(n), HeaderValue::from_static(v))
        };
        of.iter().map(pair).collect()
    }

    #[test]
    fn each_rule_has_its_reason() {
        let text = ("content-type", "text/plain");
        for (status, of, expected) in [
            (200, &[text][..], Ok(())),
            (200, &[text, ("content-length", "10")], Ok(())),
            (200, &[text, ("content-length", "9")], Err(Skip::TooSmall)),
            (200, &[], Err(Skip::ContentType)),
            (200, &[("content-type", "application/grpc+proto")], Err(Skip::ContentType)),
            (404, &[text], Err(Skip::Status)),
            (200, &[text, ("cache-control", "no-transform")], Err(Skip::NoTransform)),
            (200, &[text, ("etag", "\"1\"")], Err(Skip::EntityTag)),
            (200, &[text, ("etag", "W/\"1\"")], Ok(())),
            (200, &[text, ("content-encoding", "br")], Err(Skip::Encoded)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(rules().check(Some(status), &headers(of)), expected, "{status} {of:?}");
        }
        let envoys = Rules { untyped: true, grpc: true, tags: Tags::KeepAny, ..rules() };
        assert_eq!(envoys.check(None, &headers(&[])), Ok(()));
        assert_eq!(envoys.check(None, &headers(&[("content-type", "application/grpc")])), Ok(()));
        let weak = headers(&[("etag", "W/\"1\"")]);
        assert_eq!(envoys.check(None, &weak), Err(Skip::EntityTag));
    }

    #[test]
    fn tags_are_treated_as_the_rules_say() {
        for (tags, before, after) in [
            (Tags::Weaken, "\"1\"", Some("W/\"1\"")),
            (Tags::Drop, "\"1\"", None),
            (Tags::Drop, "W/\"1\"", Some("W/\"1\"")),
            (Tags::Drop, "w/\"1\"", Some("w/\"1\"")),
            (Tags::Drop, "12", Some("12")),
        ] {
            let mut headers = headers(&[("etag", before)]);
            Rules { tags, ..rules() }.treat_tag(&mut headers);
            assert_eq!(headers.get(ETAG).map(|tag| tag.to_str().unwrap()), after, "{tags:?}");
        }
    }
}
