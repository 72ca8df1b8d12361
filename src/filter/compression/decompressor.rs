//! `envoy.filters.http.decompressor`: decodes requests and responses that are of the coding of its library.
//!
//! Differs: of several codings it is the last that must be the library's, since that is what the bytes are;
//! Envoy looks at the first. A body that is broken or grows over `max_inflate_ratio` breaks the exchange;
//! Envoy may pass on what there is of it.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;

use super::codecs::{AlsoCount, Codecs, take_last_coding_off};
use super::compressor_config::flag;
use super::library::{self, Reading, stat_name};
use super::meter::Outcome;
use super::stats::{Direction, Operation};
use super::trailers::{ByteCounts, Names, WithByteCounts};
use crate::coding::{Coding, Limits};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault};
use crate::exchange::{Body, HttpService, Request, Response, StreamReset};
use crate::filter::head;
use crate::filter::registry::{FilterContext, Registration};
use crate::filter::{Filter, FilterFactory, Stage, WorkerContext};
use crate::proto::any::unpack;
use crate::proto::envoy::extensions::filters::http::decompressor::v3 as proto;
use crate::telemetry::Scope;
use proto::decompressor::{CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig};

pub(in crate::filter) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.decompressor.v3.Decompressor",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(compile(message, cx)?))
    },
};

crate::stats! {
    /// `http.STAT_PREFIX.decompressor.NAME.LIBRARY.request.*` and `.response.*`
    struct DirectionStats {
        counter decompressed,
        counter not_decompressed,
        /// Of bodies that were decoded.
        counter total_uncompressed_bytes,
        counter total_compressed_bytes,
    }
}

/// The compiled filter.
#[derive(Debug, Clone)]
struct Config {
    place: FilterContext,
    /// The library's, for statistics.
    library_name: String,
    reading: Reading,
    request: Way,
    response: Way,
    /// Origins are told that the library's coding is taken.
    advertises: bool,
    names: Arc<Names>,
}

/// What is done in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    enabled: bool,
    ignores_no_transform: bool,
}

fn compile(message: proto::Decompressor, cx: &FilterContext) -> Result<Config, Errors> {
    let proto::Decompressor {
        decompressor_library,
        request_direction_config,
        response_direction_config,
    } = message;
    let mut errors = Errors::new();
    let library = library::decompressor(decompressor_library.as_ref()).at("decompressor_library");
    let library = errors.take(library);
    let RequestDirectionConfig { common_config, advertise_accept_encoding } =
        request_direction_config.unwrap_or_default();
    let request = compile_way(common_config, &cx.runtime).at("request_direction_config");
    let request = errors.take(request);
    let ResponseDirectionConfig { common_config } = response_direction_config.unwrap_or_default();
    let response = compile_way(common_config, &cx.runtime).at("response_direction_config");
    let response = errors.take(response);
    errors.finish()?;
    let ((library, request), response) =
        library.zip(request).zip(response).ok_or_else(Errors::new)?;
    Ok(Config {
        place: cx.clone(),
        names: Arc::new(Names::of(&library.name)),
        library_name: library.name,
        reading: library.settings,
        request,
        response,
        advertises: advertise_accept_encoding.unwrap_or(true),
    })
}

fn compile_way(message: Option<CommonDirectionConfig>, runtime: &Runtime) -> Result<Way, Errors> {
    let CommonDirectionConfig { enabled, ignore_no_transform_header } = message.unwrap_or_default();
    let enabled = flag(enabled.as_ref(), runtime).at("enabled").at("common_config")?;
    Ok(Way { enabled, ignores_no_transform: ignore_no_transform_header })
}

impl FilterFactory for Config {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let library = stat_name(self.reading.decoding.coding());
        let stats = |direction: Direction| {
            let direction = direction.name();
            let part = format!("decompressor.{}.{library}.{direction}", self.library_name);
            cx.telemetry.group(Scope::http(&self.place.stat_prefix).part(part))
        };
        let codecs = Codecs::new(cx, &self.place);
        for (way, direction) in
            [(self.request, Direction::Request), (self.response, Direction::Response)]
        {
            if way.enabled {
                codecs.counts.of(Operation::Decode, direction, self.reading.decoding.coding());
            }
        }
        Stage::layer(Decompressor {
            config: self.clone(),
            request: stats(Direction::Request),
            response: stats(Direction::Response),
            codecs,
        })
    }
}

/// The filter on one worker.
struct Decompressor {
    config: Config,
    request: Arc<DirectionStats>,
    response: Arc<DirectionStats>,
    codecs: Codecs,
}

impl Filter for Decompressor {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        if request.stream.upgrade.is_some() {
            // What a tunnel carries is no content.
            return next.send(request).await;
        }
        let head = &mut request.head;
        if self.config.response.enabled && self.config.advertises {
            advertise(&mut head.headers, self.config.reading.decoding.coding());
        }
        self.decode(Direction::Request, &mut head.headers, &mut request.body);
        let mut response = next.send(request).await?;
        self.decode(Direction::Response, &mut response.head.headers, &mut response.body);
        Ok(response)
    }
}

impl Decompressor {
    fn decode(&self, direction: Direction, headers: &mut HeaderMap, body: &mut Body) {
        if body.is_end_stream() {
            return;
        }
        let (way, stats) = match direction {
            Direction::Request => (self.config.request, &self.request),
            Direction::Response => (self.config.response, &self.response),
        };
        let Reading { decoding, max_ratio } = self.config.reading;
        let is_wanted = way.enabled
            && (way.ignores_no_transform || !head::forbids_transforms(headers))
            && is_last_coding(headers, decoding.coding());
        if !is_wanted {
            stats.not_decompressed.inc();
            return;
        }
        stats.decompressed.inc();
        headers.remove(CONTENT_LENGTH);
        take_last_coding_off(headers);
        let counts = ByteCounts::default();
        // Envoy bounds nothing but the ratio.
        let limits = Limits { max_bytes: u64::MAX, max_ratio };
        self.codecs.decode(body, decoding, limits, (direction, also(stats, &counts)));
        let decoded = std::mem::take(body);
        *body = Body::boxed(WithByteCounts::new(decoded, counts, &self.config.names));
    }
}

fn also(stats: &Arc<DirectionStats>, counts: &ByteCounts) -> AlsoCount {
    let (stats, counts) = (Arc::clone(stats), counts.clone());
    Some(Box::new(move |outcome: &Outcome| {
        stats.total_compressed_bytes.add(outcome.input);
        stats.total_uncompressed_bytes.add(outcome.output);
        counts.set(outcome.input, outcome.output);
    }))
}

fn is_last_coding(headers: &HeaderMap, coding: Coding) -> bool {
    headers.contains_key(CONTENT_ENCODING)
        && head::items(headers, &CONTENT_ENCODING)
            .next_back()
            .and_then(|item| Coding::parse(std::str::from_utf8(item).ok()?))
            == Some(coding)
}

/// Says that a coding is taken, and liked as well as any.
fn advertise(headers: &mut HeaderMap, coding: Coding) {
    let name: HeaderName = ACCEPT_ENCODING;
    if !headers.contains_key(&name) {
        headers.insert(name, HeaderValue::from_static(coding.name()));
        return;
    }
    let mut items: Vec<&[u8]> = head::items(headers, &name).collect();
    let is_own = |item: &[u8]| {
        let item = item.split(|byte| *byte == b';').next().unwrap_or_default();
        item.trim_ascii().eq_ignore_ascii_case(coding.name().as_bytes())
    };
    match items.iter_mut().find(|item| is_own(item)) {
        Some(item) => *item = coding.name().as_bytes(),
        None => items.push(coding.name().as_bytes()),
    }
    if let Ok(value) = HeaderValue::from_bytes(&items.join(&b","[..])) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::any::pack;
    use crate::proto::envoy::config::core::v3::{RuntimeFeatureFlag, TypedExtensionConfig};
    use crate::proto::envoy::extensions::compression::gzip::decompressor::v3::Gzip;

    #[test]
    fn a_coding_is_advertised_once_and_without_a_weight() {
        for (before, after) in [
            (&[][..], "gzip"),
            (&["br"], "br,gzip"),
            (&["br;q=0.5, GZIP;q=0.3", "deflate"], "br;q=0.5,gzip,deflate"),
            (&[""], "gzip"),
        ] {
            let mut headers: HeaderMap =
                before.iter().map(|v| (ACCEPT_ENCODING, HeaderValue::from_static(v))).collect();
            advertise(&mut headers, Coding::Gzip);
            assert_eq!(headers.get_all(ACCEPT_ENCODING).iter().collect::<Vec<_>>(), [after]);
        }
    }

    #[test]
    fn faults_name_their_fields() {
        let place = FilterContext { name: "d".into(), ..FilterContext::default() };
        let library =
            TypedExtensionConfig { name: "l".into(), typed_config: Some(pack(&Gzip::default())) };
        let plain =
            proto::Decompressor { decompressor_library: Some(library), ..Default::default() };
        let config = compile(plain, &place).unwrap();
        let usual = Way { enabled: true, ignores_no_transform: false };
        assert_eq!((config.request, config.response, config.advertises), (usual, usual, true));
        let common = Some(CommonDirectionConfig {
            enabled: Some(RuntimeFeatureFlag::default()),
            ..Default::default()
        });
        let bad = proto::Decompressor {
            request_direction_config: Some(RequestDirectionConfig {
                common_config: common.clone(),
                ..Default::default()
            }),
            response_direction_config: Some(ResponseDirectionConfig { common_config: common }),
            ..Default::default()
        };
        let text = compile(bad, &place).unwrap_err().to_string();
        for field in [
            "decompressor_library: is required",
            "request_direction_config.common_config.enabled.default_value: is required",
            "response_direction_config.common_config.enabled.default_value: is required",
        ] {
            assert!(text.contains(field), "{field} is not in {text}");
        }
    }
}
