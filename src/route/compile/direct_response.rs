//! `config.route.v3.DirectResponseAction` to [`DirectResponse`].

use std::io::Read;

use bytes::Bytes;
use http::StatusCode;

use super::Shared;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::direct_response::DirectResponse;
use crate::telemetry::access_log::compile::compile_body;

/// Compiles an answer; a body from a file is read now.
pub(super) fn compile(
    action: &proto::DirectResponseAction,
    shared: &Shared<'_>,
) -> Result<DirectResponse, Errors> {
    let proto::DirectResponseAction { status, body, body_format } = action;
    let mut errors = Errors::new();
    let status = errors.take(fields::in_range(*status, 200..=599).at("status"));
    let status = status.and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let body = match body {
        None => Some(Bytes::new()),
        Some(body) => errors
            .take(response_body(body, shared.rules.max_direct_response_body_size_bytes).at("body")),
    };
    let form = body_format.as_ref().map(compile_body).transpose().at("body_format");
    let form = errors.take(form).flatten().map(Box::new);
    match (status, body) {
        (Some(status), Some(body)) if errors.is_empty() => {
            Ok(DirectResponse { status, body, form })
        }
        _ => Err(errors),
    }
}

fn response_body(source: &core::DataSource, limit: u32) -> Result<Bytes, Errors> {
    let body = match &source.specifier {
        Some(core::data_source::Specifier::Filename(name)) => {
            beginning_of_file(name, limit).at("filename")?
        }
        _ => fields::data_source(source)?,
    };
    if u64::try_from(body.len()).is_ok_and(|length| length <= u64::from(limit)) {
        return Ok(body.into());
    }
    let reason = "larger than max_direct_response_body_size_bytes allows";
    Err(Fault::invalid(format!("a body of more than {limit} bytes"), reason).into())
}

/// A file up to one byte more than `limit`, so that no file is read that is too large to keep.
fn beginning_of_file(name: &str, limit: u32) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    std::fs::File::open(name)
        .and_then(|file| file.take(u64::from(limit) + 1).read_to_end(&mut body))
        .map(|_length| body)
        .map_err(|error| Fault::System {
            action: format!("reading {name:?}"),
            reason: error.to_string(),
        })
}
