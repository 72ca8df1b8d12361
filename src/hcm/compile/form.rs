//! In what form paths and authorities go on.

use crate::config::{Errors, Fault, fields};
use crate::exchange::path::EscapedSlashes;
use crate::hcm::sane::StripPort;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as proto;

/// `path_with_escaped_slashes_action`
pub(super) fn escaped_slashes(action: i32) -> Result<EscapedSlashes, Errors> {
    use proto::PathWithEscapedSlashesAction as Action;
    Ok(match fields::enumeration(action)? {
        Action::ImplementationSpecificDefault | Action::KeepUnchanged => EscapedSlashes::Keep,
        Action::RejectRequest => EscapedSlashes::Reject,
        Action::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Action::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

/// `strip_matching_host_port` and `strip_port_mode`.
pub(super) fn strip_port(
    matching: bool,
    mode: Option<proto::StripPortMode>,
) -> Result<StripPort, Errors> {
    use proto::StripPortMode::StripAnyHostPort;
    match (matching, mode) {
        (true, Some(StripAnyHostPort(true))) => {
            let fault = Fault::invalid("true", "strip_matching_host_port is set as well");
            Err(Errors::from(fault).at("strip_any_host_port"))
        }
        (true, _) => Ok(StripPort::Matching),
        (false, Some(StripAnyHostPort(true))) => Ok(StripPort::Any),
        (false, _) => Ok(StripPort::Never),
    }
}
