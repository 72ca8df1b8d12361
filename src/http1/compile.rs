//! `Http1ProtocolOptions.header_key_format` to [`NameFormat`].

use prost::Name as _;

use super::case::NameFormat;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::config::core::v3::http1_protocol_options::HeaderKeyFormat;
use crate::proto::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use crate::proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use crate::proto::envoy::extensions::http::header_formatters::preserve_case::v3::preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders;

/// Compiles the form of names.
pub fn names(format: Option<&HeaderKeyFormat>) -> Result<NameFormat, Errors> {
    let Some(HeaderKeyFormat { header_format }) = format else { return Ok(NameFormat::Lower) };
    match fields::required(header_format.as_ref()).at("header_format")? {
        HeaderFormat::ProperCaseWords(_) => Ok(NameFormat::Proper),
        HeaderFormat::StatefulFormatter(extension) => formatter(extension).at("stateful_formatter"),
    }
}

fn formatter(extension: &TypedExtensionConfig) -> Result<NameFormat, Errors> {
    let undecodable = |error: UnpackError| Errors::from(Fault::Undecodable(error.to_string()));
    let TypedExtensionConfig { name: _, typed_config } = extension;
    let config = fields::required(typed_config.as_ref()).at("typed_config")?;
    let kind = effective_type(config).map_err(undecodable).at("typed_config")?;
    if kind != PreserveCaseFormatterConfig::full_name() {
        return Err(Errors::from(Fault::UnknownExtension(kind.into_owned())).at("typed_config"));
    }
    let PreserveCaseFormatterConfig { formatter_type_on_envoy_headers } =
        unpack(config).map_err(undecodable).at("typed_config")?;
    let others =
        fields::enumeration::<FormatterTypeOnEnvoyHeaders>(formatter_type_on_envoy_headers)
            .at("formatter_type_on_envoy_headers")
            .at("typed_config")?;
    Ok(NameFormat::Preserve { others_proper: others == FormatterTypeOnEnvoyHeaders::ProperCase })
}
