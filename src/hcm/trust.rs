//! How far a client is trusted: which of its headers stay, and what is said of it in headers of our own.

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::HcmConfig;
use super::client::Detection;
use super::sane::Seen;
use crate::exchange::StreamInfo;
use crate::exchange::headers::{X_ENVOY_EXTERNAL_ADDRESS, X_FORWARDED_FOR, X_FORWARDED_PROTO};

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
pub(super) const X_FORWARDED_CLIENT_CERT: HeaderName =
    HeaderName::from_static("x-forwarded-client-cert");
const X_ENVOY_INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const SERVICE_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
const SERVICE_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// From within, as `internal_address_config` says: it may say anything.
    Internal,
    /// From outside, through a proxy of ours.
    Between,
    /// From outside, straight to us.
    Edge,
}

/// What only those within may say.
const INTERNAL_ONLY: [&str; 15] = [
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-hedge-on-per-try-timeout",
    "x-envoy-internal",
    "x-envoy-ip-tags",
    "x-envoy-max-retries",
    "x-envoy-original-url",
    "x-envoy-retriable-header-names",
    "x-envoy-retriable-status-codes",
    "x-envoy-retry-grpc-on",
    "x-envoy-retry-on",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-rq-timeout-ms",
];

/// What proxies of ours may say as well.
const NOT_AT_THE_EDGE: [&str; 5] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-host",
    "x-envoy-original-path",
];

/// Who we are to the services behind us: `add_user_agent`.
#[derive(Debug)]
pub struct UserAgent {
    /// `node.cluster`
    pub cluster: HeaderValue,
    /// `node.id`
    pub node: Option<HeaderValue>,
}

/// Removes what the client may not say, and says what is known of it.
pub(super) fn say(
    headers: &mut HeaderMap,
    seen: &Seen,
    config: &HcmConfig,
    stream: &mut StreamInfo,
) -> Trust {
    let trust = trust(headers, config, stream);
    stream.is_internal = trust == Trust::Internal;
    if config.append_forwarded_for {
        append_forwarded_for(headers, &stream.downstream.remote_ip);
    }
    // Behind trusted proxies the first of them knows scheme and port; at the edge nobody does but us.
    let is_first = config.use_remote_address && config.xff_num_trusted_hops == 0;
    if let Some(scheme) = &config.scheme {
        headers.insert(X_FORWARDED_PROTO, scheme.clone());
    } else if is_first || !seen.forwarded_proto {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if config.append_forwarded_port && (is_first || !headers.contains_key(X_FORWARDED_PORT)) {
        headers.insert(X_FORWARDED_PORT, HeaderValue::from(stream.downstream.local.port()));
    }
    if seen.envoy && trust != Trust::Internal {
        remove(headers, &INTERNAL_ONLY);
        if trust == Trust::Edge {
            remove(headers, &NOT_AT_THE_EDGE);
        }
    }
    match trust {
        Trust::Internal => {
            headers.insert(X_ENVOY_INTERNAL, HeaderValue::from_static("true"));
        }
        Trust::Between => {}
        Trust::Edge => {
            headers.insert(X_ENVOY_EXTERNAL_ADDRESS, stream.remote_ip().clone());
        }
    }
    if seen.client_cert && !config.forward_client_cert {
        headers.remove(X_FORWARDED_CLIENT_CERT);
    }
    if let Some(agent) = &config.user_agent {
        present(agent, headers);
    }
    trust
}

fn remove(headers: &mut HeaderMap, names: &[&str]) {
    names.iter().for_each(|name| {
        headers.remove(*name);
    });
}

fn trust(headers: &HeaderMap, config: &HcmConfig, stream: &StreamInfo) -> Trust {
    let is_internal = is_alone(headers, config, stream) && {
        let address = stream.remote().ip();
        config.internal_addresses.iter().any(|range| range.holds(address))
    };
    match (is_internal, config.use_remote_address) {
        (true, _) => Trust::Internal,
        (false, true) => Trust::Edge,
        (false, false) => Trust::Between,
    }
}

/// Whether nobody spoke for the client but whom we trust: then its address can say that it is within.
fn is_alone(headers: &HeaderMap, config: &HcmConfig, stream: &StreamInfo) -> bool {
    if config.internal_addresses.is_empty() {
        return false;
    }
    let mut chain = headers.get_all(X_FORWARDED_FOR).iter();
    match (config.use_remote_address, chain.next(), chain.next()) {
        (true, first, _) => first.is_none(),
        (false, Some(only), None) => {
            // A header of the client's own is not to be trusted so far.
            let in_chain = |detection: &Detection| matches!(detection, Detection::ForwardedFor(_));
            config.detections.iter().all(in_chain)
                && stream.client.is_some()
                && !only.as_bytes().contains(&b',')
        }
        (false, ..) => false,
    }
}

fn present(agent: &UserAgent, headers: &mut HeaderMap) {
    if headers.get(USER_AGENT).is_none_or(HeaderValue::is_empty) {
        headers.insert(USER_AGENT, agent.cluster.clone());
    }
    headers.insert(SERVICE_CLUSTER, agent.cluster.clone());
    if let Some(node) = &agent.node {
        headers.insert(SERVICE_NODE, node.clone());
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, remote: &HeaderValue) {
    let appended = headers.get(X_FORWARDED_FOR).map(|list| {
        let mut text = Vec::with_capacity(list.len() + 1 + remote.len());
        text.extend_from_slice(list.as_bytes());
        text.push(b',');
        text.extend_from_slice(remote.as_bytes());
        HeaderValue::from_maybe_shared(Bytes::from(text))
    });
    match appended {
        None => headers.insert(X_FORWARDED_FOR, remote.clone()),
        Some(Ok(value)) => headers.insert(X_FORWARDED_FOR, value),
        Some(Err(_)) => None,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_is_appended_to_the_chain_of_clients() {
        let mut headers = HeaderMap::new();
        let remote = HeaderValue::from_static("10.0.0.1");
        append_forwarded_for(&mut headers, &remote);
        append_forwarded_for(&mut headers, &remote);
        assert_eq!(headers[X_FORWARDED_FOR], "10.0.0.1,10.0.0.1");
    }
}
