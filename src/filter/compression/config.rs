//! The configuration of our filter, compiled to its [`Policy`].

use std::sync::Arc;

use super::Compression;
use super::rules::{Rules, Tags};
use super::stats::{Direction, Operation};
use crate::cache::{Glob, MediaRange};
use crate::coding::{Brotli, Coding, Encoding, Limits, Zlib, Zstd};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::filter::registry::{OverrideRegistration, Registration};
use crate::proto::any::unpack;
use crate::proto::nuncio::extensions::filters::http::compression::v1 as proto;

pub(in crate::filter) const REGISTRATION: Registration = Registration {
    config_type: "nuncio.extensions.filters.http.compression.v1.Compression",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(Compression { place: cx.clone(), policy: Arc::new(compile(&message)?) }))
    },
};

pub(in crate::filter) const OVERRIDE: OverrideRegistration = OverrideRegistration {
    config_type: "nuncio.extensions.filters.http.compression.v1.Compression",
    compile: |config| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(compile(&message)?))
    },
};

const DEFAULT_MIN_SIZE: u64 = 1_024;
const DEFAULT_MAX_BYTES: u64 = 64 << 20;
const DEFAULT_MAX_RATIO: u32 = 100;
/// A body with this type is worth it, unless others are named.
const DEFAULT_TYPES: [&str; 16] = [
    "text/*",
    "application/json",
    "application/ld+json",
    "application/problem+json",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/atom+xml",
    "application/rss+xml",
    "application/xhtml+xml",
    "application/manifest+json",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/svg+xml",
];

/// What is done with the messages of an exchange.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    excluded: Vec<Glob>,
    /// How responses are encoded, if they are.
    pub(super) encode_response: Option<Responses>,
    /// How requests are encoded, if they are.
    pub(super) encode_request: Option<Requests>,
    pub(super) decode_request: Option<Limits>,
    pub(super) decode_response: Option<Limits>,
    /// Of responses that are decoded.
    pub(super) tags: Tags,
}

/// How responses are encoded.
#[derive(Debug, Clone)]
pub(super) struct Responses {
    pub(super) rules: Rules,
    /// What is liked best first.
    pub(super) encodings: Vec<Arc<Encoding>>,
    /// Their codings.
    pub(super) preference: Vec<Coding>,
}

/// How requests are encoded.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    pub(super) rules: Rules,
    pub(super) encoding: Arc<Encoding>,
}

impl Policy {
    /// Calls `each` with everything that may be done with bodies.
    pub(super) fn uses(&self, mut each: impl FnMut(Operation, Direction, Coding)) {
        let responses = self.encode_response.iter().flat_map(|of| &of.preference);
        responses.for_each(|coding| each(Operation::Encode, Direction::Response, *coding));
        if let Some(requests) = &self.encode_request {
            each(Operation::Encode, Direction::Request, requests.encoding.coding());
        }
        for (limits, direction) in
            [(self.decode_request, Direction::Request), (self.decode_response, Direction::Response)]
        {
            if limits.is_some() {
                Coding::ALL.iter().for_each(|coding| each(Operation::Decode, direction, *coding));
            }
        }
    }

    /// Whether clients may get other bytes than origins sent.
    pub(super) fn changes_responses(&self) -> bool {
        self.encode_response.is_some() || self.decode_response.is_some()
    }

    /// Whether nothing is done with requests for this path.
    pub(super) fn excludes(&self, path: &str) -> bool {
        self.excluded.iter().any(|pattern| pattern.matches(path))
    }
}

fn compile(message: &proto::Compression) -> Result<Policy, Errors> {
    let proto::Compression {
        encodings,
        bodies,
        disable_response_compression,
        excluded_paths,
        excluded_statuses,
        entity_tags,
        request_compression,
        request_decompression,
        response_decompression,
    } = message;
    let mut errors = Errors::new();
    let tags = fields::enumeration::<proto::compression::EntityTags>(*entity_tags);
    let tags = match errors.take(tags.at("entity_tags")) {
        Some(proto::compression::EntityTags::Keep) => Tags::KeepStrong,
        Some(proto::compression::EntityTags::Weaken) | None => Tags::Weaken,
    };
    let excluded_statuses = errors.each("excluded_statuses", excluded_statuses, |status| {
        let status = fields::in_range(*status, 200..=599)?;
        Ok(u16::try_from(status).unwrap_or_default())
    });
    let rules = compile_rules(bodies.as_ref(), excluded_statuses, tags).at("bodies");
    let rules = errors.take(rules);
    let encodings = errors.take(compile_encodings(encodings).at("encodings"));
    let excluded = errors.each("excluded_paths", excluded_paths, |path| Glob::of_paths(path));
    let request = request_compression.as_ref().map(compile_request).transpose();
    let encode_request = errors.take(request.at("request_compression")).flatten();
    let mut limits = |field: &'static str, limits: &Option<proto::compression::Limits>| {
        errors.take(limits.as_ref().map(compile_limits).transpose().at(field)).flatten()
    };
    let decode_request = limits("request_decompression", request_decompression);
    let decode_response = limits("response_decompression", response_decompression);
    errors.finish()?;
    let encode_response = match (rules, encodings) {
        (Some(rules), Some(encodings)) if !disable_response_compression => {
            let preference = encodings.iter().map(|encoding| encoding.coding()).collect();
            Some(Responses { rules, encodings, preference })
        }
        _ => None,
    };
    Ok(Policy { excluded, encode_response, encode_request, decode_request, decode_response, tags })
}

fn compile_rules(
    bodies: Option<&proto::compression::Bodies>,
    excluded_statuses: Vec<u16>,
    tags: Tags,
) -> Result<Rules, Errors> {
    let usual = proto::compression::Bodies::default();
    let proto::compression::Bodies { min_size, content_types } = bodies.unwrap_or(&usual);
    let mut errors = Errors::new();
    let given = errors.each("content_types", content_types, |text| {
        MediaRange::parse(text).map_err(|w| Fault::out_of_range(format!("{text:?}"), w).into())
    });
    errors.finish()?;
    let usual = || DEFAULT_TYPES.iter().filter_map(|kind| MediaRange::parse(kind).ok()).collect();
    Ok(Rules {
        min_size: min_size.unwrap_or(DEFAULT_MIN_SIZE),
        types: if content_types.is_empty() { usual() } else { given },
        untyped: false,
        grpc: false,
        excluded_statuses,
        tags,
    })
}

fn compile_encodings(list: &[proto::compression::Encoding]) -> Result<Vec<Arc<Encoding>>, Errors> {
    if list.is_empty() {
        let usual = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
        return Ok(usual.map(|coding| Arc::new(encoding(coding, None))).into());
    }
    let mut errors = Errors::new();
    let mut encodings: Vec<Arc<Encoding>> = Vec::with_capacity(list.len());
    for (index, item) in list.iter().enumerate() {
        let Some(encoding) = errors.take(compile_encoding(item).index(index)) else { continue };
        if encodings.iter().any(|other| other.coding() == encoding.coding()) {
            let fault = Err(Fault::Duplicate(item.coding.clone())).at("coding").index(index);
            errors.take::<()>(fault);
        }
        encodings.push(Arc::new(encoding));
    }
    errors.finish()?;
    Ok(encodings)
}

fn compile_encoding(message: &proto::compression::Encoding) -> Result<Encoding, Errors> {
    let proto::compression::Encoding { coding, level } = message;
    let known = Coding::ALL.into_iter().find(|known| known.name() == coding);
    let Some(coding) = known else {
        let wanted = "gzip, deflate, br or zstd";
        return Err(Errors::from(Fault::out_of_range(format!("{coding:?}"), wanted)).at("coding"));
    };
    let levels = match coding {
        Coding::Gzip | Coding::Deflate => 0..=9,
        Coding::Brotli => 0..=11,
        Coding::Zstd => 1..=22,
    };
    let level = level.map(|level| fields::in_range(level, levels)).transpose().at("level")?;
    Ok(encoding(coding, level))
}

/// A coding as it is made at this level, or at one that is made for answering.
fn encoding(coding: Coding, level: Option<u32>) -> Encoding {
    match coding {
        Coding::Gzip => Encoding::Gzip(zlib(level)),
        Coding::Deflate => Encoding::Deflate(zlib(level)),
        Coding::Brotli => {
            let quality = level.unwrap_or(4);
            // More is worth it for those levels only that are slow anyway.
            let window_bits = if quality < 10 { Brotli::default().window_bits } else { 22 };
            Encoding::Brotli(Brotli { quality, window_bits, ..Brotli::default() })
        }
        Coding::Zstd => {
            let usual = Zstd::default();
            let level = level.and_then(|level| i32::try_from(level).ok()).unwrap_or(usual.level);
            Encoding::Zstd(Zstd { level, ..usual })
        }
    }
}

fn zlib(level: Option<u32>) -> Zlib {
    let usual = Zlib::default();
    Zlib { level: level.unwrap_or(usual.level), ..usual }
}

fn compile_request(message: &proto::compression::RequestCompression) -> Result<Requests, Errors> {
    let proto::compression::RequestCompression { encoding, bodies } = message;
    let mut errors = Errors::new();
    let encoding = fields::required(encoding.as_ref()).and_then(compile_encoding).at("encoding");
    let encoding = errors.take(encoding);
    let rules = compile_rules(bodies.as_ref(), Vec::new(), Tags::Drop).at("bodies");
    let rules = errors.take(rules);
    match (encoding, rules) {
        (Some(encoding), Some(rules)) => Ok(Requests { rules, encoding: Arc::new(encoding) }),
        _ => Err(errors),
    }
}

fn compile_limits(message: &proto::compression::Limits) -> Result<Limits, Errors> {
    let proto::compression::Limits { max_bytes, max_ratio } = message;
    let mut errors = Errors::new();
    let max_bytes = max_bytes.unwrap_or(DEFAULT_MAX_BYTES);
    if max_bytes == 0 {
        errors.push("max_bytes", Fault::out_of_range(max_bytes, "1 or more"));
    }
    let ratio = fields::in_range(max_ratio.unwrap_or(DEFAULT_MAX_RATIO), 1..=u32::MAX);
    let max_ratio = errors.take(ratio.at("max_ratio"));
    errors.finish()?;
    Ok(Limits { max_bytes, max_ratio: max_ratio.unwrap_or(DEFAULT_MAX_RATIO) })
}

#[cfg(test)]
mod tests {
    use super::proto::compression::{
        Bodies, Encoding as Named, Limits as Given, RequestCompression,
    };
    use super::*;

    #[test]
    fn without_fields_responses_are_encoded_and_nothing_else_is_done() {
        let policy = compile(&proto::Compression::default()).unwrap();
        let responses = policy.encode_response.as_ref().unwrap();
        let codings: Vec<_> = responses.encodings.iter().map(|e| e.coding()).collect();
        assert_eq!(codings, [Coding::Zstd, Coding::Brotli, Coding::Gzip]);
        assert_eq!((responses.rules.min_size, responses.rules.types.len()), (1_024, 16));
        assert!(policy.encode_request.is_none() && policy.decode_request.is_none());
        assert!(policy.decode_response.is_none() && !policy.excludes("/"));
    }

    #[test]
    fn faults_name_their_fields() {
        let named = |coding: &str, level| Named { coding: coding.into(), level };
        let cases = [
            (
                proto::Compression { encodings: vec![named("GZIP", None)], ..Default::default() },
                "encodings[0].coding: \"GZIP\" is not gzip, deflate, br or zstd",
            ),
            (
                proto::Compression {
                    encodings: vec![named("br", Some(12)), named("zstd", Some(0))],
                    ..Default::default()
                },
                "encodings[1].level: 0 is not in 1..=22",
            ),
            (
                proto::Compression {
                    encodings: vec![named("br", None), named("br", Some(1))],
                    ..Default::default()
                },
                "encodings[1].coding: \"br\" is used more than once",
            ),
            (
                proto::Compression {
                    bodies: Some(Bodies { content_types: vec!["text".into()], min_size: None }),
                    ..Default::default()
                },
                "bodies.content_types[0]: \"text\" is not a media type",
            ),
            (
                proto::Compression { excluded_paths: vec!["a".into()], ..Default::default() },
                "excluded_paths[0]: \"a\" is not a path",
            ),
            (
                proto::Compression { excluded_statuses: vec![200, 600], ..Default::default() },
                "excluded_statuses[1]: 600 is not in 200..=599",
            ),
            (
                proto::Compression { entity_tags: 2, ..Default::default() },
                "entity_tags: 2 is not a value that the API declares",
            ),
            (
                proto::Compression {
                    request_compression: Some(RequestCompression::default()),
                    ..Default::default()
                },
                "request_compression.encoding: is required",
            ),
            (
                proto::Compression {
                    request_decompression: Some(Given { max_bytes: Some(0), max_ratio: None }),
                    ..Default::default()
                },
                "request_decompression.max_bytes: 0 is not 1 or more",
            ),
            (
                proto::Compression {
                    response_decompression: Some(Given { max_bytes: None, max_ratio: Some(0) }),
                    ..Default::default()
                },
                "response_decompression.max_ratio: 0 is not in",
            ),
        ];
        for (message, expected) in cases {
            let text = compile(&message).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
