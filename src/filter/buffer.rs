//! `envoy.filters.http.buffer`: holds a request until all of its body is here, so that a slow client
//! does not tie up an upstream, and gives it a `Content-Length`.

use std::any::Any as StdAny;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;

use super::registry::{OverrideRegistration, Registration};
use super::{Filter, FilterFactory, Stage, WorkerContext, route_config};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::{
    Body, BodyError, HttpService, LocalReply, Request, Response, ResponseFlag, StreamReset,
};
use crate::proto::any::unpack;
use crate::proto::envoy::extensions::filters::http::buffer::v3 as proto;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.buffer.v3.Buffer",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(Buffer { name: Arc::clone(&cx.name), limit: compile(&message)? }))
    },
};

pub(super) const OVERRIDE: OverrideRegistration = OverrideRegistration {
    config_type: "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
    compile: |config| {
        use proto::buffer_per_route::Override;
        let proto::BufferPerRoute { r#override } =
            unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        let compiled = match r#override {
            Some(Override::Disabled(true)) => RouteBuffer::Disabled,
            Some(Override::Disabled(false)) => {
                return Err(Errors::from(Fault::out_of_range("false", "true")).at("disabled"));
            }
            Some(Override::Buffer(message)) => RouteBuffer::Limit(compile(&message).at("buffer")?),
            None => return Err(Errors::from(Fault::Required).at("override")),
        };
        Ok(Arc::new(compiled) as Arc<dyn StdAny + Send + Sync>)
    },
};

#[derive(Debug, Clone)]
struct Buffer {
    /// By which routes refer to it.
    name: Arc<str>,
    /// Bytes.
    limit: u32,
}

#[derive(Debug)]
enum RouteBuffer {
    Disabled,
    Limit(u32),
}

fn compile(message: &proto::Buffer) -> Result<u32, Errors> {
    let proto::Buffer { max_request_bytes } = message;
    let limit = fields::required(*max_request_bytes).at("max_request_bytes")?;
    fields::in_range(limit, 1..=u32::MAX).at("max_request_bytes")
}

impl FilterFactory for Buffer {
    fn stage(&self, _: &WorkerContext) -> Stage {
        Stage::layer(self.clone())
    }
}

impl Filter for Buffer {
    async fn call(&self, request: Request, next: &HttpService) -> Result<Response, StreamReset> {
        let route = route_config::<RouteBuffer>(&request.stream, &self.name);
        let limit = match route.as_deref() {
            Some(RouteBuffer::Disabled) => return next.send(request).await,
            Some(RouteBuffer::Limit(limit)) => *limit,
            None => self.limit,
        };
        if http_body::Body::is_end_stream(&request.body) || request.stream.upgrade.is_some() {
            return next.send(request).await;
        }
        let Request { mut head, body, mut stream } = request;
        match collect(body, limit as usize).await {
            Ok(Collected::Whole { bytes, trailers }) => {
                if trailers.is_none() {
                    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
                }
                let body = match trailers {
                    None => Body::from(bytes),
                    Some(trailers) => Body::boxed(
                        http_body_util::Full::new(bytes)
                            .map_err(|never| match never {})
                            .with_trailers(async move { Some(Ok(trailers)) }),
                    ),
                };
                next.send(Request { head, body, stream }).await
            }
            Ok(Collected::TooLarge) => Ok(LocalReply::payload_too_large().into_response(stream)),
            Err(BodyError::Timeout) => {
                Ok(LocalReply::stream_idle_timeout(false).into_response(stream))
            }
            Err(BodyError::Late) => Ok(LocalReply::request_timeout().into_response(stream)),
            Err(BodyError::TooLarge { .. }) => {
                Ok(LocalReply::payload_too_large().into_response(stream))
            }
            Err(BodyError::Coding(error)) => {
                let reply = match error.is_too_large() {
                    true => LocalReply::payload_too_large(),
                    false => LocalReply::bad_request(BodyError::UNDECODABLE),
                };
                Ok(reply.into_response(stream))
            }
            Err(BodyError::Base64) => {
                Ok(LocalReply::bad_request(BodyError::UNDECODABLE).into_response(stream))
            }
            Err(
                BodyError::Connection(_)
                | BodyError::Io(_)
                | BodyError::Malformed(_)
                | BodyError::Shared,
            ) => {
                // The client left or broke the protocol: nobody is there to be answered.
                stream.flags.set(ResponseFlag::DownstreamConnectionTermination);
                stream.details = "downstream_remote_disconnect";
                Err(StreamReset::new(stream))
            }
        }
    }
}

enum Collected {
    Whole { bytes: Bytes, trailers: Option<http::HeaderMap> },
    TooLarge,
}

async fn collect(mut body: Body, limit: usize) -> Result<Collected, BodyError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => {
                if first.len().max(all.len()) + data.len() > limit {
                    return Ok(Collected::TooLarge);
                }
                if first.is_empty() && all.is_empty() {
                    first = data;
                } else {
                    if all.is_empty() {
                        all.extend_from_slice(&first);
                    }
                    all.extend_from_slice(&data);
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let bytes = if all.is_empty() { first } else { all.freeze() };
    Ok(Collected::Whole { bytes, trailers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_held_up_to_the_limit() {
        let chunks = |n: usize| {
            let frames = (0..n).map(|_| Ok(http_body::Frame::data(Bytes::from_static(b"1234"))));
            Body::boxed(http_body_util::StreamBody::new(futures_util::stream::iter(frames)))
        };
        for (n, limit, whole) in [(1, 4, true), (3, 12, true), (3, 11, false), (1, 3, false)] {
            match collect(chunks(n), limit).await.unwrap() {
                Collected::Whole { bytes, .. } => assert!(whole && bytes.len() == n * 4),
                Collected::TooLarge => assert!(!whole, "{n} chunks, limit {limit}"),
            }
        }
    }
}
