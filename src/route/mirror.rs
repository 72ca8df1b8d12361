//! Copies of a request that go elsewhere too: `RouteAction.request_mirror_policies`.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::HOST;

use super::action::ClusterSource;
use super::headers::Mutations;
use super::host;
use super::host_rewrite::HostValue;
use crate::config::runtime::Fraction;
use crate::exchange::{RequestHead, StreamInfo};

/// Where one copy goes, and of which requests.
#[derive(Debug)]
pub struct Mirror {
    pub(super) cluster: ClusterSource,
    pub(super) share: Fraction,
    pub(super) host: MirrorHost,
    pub(super) mutations: Option<Arc<Mutations>>,
}

/// Which host a copy asks for.
#[derive(Debug)]
pub(super) enum MirrorHost {
    /// That of the request.
    Keep,
    /// The same with `-shadow` after its name, so that logs tell the two apart.
    Shadow,
    Literal(Box<HostValue>),
}

impl Mirror {
    /// Whether a request is copied; `random` is the request's own, uniform over all `u64`.
    pub fn admits(&self, random: u64) -> bool {
        self.share.admits(random)
    }

    /// The name of the cluster, as [`Forward::choose_cluster`](super::Forward::choose_cluster).
    pub fn choose_cluster(&self, head: &RequestHead) -> Option<Arc<str>> {
        self.cluster.choose(head)
    }

    /// The head of the copy of a request that is on its way upstream.
    pub fn copy(&self, head: &RequestHead, stream: &mut StreamInfo) -> RequestHead {
        let mut copy = head.clone();
        // A client's way to learn of interim responses is not for the copy's.
        copy.extensions.clear();
        let host = match &self.host {
            MirrorHost::Keep => None,
            MirrorHost::Shadow => shadow(host::authority(head)),
            MirrorHost::Literal(host) => Some(host.header().clone()),
        };
        if let Some(host) = host {
            copy.headers.insert(HOST, host);
        }
        if let Some(mutations) = &self.mutations {
            mutations.apply_to_request(&mut copy, stream);
        }
        copy
    }
}

/// The host with `-shadow` in front of its port.
fn shadow(host: &[u8]) -> Option<HeaderValue> {
    if host.is_empty() {
        return None;
    }
    let (name, port) = host.split_at(host::port_start(host).unwrap_or(host.len()));
    HeaderValue::from_maybe_shared(Bytes::from([name, b"-shadow", port].concat())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shadow_keeps_its_port() {
        let cases = [
            ("a.test", Some("a.test-shadow")),
            ("a.test:80", Some("a.test-shadow:80")),
            ("[::1]:80", Some("[::1]-shadow:80")),
            ("[::1]", Some("[::1]-shadow")),
            ("", None),
        ];
        for (host, expected) in cases {
            let found = shadow(host.as_bytes());
            assert_eq!(found.as_ref().map(|host| host.to_str().unwrap()), expected);
        }
    }
}
