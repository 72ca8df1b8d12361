//! The configuration of Envoy's compressor.

use std::any::Any as StdAny;
use std::sync::Arc;

use super::library;
use super::rules::{Rules, Tags};
use crate::cache::MediaRange;
use crate::coding::Encoding;
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::filter::registry::{FilterContext, OverrideRegistration, Registration};
use crate::proto::any::unpack;
use crate::proto::envoy::config::core::v3::RuntimeFeatureFlag;
use crate::proto::envoy::extensions::filters::http::compressor::v3 as proto;
use proto::compressor::{CommonDirectionConfig, RequestDirectionConfig, ResponseDirectionConfig};

pub(in crate::filter) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.compressor.v3.Compressor",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(compile(message, cx)?))
    },
};

pub(in crate::filter) const OVERRIDE: OverrideRegistration = OverrideRegistration {
    config_type: "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
    compile: |config| {
        let message: proto::CompressorPerRoute =
            unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(compile_route(&message)?) as Arc<dyn StdAny + Send + Sync>)
    },
};

const DEFAULT_MIN_LENGTH: u32 = 30;
const DEFAULT_TYPES: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "text/xml",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/json",
    "application/x-json",
    "application/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
    "image/svg+xml",
];

/// The compiled filter.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub(super) place: FilterContext,
    /// The library's, for statistics.
    pub(super) library_name: String,
    pub(super) encoding: Arc<Encoding>,
    pub(super) choose_first: bool,
    pub(super) response: ResponseConfig,
    /// Which requests are encoded, if any are.
    pub(super) request: Option<Rules>,
}

#[derive(Debug, Clone)]
pub(super) struct ResponseConfig {
    pub(super) enabled: bool,
    pub(super) rules: Arc<Rules>,
    pub(super) remove_accept_encoding: bool,
    pub(super) says_status: bool,
    /// Statistics of responses have a part `response` in their names.
    pub(super) is_rooted: bool,
}

/// What a route says.
#[derive(Debug, Default)]
pub(super) struct RouteCompressor {
    pub(super) enabled: Option<bool>,
    pub(super) remove_accept_encoding: Option<bool>,
    pub(super) encoding: Option<Arc<Encoding>>,
}

fn compile(message: proto::Compressor, cx: &FilterContext) -> Result<Config, Errors> {
    let proto::Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = message;
    let mut errors = Errors::new();
    let library = library::compressor(compressor_library.as_ref()).at("compressor_library");
    let library = errors.take(library);
    let request = request_direction_config.as_ref();
    let request = request.map(|config| compile_request(config, &cx.runtime)).transpose();
    let request = errors.take(request.at("request_direction_config")).flatten().flatten();
    let response = match response_direction_config {
        Some(config) => {
            for (field, is_set) in [
                ("content_length", content_length.is_some()),
                ("content_type", !content_type.is_empty()),
                ("disable_on_etag_header", disable_on_etag_header),
                ("remove_accept_encoding_header", remove_accept_encoding_header),
                ("runtime_enabled", runtime_enabled.is_some()),
            ] {
                if is_set {
                    let fault = "deprecated, and has no effect beside response_direction_config";
                    errors.push(field, Fault::Conflict(fault.into()));
                }
            }
            compile_response(&config, true, &cx.runtime).at("response_direction_config")
        }
        None => {
            let enabled =
                errors.take(flag(runtime_enabled.as_ref(), &cx.runtime).at("runtime_enabled"));
            let common = CommonDirectionConfig {
                enabled: Some(RuntimeFeatureFlag {
                    default_value: Some(enabled.unwrap_or(true)),
                    ..RuntimeFeatureFlag::default()
                }),
                min_content_length: content_length,
                content_type,
            };
            let config = ResponseDirectionConfig {
                common_config: Some(common),
                disable_on_etag_header,
                remove_accept_encoding_header,
                ..ResponseDirectionConfig::default()
            };
            compile_response(&config, false, &cx.runtime)
        }
    };
    let response = errors.take(response);
    errors.finish()?;
    let (library, response) = library.zip(response).ok_or_else(Errors::new)?;
    Ok(Config {
        place: cx.clone(),
        library_name: library.name,
        encoding: Arc::new(library.settings),
        choose_first,
        response,
        request,
    })
}

/// A flag, which is on unless it is there.
pub(super) fn flag(flag: Option<&RuntimeFeatureFlag>, runtime: &Runtime) -> Result<bool, Errors> {
    flag.map_or(Ok(true), |flag| runtime.flag(flag))
}

/// Whether a direction is switched on, and for which bodies.
fn compile_common(
    message: Option<&CommonDirectionConfig>,
    (excluded_statuses, tags): (Vec<u16>, Tags),
    runtime: &Runtime,
) -> Result<(bool, Rules), Errors> {
    let usual = CommonDirectionConfig::default();
    let CommonDirectionConfig { enabled, min_content_length, content_type } =
        message.unwrap_or(&usual);
    let mut errors = Errors::new();
    let enabled = errors.take(flag(enabled.as_ref(), runtime).at("enabled"));
    let mut types = Vec::with_capacity(content_type.len());
    for (index, text) in content_type.iter().enumerate() {
        let fault = |wanted| Errors::from(Fault::out_of_range(format!("{text:?}"), wanted));
        let range = MediaRange::parse(text).map_err(fault);
        types.extend(errors.take(range.index(index).at("content_type")));
    }
    if content_type.is_empty() {
        types.extend(DEFAULT_TYPES.iter().filter_map(|kind| MediaRange::parse(kind).ok()));
    }
    errors.finish()?;
    let min_size = match min_content_length {
        None | Some(0) => DEFAULT_MIN_LENGTH,
        Some(set) => *set,
    };
    let rules = Rules {
        min_size: u64::from(min_size),
        types,
        untyped: true,
        grpc: true,
        excluded_statuses,
        tags,
    };
    Ok((enabled.unwrap_or(true), rules))
}

fn compile_request(
    message: &RequestDirectionConfig,
    runtime: &Runtime,
) -> Result<Option<Rules>, Errors> {
    let RequestDirectionConfig { common_config } = message;
    let common = compile_common(common_config.as_ref(), (Vec::new(), Tags::Drop), runtime);
    let (enabled, rules) = common.at("common_config")?;
    Ok(enabled.then_some(rules))
}

fn compile_response(
    message: &ResponseDirectionConfig,
    is_rooted: bool,
    runtime: &Runtime,
) -> Result<ResponseConfig, Errors> {
    let ResponseDirectionConfig {
        common_config,
        disable_on_etag_header,
        remove_accept_encoding_header,
        uncompressible_response_codes,
        status_header_enabled,
    } = message;
    let mut errors = Errors::new();
    let mut statuses = Vec::new();
    for (index, code) in uncompressible_response_codes.iter().enumerate() {
        let code = fields::in_range(*code, 200..=599).and_then(|code| match u16::try_from(code) {
            Ok(code) if !statuses.contains(&code) => Ok(code),
            _ => Err(Fault::Duplicate(code.to_string()).into()),
        });
        statuses.extend(errors.take(code.index(index).at("uncompressible_response_codes")));
    }
    let tags = if *disable_on_etag_header { Tags::KeepAny } else { Tags::Drop };
    let common = compile_common(common_config.as_ref(), (statuses, tags), runtime);
    // What is said by the deprecated fields has no common_config around it.
    let common = if is_rooted { common.at("common_config") } else { common };
    let common = errors.take(common);
    errors.finish()?;
    let (enabled, rules) = common.ok_or_else(Errors::new)?;
    Ok(ResponseConfig {
        enabled,
        rules: Arc::new(rules),
        remove_accept_encoding: *remove_accept_encoding_header,
        says_status: *status_header_enabled,
        is_rooted,
    })
}

fn compile_route(message: &proto::CompressorPerRoute) -> Result<RouteCompressor, Errors> {
    use proto::compressor_per_route::Override;
    let proto::CompressorPerRoute { r#override } = message;
    let overrides = match r#override {
        Some(Override::Disabled(true)) => {
            return Ok(RouteCompressor { enabled: Some(false), ..RouteCompressor::default() });
        }
        Some(Override::Disabled(false)) => {
            return Err(Errors::from(Fault::out_of_range("false", "true")).at("disabled"));
        }
        Some(Override::Overrides(overrides)) => overrides,
        None => return Err(Errors::from(Fault::Required).at("override")),
    };
    let proto::CompressorOverrides { response_direction_config, compressor_library } = overrides;
    let library = compressor_library.as_ref().map(|library| library::compressor(Some(library)));
    let library = library.transpose().at("compressor_library").at("overrides")?;
    let response = response_direction_config.as_ref();
    Ok(RouteCompressor {
        // That it is there switches it on.
        enabled: response.map(|_| true),
        remove_accept_encoding: response.and_then(|response| {
            let proto::ResponseDirectionOverrides { remove_accept_encoding_header } = response;
            *remove_accept_encoding_header
        }),
        encoding: library.map(|library| Arc::new(library.settings)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::Coding;
    use crate::proto::any::pack;
    use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
    use crate::proto::envoy::extensions::compression::brotli::compressor::v3::Brotli;
    use crate::proto::envoy::extensions::compression::gzip::compressor::v3::Gzip;

    fn place() -> FilterContext {
        FilterContext { name: "c".into(), ..FilterContext::default() }
    }

    fn gzip() -> proto::Compressor {
        let library =
            TypedExtensionConfig { name: "l".into(), typed_config: Some(pack(&Gzip::default())) };
        proto::Compressor { compressor_library: Some(library), ..Default::default() }
    }

    #[test]
    fn the_deprecated_fields_say_what_their_successor_does_not() {
        let config = compile(
            proto::Compressor {
                content_length: Some(100),
                content_type: vec!["text/html".into()],
                disable_on_etag_header: true,
                remove_accept_encoding_header: true,
                runtime_enabled: Some(RuntimeFeatureFlag {
                    default_value: Some(false),
                    runtime_key: "x".into(),
                }),
                ..gzip()
            },
            &place(),
        );
        let ResponseConfig { enabled, rules, remove_accept_encoding, says_status, is_rooted } =
            config.unwrap().response;
        assert_eq!(
            (enabled, remove_accept_encoding, says_status, is_rooted),
            (false, true, false, false)
        );
        assert_eq!((rules.min_size, rules.types.len(), rules.tags), (100, 1, Tags::KeepAny));
        let usual = compile(gzip(), &place()).unwrap();
        assert!(usual.response.enabled && usual.request.is_none());
        assert_eq!((usual.response.rules.min_size, usual.response.rules.types.len()), (30, 20));
    }

    #[test]
    fn faults_name_their_fields() {
        let no_default = Some(RuntimeFeatureFlag { default_value: None, runtime_key: "x".into() });
        let common = |content_type: &str| CommonDirectionConfig {
            enabled: no_default.clone(),
            content_type: vec![content_type.into()],
            ..Default::default()
        };
        let both = proto::Compressor {
            content_length: Some(1),
            content_type: vec!["text/html".into()],
            response_direction_config: Some(ResponseDirectionConfig {
                common_config: Some(common("html")),
                uncompressible_response_codes: vec![206, 100, 206],
                ..Default::default()
            }),
            request_direction_config: Some(RequestDirectionConfig {
                common_config: Some(common("*")),
            }),
            ..Default::default()
        };
        let text = compile(both, &place()).unwrap_err().to_string();
        for expected in [
            "compressor_library: is required",
            "content_length: deprecated",
            "content_type: deprecated",
            "response_direction_config.common_config.enabled.default_value: is required",
            "response_direction_config.common_config.content_type[0]: \"html\" is not a media",
            "response_direction_config.uncompressible_response_codes[1]: 100 is not in",
            "uncompressible_response_codes[2]: \"206\" is used more than once",
            "request_direction_config.common_config.content_type[0]: \"*\" is not a media",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        let old = proto::Compressor { runtime_enabled: no_default.clone(), ..gzip() };
        let text = compile(old, &place()).unwrap_err().to_string();
        assert!(text.contains("runtime_enabled.default_value: is required"), "{text}");
    }

    #[test]
    fn a_route_switches_off_or_on_and_may_have_another_library() {
        use proto::compressor_per_route::Override;
        let route = |of| compile_route(&proto::CompressorPerRoute { r#override: of });
        assert_eq!(route(Some(Override::Disabled(true))).unwrap().enabled, Some(false));
        for (bad, expected) in [(Some(Override::Disabled(false)), "disabled"), (None, "override")] {
            assert!(route(bad).unwrap_err().to_string().contains(expected));
        }
        let library =
            TypedExtensionConfig { name: "b".into(), typed_config: Some(pack(&Brotli::default())) };
        let overrides = proto::CompressorOverrides {
            response_direction_config: Some(proto::ResponseDirectionOverrides {
                remove_accept_encoding_header: Some(true),
            }),
            compressor_library: Some(library),
        };
        let on = route(Some(Override::Overrides(overrides))).unwrap();
        assert_eq!((on.enabled, on.remove_accept_encoding), (Some(true), Some(true)));
        assert_eq!(on.encoding.unwrap().coding(), Coding::Brotli);
        let bad = proto::CompressorOverrides {
            compressor_library: Some(TypedExtensionConfig::default()),
            ..Default::default()
        };
        let text = route(Some(Override::Overrides(bad))).unwrap_err().to_string();
        assert!(text.contains("overrides.compressor_library.name: is required"), "{text}");
    }
}
