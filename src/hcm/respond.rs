//! Late header work on a response, and the step to the form that codecs send.

use std::sync::Arc;

use http::header::{CONNECTION, SERVER, VIA};
use http::{HeaderValue, StatusCode, Version};

use super::HcmConfig;
use super::compile::ServerHeaderTransformation;
use super::exchange::{Facts, InFlight, TrackedBody};
use crate::exchange::headers::X_REQUEST_ID;
use crate::exchange::{Body, RequestHead, Response};

/// The request's id, if the response shall carry it.
pub(super) fn request_id(config: &HcmConfig, head: &RequestHead) -> Option<HeaderValue> {
    match config.always_set_request_id_in_response {
        true => head.headers.get(X_REQUEST_ID).cloned(),
        false => None,
    }
}

/// Makes the response that a codec sends.
pub(super) fn finish(
    in_flight: InFlight,
    facts: Facts,
    response: Response,
    request_id: Option<HeaderValue>,
) -> http::Response<TrackedBody> {
    let handle = Arc::clone(&in_flight.handle);
    let config = &handle.hcm.config;
    let Response { mut head, body, mut stream } = response;
    head.version = facts.version;
    let headers = &mut head.headers;
    match config.server.transformation {
        ServerHeaderTransformation::Overwrite => {
            headers.insert(SERVER, config.server.name.clone());
        }
        ServerHeaderTransformation::AppendIfAbsent => {
            headers.entry(SERVER).or_insert_with(|| config.server.name.clone());
        }
        ServerHeaderTransformation::PassThrough => {}
    }
    if let Some(via) = &config.via {
        headers.append(VIA, via.clone());
    }
    if let Some(id) = request_id {
        headers.insert(X_REQUEST_ID, id);
    }
    if handle.wants_close(facts.number) {
        match facts.version {
            Version::HTTP_2 => handle.connection.close_gracefully(),
            _ => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
    }
    if let Some(status) = &config.proxy_status {
        status.apply(&mut head, &stream);
    }
    config.stats.count_response(head.status);
    stream.status = Some(head.status);
    if config.access_logs.needs_response_headers() {
        stream.response_headers = Some(Box::new(head.headers.clone()));
    }
    let bodyless =
        facts.is_head || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if bodyless { Body::Empty } else { body };
    http::Response::from_parts(head, TrackedBody::new(body, stream, in_flight))
}
