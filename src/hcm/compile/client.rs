//! What a connection manager says of its clients' addresses, to [`Detection`]s.

use http::StatusCode;
use prost::Name;

use crate::config::address_range::AddressRange;
use crate::config::matcher::header_name;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::hcm::client::Detection;
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    self, InternalAddressConfig,
};
use crate::proto::envoy::extensions::http::original_ip_detection::custom_header::v3::CustomHeaderConfig;
use crate::proto::envoy::extensions::http::original_ip_detection::xff::v3::XffConfig;
use crate::proto::envoy::r#type::v3::HttpStatus;

/// The fields of the connection manager itself.
pub(super) struct Fields {
    pub(super) use_remote_address: bool,
    pub(super) xff_num_trusted_hops: u32,
    pub(super) skip_xff_append: bool,
}

/// Where to look, and whether the peer is appended to `X-Forwarded-For`.
pub(super) fn compile(
    of: Fields,
    extensions: &[TypedExtensionConfig],
) -> Result<(Box<[Detection]>, bool), Errors> {
    let Fields { use_remote_address, xff_num_trusted_hops: hops, skip_xff_append } = of;
    if extensions.is_empty() {
        let detections: Box<[Detection]> = match (use_remote_address, hops) {
            // The edge itself trusts nobody.
            (true, 0) => Box::default(),
            (true, hops) => [Detection::ForwardedFor(hops - 1)].into(),
            (false, hops) => [Detection::ForwardedFor(hops)].into(),
        };
        return Ok((detections, use_remote_address && !skip_xff_append));
    }
    let mut errors = Errors::new();
    let compiled = errors.each("original_ip_detection_extensions", extensions, detection);
    for (is_set, field) in
        [(use_remote_address, "use_remote_address"), (hops > 0, "xff_num_trusted_hops")]
    {
        if is_set {
            let reason = "excludes original_ip_detection_extensions; set only one";
            errors.push(field, Fault::Conflict(reason.into()));
        }
    }
    errors.finish()?;
    let appends = compiled.iter().any(|(_, appends)| *appends);
    Ok((compiled.into_iter().map(|(detection, _)| detection).collect(), appends))
}

/// Addresses of clients that are within.
pub(super) fn internal(config: &InternalAddressConfig) -> Result<Box<[AddressRange]>, Errors> {
    let InternalAddressConfig { cidr_ranges } = config;
    let mut errors = Errors::new();
    let ranges = errors.each("cidr_ranges", cidr_ranges, AddressRange::compile);
    errors.finish()?;
    Ok(ranges.into())
}

/// Whether what a client says of certificates passes, where it showed none. TLS is terminated elsewhere, so that
/// is everywhere.
pub(super) fn forward_certificates(details: i32) -> Result<bool, Errors> {
    use http_connection_manager::ForwardClientCertDetails as Details;
    Ok(match fields::enumeration(details)? {
        Details::Sanitize
        | Details::ForwardOnly
        | Details::AppendForward
        | Details::SanitizeSet => false,
        Details::AlwaysForwardOnly => true,
    })
}

/// One detection, and whether it appends to `X-Forwarded-For`.
fn detection(extension: &TypedExtensionConfig) -> Result<(Detection, bool), Errors> {
    let undecodable = |error: UnpackError| Errors::from(Fault::Undecodable(error.to_string()));
    let TypedExtensionConfig { name: _, typed_config } = extension;
    let config = fields::required(typed_config.as_ref()).at("typed_config")?;
    let kind = effective_type(config).map_err(undecodable).at("typed_config")?;
    if kind == XffConfig::full_name() {
        let XffConfig { xff_num_trusted_hops, skip_xff_append } =
            unpack(config).map_err(undecodable).at("typed_config")?;
        let appends = !skip_xff_append.unwrap_or(true);
        return Ok((Detection::ForwardedFor(xff_num_trusted_hops), appends));
    }
    if kind == CustomHeaderConfig::full_name() {
        let message = unpack(config).map_err(undecodable).at("typed_config")?;
        return Ok((header(&message).at("typed_config")?, false));
    }
    Err(Errors::from(Fault::UnknownExtension(kind.into_owned())).at("typed_config"))
}

fn header(message: &CustomHeaderConfig) -> Result<Detection, Errors> {
    let CustomHeaderConfig { header_name: name, reject_with_status } = message;
    let name = header_name(name).at("header_name")?;
    let reject = reject_with_status.as_ref().map(|HttpStatus { code }| {
        // As Envoy: what is no error is 403.
        let code = u16::try_from(*code).ok().filter(|code| *code >= 400);
        code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::FORBIDDEN)
    });
    Ok(Detection::Header { name, reject })
}
