//! `Proxy-Status` (RFC 9209): what went wrong, where it was us who answered or broke off.

use http::{HeaderName, HeaderValue, StatusCode};

use crate::exchange::{ResponseFlag, ResponseHead, StreamInfo};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// A compiled `ProxyStatusConfig`.
#[derive(Debug)]
pub struct ProxyStatus {
    /// What we call ourselves.
    pub(super) name: Box<str>,
    /// Say why, in words.
    pub(super) details: bool,
    /// Say response flags among them.
    pub(super) flags: bool,
    /// Answer with the status that RFC 9209 recommends.
    pub(super) recommended_status: bool,
}

/// A type of error, and the status recommended for it (RFC 9209 section 2.3).
type Kind = (&'static str, Option<StatusCode>);

const CONNECTION_TIMEOUT: Kind = ("connection_timeout", Some(StatusCode::GATEWAY_TIMEOUT));

/// The first that an exchange has tells what went wrong. Others only tell how.
const KINDS: [(ResponseFlag, Kind); 17] = {
    use ResponseFlag as Flag;
    const UNAVAILABLE: Kind = ("destination_unavailable", Some(StatusCode::SERVICE_UNAVAILABLE));
    const LATE: Kind = ("http_response_timeout", Some(StatusCode::GATEWAY_TIMEOUT));
    const TERMINATED: Kind = ("connection_terminated", Some(StatusCode::BAD_GATEWAY));
    const LIMIT: Kind = ("connection_limit_reached", Some(StatusCode::SERVICE_UNAVAILABLE));
    [
        (Flag::NoHealthyUpstream, UNAVAILABLE),
        (Flag::UpstreamRequestTimeout, LATE),
        (Flag::LocalReset, CONNECTION_TIMEOUT),
        (Flag::UpstreamRemoteReset, TERMINATED),
        (Flag::UpstreamConnectionFailure, ("connection_refused", Some(StatusCode::BAD_GATEWAY))),
        (Flag::UpstreamConnectionTermination, TERMINATED),
        (Flag::UpstreamOverflow, LIMIT),
        (Flag::NoRouteFound, ("destination_not_found", Some(StatusCode::INTERNAL_SERVER_ERROR))),
        (Flag::RateLimited, LIMIT),
        (Flag::DropOverload, LIMIT),
        (Flag::NoClusterFound, UNAVAILABLE),
        (Flag::UpstreamRetryLimitExceeded, UNAVAILABLE),
        (Flag::StreamIdleTimeout, LATE),
        (Flag::DurationTimeout, LATE),
        (Flag::DownstreamProtocolError, ("http_request_error", None)),
        (
            Flag::NoFilterConfigFound,
            ("proxy_configuration_error", Some(StatusCode::INTERNAL_SERVER_ERROR)),
        ),
        (Flag::UpstreamProtocolError, ("http_protocol_error", Some(StatusCode::BAD_GATEWAY))),
    ]
};

impl ProxyStatus {
    /// Says what went wrong, if something did.
    pub(super) fn apply(&self, head: &mut ResponseHead, stream: &StreamInfo) {
        let Some((error, status)) = kind(stream) else { return };
        if let Ok(value) = HeaderValue::from_str(&self.text(error, stream)) {
            head.headers.append(PROXY_STATUS, value);
        }
        // An answer of gRPC is 200, whatever it says.
        if let Some(status) = status.filter(|_| self.recommended_status && !stream.is_grpc) {
            head.status = status;
        }
    }

    fn text(&self, error: &str, stream: &StreamInfo) -> String {
        let mut text = format!("{}; error={error}", self.name);
        if self.details {
            let flags = if self.flags { stream.flags.to_string() } else { String::new() };
            let said = [stream.details, &flags].into_iter().filter(|part| !part.is_empty());
            let said = said.collect::<Vec<_>>().join("; ");
            if !said.is_empty() {
                text.push_str("; details=\"");
                text.push_str(&said.replace('\\', "\\\\").replace('"', "\\\""));
                text.push('"');
            }
        }
        text
    }
}

fn kind(stream: &StreamInfo) -> Option<Kind> {
    if stream.flags.is_empty() {
        return None;
    }
    let (flag, kind) = *KINDS.iter().find(|(flag, _)| stream.flags.has(*flag))?;
    // One flag stands for two ways in which a connection does not come about.
    let is_timeout = flag == ResponseFlag::UpstreamConnectionFailure
        && stream.details.contains("connection_timeout");
    Some(if is_timeout { CONNECTION_TIMEOUT } else { kind })
}
