//! Answers of our own. Each constructor fixes status, flag, details and text together, so that the
//! four cannot disagree.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{Response, ResponseFlag, ResponseHead, StreamInfo, grpc};

/// Set when a circuit breaker refused the request.
pub const X_ENVOY_OVERLOADED: HeaderName = HeaderName::from_static("x-envoy-overloaded");

/// Set when a cluster sheds load.
pub const X_ENVOY_DROP_OVERLOAD: HeaderName = HeaderName::from_static("x-envoy-drop-overload");

/// Says an answer as gRPC does: the status in a trailer, which stands in the only head there is
/// (gRPC over HTTP/2, `Trailers-Only`).
fn speak_grpc(head: &mut ResponseHead, status: u16, text: &[u8]) {
    head.status = StatusCode::OK;
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    grpc::say_status(&mut head.headers, status, text);
}

/// What a client of gRPC is told whose deadline has passed.
const GRPC_DEADLINE_EXCEEDED: u16 = 4;

/// What a connection manager makes of answers of our own.
pub trait LocalReplyForm: Send + Sync + 'static {
    /// Changes an answer.
    fn apply(&self, head: &mut ResponseHead, body: &mut Bytes, stream: &mut StreamInfo);
}

/// An answer we give instead of an upstream.
#[derive(Debug, Clone)]
pub struct LocalReply {
    status: StatusCode,
    flag: Option<ResponseFlag>,
    details: &'static str,
    /// The status for clients of gRPC, if it is not the usual one.
    grpc_status: Option<u16>,
    body: Bytes,
    /// Boxed, since few have any and all are passed about.
    headers: Option<Box<HeaderMap>>,
}

impl LocalReply {
    /// An answer with a text of its own, such as a route's direct response.
    pub fn new(status: StatusCode, details: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, flag: None, details, grpc_status: None, body: body.into(), headers: None }
    }

    fn refusal(
        status: StatusCode,
        flag: ResponseFlag,
        details: &'static str,
        body: &'static str,
    ) -> Self {
        Self { flag: Some(flag), ..Self::new(status, details, Bytes::from_static(body.as_bytes())) }
    }

    /// 404 `NR`: no route matches.
    pub fn route_not_found() -> Self {
        Self::refusal(StatusCode::NOT_FOUND, ResponseFlag::NoRouteFound, "route_not_found", "")
    }

    /// `NC`: the route's cluster does not exist; 503 unless the route says otherwise.
    pub fn cluster_not_found(status: StatusCode) -> Self {
        Self::refusal(status, ResponseFlag::NoClusterFound, "cluster_not_found", "")
    }

    /// 503 `UH`: no host can take the request.
    pub fn no_healthy_upstream() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::NoHealthyUpstream,
            "no_healthy_upstream",
            "no healthy upstream",
        )
    }

    /// 503 `UO`: a circuit breaker is open.
    pub fn overflow() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::UpstreamOverflow,
            "upstream_reset_before_response_started{overflow}",
            "upstream connect error or disconnect/reset before headers. reset reason: overflow",
        )
        .with_header(X_ENVOY_OVERLOADED, HeaderValue::from_static("true"))
    }

    /// 503 `DO`: the cluster's endpoints came with a share of requests to drop.
    pub fn drop_overload() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::DropOverload,
            "drop_overload",
            "drop overload",
        )
        .with_header(X_ENVOY_DROP_OVERLOAD, HeaderValue::from_static("true"))
    }

    /// 503 `UF`: the connection could not be made.
    pub fn connect_failure() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{remote_connection_failure}",
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
        )
    }

    /// 503 `UF`: the connection was not made in time.
    pub fn connect_timeout() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::UpstreamConnectionFailure,
            "upstream_reset_before_response_started{connection_timeout}",
            "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
        )
    }

    /// 503 `UC`: the upstream closed the connection before it answered.
    pub fn connection_termination() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::UpstreamConnectionTermination,
            "upstream_reset_before_response_started{connection_termination}",
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
        )
    }

    /// 503 `UR`: the upstream reset the stream before it answered.
    pub fn remote_reset() -> Self {
        Self::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            ResponseFlag::UpstreamRemoteReset,
            "upstream_reset_before_response_started{remote_reset}",
            "upstream connect error or disconnect/reset before headers. reset reason: remote reset",
        )
    }

    /// 502 `UPE`: the upstream's answer broke the protocol.
    pub fn upstream_protocol_error() -> Self {
        Self::refusal(
            StatusCode::BAD_GATEWAY,
            ResponseFlag::UpstreamProtocolError,
            "upstream_reset_before_response_started{protocol_error}",
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
        )
    }

    /// 504 `UT`: the route's timeout passed.
    pub fn upstream_timeout() -> Self {
        Self::refusal(
            StatusCode::GATEWAY_TIMEOUT,
            ResponseFlag::UpstreamRequestTimeout,
            "response_timeout",
            "upstream request timeout",
        )
    }

    /// `DT`: the stream lived too long. 408 while the request was arriving, 504 afterwards.
    pub fn max_duration(request_complete: bool) -> Self {
        let status = match request_complete {
            true => StatusCode::GATEWAY_TIMEOUT,
            false => StatusCode::REQUEST_TIMEOUT,
        };
        let text = "downstream duration timeout";
        Self::refusal(status, ResponseFlag::DurationTimeout, "max_duration_timeout", text)
            .with_grpc_status(GRPC_DEADLINE_EXCEEDED)
    }

    /// 504 `UT`: the timeout of a single try passed, and there is not to be another.
    pub fn per_try_timeout() -> Self {
        Self { details: "upstream_per_try_timeout", ..Self::upstream_timeout() }
    }

    /// 504 `UT`: nothing came of the try for too long.
    pub fn per_try_idle_timeout() -> Self {
        Self { details: "upstream_per_try_idle_timeout", ..Self::upstream_timeout() }
    }

    /// 408: the request did not arrive in time.
    pub fn request_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_overall_timeout", "request timeout")
    }

    /// 408: the head of the request did not arrive in time.
    pub fn request_header_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_header_timeout", "request timeout")
    }

    /// `SI`: nothing moved for too long. 408 while the request was arriving, 504 afterwards.
    pub fn stream_idle_timeout(request_complete: bool) -> Self {
        let status = match request_complete {
            true => StatusCode::GATEWAY_TIMEOUT,
            false => StatusCode::REQUEST_TIMEOUT,
        };
        Self::refusal(
            status,
            ResponseFlag::StreamIdleTimeout,
            "stream_idle_timeout",
            "stream timeout",
        )
    }

    /// 403: the request may not change to the protocol it asks for.
    pub fn upgrade_failed() -> Self {
        Self::new(StatusCode::FORBIDDEN, "upgrade_failed", "")
    }

    /// 413: the request's body is too large for a filter that must hold it.
    pub fn payload_too_large() -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_payload_too_large", "Payload Too Large")
    }

    /// 500 `NFCF`: a filter whose configuration is discovered has none. Envoy gives no details.
    pub fn filter_config_not_found() -> Self {
        Self::refusal(StatusCode::INTERNAL_SERVER_ERROR, ResponseFlag::NoFilterConfigFound, "", "")
    }

    /// 400: the request cannot be served as it is.
    pub fn bad_request(details: &'static str) -> Self {
        Self::refusal(
            StatusCode::BAD_REQUEST,
            ResponseFlag::DownstreamProtocolError,
            details,
            "Bad Request",
        )
    }

    /// The status it answers with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Answers with another status, and without a text.
    #[must_use]
    pub fn with_bare_status(self, status: StatusCode) -> Self {
        Self { status, body: Bytes::new(), ..self }
    }

    /// Sets what clients of gRPC are told.
    #[must_use]
    pub fn with_grpc_status(self, status: u16) -> Self {
        Self { grpc_status: Some(status), ..self }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.get_or_insert_default().append(name, value);
        self
    }

    /// The answer as a response that passes outward through the filters like any other, in the form that
    /// the connection manager gives to answers of our own.
    pub fn into_response(self, mut stream: Box<StreamInfo>) -> Response {
        if let Some(flag) = self.flag {
            stream.flags.set(flag);
        }
        stream.details = self.details;
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = self.status;
        if let Some(headers) = self.headers {
            head.headers = *headers;
        }
        let mut body = self.body;
        if !body.is_empty() && !head.headers.contains_key(CONTENT_TYPE) {
            head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if let Some(form) = stream.local_replies.clone() {
            form.apply(&mut head, &mut body, &mut stream);
        }
        if stream.is_grpc {
            let status = self.grpc_status.unwrap_or_else(|| grpc::status_of(head.status));
            speak_grpc(&mut head, status, &std::mem::take(&mut body));
        }
        if !body.is_empty() {
            head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Response { head, body: body.into(), stream }
    }
}
