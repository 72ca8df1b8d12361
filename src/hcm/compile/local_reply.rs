//! `LocalReplyConfig` to [`LocalReplies`].

use bytes::Bytes;
use http::StatusCode;

use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::hcm::local_reply::{LocalReplies, Mapper};
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use crate::route::response_additions;
use crate::telemetry::access_log::compile::{compile_body, compile_filter};

pub(super) fn compile(
    config: &proto::LocalReplyConfig,
    runtime: &Runtime,
) -> Result<LocalReplies, Errors> {
    let proto::LocalReplyConfig { mappers, body_format } = config;
    let mut errors = Errors::new();
    let compiled = errors.each("mappers", mappers, |mapper| compile_mapper(mapper, runtime));
    let body =
        body_format.as_ref().map(|format| errors.take(compile_body(format).at("body_format")));
    errors.finish()?;
    Ok(LocalReplies { mappers: compiled.into(), body: body.flatten() })
}

fn compile_mapper(mapper: &proto::ResponseMapper, runtime: &Runtime) -> Result<Mapper, Errors> {
    let proto::ResponseMapper { filter, status_code, body, body_format_override, headers_to_add } =
        mapper;
    let mut errors = Errors::new();
    let filter = fields::required(filter.as_ref());
    let filter = filter.and_then(|filter| compile_filter(filter, runtime));
    let filter = errors.take(filter.at("filter"));
    let status = status_code.map(|code| errors.take(status(code).at("status_code")));
    let text = body.as_ref().map(|text| errors.take(fields::data_source(text).at("body")));
    let body = body_format_override.as_ref();
    let body = body.map(|format| errors.take(compile_body(format).at("body_format_override")));
    let headers = errors.take(response_additions(headers_to_add).at("headers_to_add"));
    match (filter, headers) {
        (Some(filter), Some(headers)) if errors.is_empty() => Ok(Mapper {
            filter,
            status: status.flatten(),
            text: text.flatten().map(Bytes::from),
            body: body.flatten(),
            headers,
        }),
        _ => Err(errors),
    }
}

fn status(code: u32) -> Result<StatusCode, Errors> {
    let code = fields::in_range(code, 200..=599)?;
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    status.ok_or_else(|| Fault::out_of_range(code, "a status").into())
}
