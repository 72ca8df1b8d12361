//! Checks by a call of the standard service: `config.core.v3.HealthCheck.GrpcHealthCheck`,
//! `grpc.health.v1.Health/Check`.

use ::http::header::{CONTENT_TYPE, HOST, TE};
use ::http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use prost::Message;

use super::http::{ask_http2, http2};
use super::{Asked, Kept, Verdict};

const PATH: &str = "/grpc.health.v1.Health/Check";

/// Bytes of an answer, which is a number.
const MOST_BODY: usize = 4 * 1024;

/// A service, and how it is called.
#[derive(Debug, Clone, Default)]
pub struct GrpcCheck {
    /// The service that is asked about; empty is the whole server.
    pub service_name: String,
    /// The authority; the cluster's name unless set. An endpoint's own goes before.
    pub authority: Option<HeaderValue>,
    /// Other headers.
    pub initial_metadata: HeaderMap,
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    /// 1 is SERVING.
    #[prost(int32, tag = "1")]
    status: i32,
}

impl GrpcCheck {
    pub(super) async fn run(&self, asked: &Asked<'_>, kept: &mut Kept) -> Verdict {
        let lost = Verdict::Lost { timeout: false };
        let Some(authority) = asked.authority(self.authority.as_ref()) else { return lost };
        let Some(mut connection) = http2(asked, kept).await else { return lost };
        let request = self.request(authority);
        let Some(response) = ask_http2(&mut connection, request).await else { return lost };
        let (head, body) = response.into_parts();
        let Ok(body) = Limited::new(body, MOST_BODY).collect().await else { return lost };
        // Without a message the status stands among the headers.
        let trailers = body.trailers().cloned().unwrap_or(head.headers);
        let well = head.status == ::http::StatusCode::OK
            && trailers.get("grpc-status").is_some_and(|status| status == "0")
            && is_serving(&body.to_bytes());
        kept.http2 = Some(connection);
        if well { Verdict::Success { degraded: false } } else { Verdict::Bad }
    }

    fn request(&self, authority: HeaderValue) -> Request<Full<Bytes>> {
        let message = HealthCheckRequest { service: self.service_name.clone() }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let body = [&[0][..], &length.to_be_bytes(), &message].concat();
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(PATH);
        *request.headers_mut() = self.initial_metadata.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, authority);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        request
    }
}

/// Whether a body is one message, not compressed, that says so.
fn is_serving(body: &[u8]) -> bool {
    let Some((prefix, message)) = body.split_at_checked(5) else { return false };
    prefix[0] == 0 && HealthCheckResponse::decode(message).is_ok_and(|answer| answer.status == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_that_says_so_is_serving() {
        assert!(is_serving(&[0, 0, 0, 0, 2, 8, 1]));
        for body in [&[][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 2, 8, 2], &[1, 0, 0, 0, 2, 8, 1]] {
            assert!(!is_serving(body), "{body:?}");
        }
    }
}
