//! `envoy.filters.http.grpc_web`: lets browsers, which see neither HTTP/2 frames nor trailers, call services
//! of gRPC.
//!
//! A request of gRPC-Web goes on as one of gRPC. Its response comes back with the trailers as the last
//! message of the body. Both may be in base64, which is decoded and encoded as it passes. What is not
//! gRPC-Web passes unchanged.
//!
//! Differs: there are no counters by service and method, whose names would be for clients to choose.

mod body;
mod text;

use std::sync::Arc;

use bytes::BytesMut;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::BodyExt as _;

use self::body::{Decoded, Framed};
use super::head::essence;
use super::registry::Registration;
use super::{Filter, FilterFactory, Stage, WorkerContext};
use crate::config::Fault;
use crate::exchange::grpc;
use crate::exchange::headers::is_grpc;
use crate::exchange::{Body, BodyError, HttpService, Request, Response, ResponseHead, StreamReset};
use crate::proto::any::unpack;
use crate::proto::envoy::extensions::filters::http::grpc_web::v3 as proto;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    terminal: false,
    compile: |config, _| {
        let proto::GrpcWeb {} = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(GrpcWeb))
    },
};

/// How much of an answer that is no gRPC is told as its message, in bytes.
const MAX_MESSAGE: usize = 16_384;

const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
const BINARY: [&[u8]; 2] = [b"application/grpc-web", b"application/grpc-web+proto"];
const TEXT: [&[u8]; 2] = [b"application/grpc-web-text", b"application/grpc-web-text+proto"];

#[derive(Debug, Clone)]
struct GrpcWeb;

impl FilterFactory for GrpcWeb {
    fn stage(&self, _: &WorkerContext) -> Stage {
        Stage::layer(self.clone())
    }
}

impl Filter for GrpcWeb {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let headers = &request.head.headers;
        let sends_text = has(headers, &CONTENT_TYPE, TEXT);
        if !sends_text && !has(headers, &CONTENT_TYPE, BINARY) {
            return next.send(request).await;
        }
        let wants_text = has(headers, &ACCEPT, TEXT);
        speak_grpc(&mut request.head.headers);
        if sends_text && !http_body::Body::is_end_stream(&request.body) {
            request.body = Body::boxed(Decoded::new(request.body));
        }
        let response = next.send(request).await?;
        bridge(response, wants_text).await
    }
}

/// Whether a header is one of two values, to the letter.
fn has(headers: &HeaderMap, name: &HeaderName, one_of: [&[u8]; 2]) -> bool {
    headers.get(name).is_some_and(|value| one_of.contains(&value.as_bytes()))
}

fn speak_grpc(headers: &mut HeaderMap) {
    // It is of the text, or of a body whose length gRPC does not say.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.entry(GRPC_ACCEPT_ENCODING).or_insert(HeaderValue::from_static("identity"));
}

/// Brings an answer into the form of gRPC-Web.
async fn bridge(response: Response, as_text: bool) -> Result<Response, StreamReset> {
    let Response { mut head, body, stream } = response;
    let is_bodyless = http_body::Body::is_end_stream(&body);
    let is_foreign = !is_grpc_answer(&head);
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(match as_text {
            true => "application/grpc-web-text+proto",
            false => "application/grpc-web+proto",
        }),
    );
    if is_bodyless {
        // Trailers that are the only head there is are read there.
        return Ok(Response { head, body, stream });
    }
    if !is_foreign {
        let body = Body::boxed(Framed::new(body, as_text));
        return Ok(Response { head, body, stream });
    }
    let Ok(message) = begin_of(body).await else { return Err(StreamReset::new(stream)) };
    grpc::say_status(&mut head.headers, grpc::status_of(head.status), &message);
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(Response { head, body: Body::Empty, stream })
}

/// Whether an answer with a body is gRPC's, or in the form of gRPC-Web already.
fn is_grpc_answer(head: &ResponseHead) -> bool {
    let essence = essence(&head.headers);
    head.status == StatusCode::OK
        && (is_grpc(&head.headers) || BINARY.iter().any(|kind| essence.eq_ignore_ascii_case(kind)))
}

async fn begin_of(mut body: Body) -> Result<BytesMut, BodyError> {
    let mut begin = BytesMut::new();
    while begin.len() < MAX_MESSAGE
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            begin.extend_from_slice(&data[..data.len().min(MAX_MESSAGE - begin.len())]);
        }
    }
    Ok(begin)
}
