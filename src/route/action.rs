//! What a route does with a request: forward it, send the client elsewhere, or answer.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use super::direct_response::DirectResponse;
use super::duration::{GrpcTimeout, StreamDuration};
use super::hash::HashPolicies;
use super::host_rewrite::{HostRewrite, KeptHost, replace_host};
use super::internal_redirect::InternalRedirectPolicy;
use super::mirror::Mirror;
use super::policy::{BodyLimit, RetryPolicy};
use super::redirect::Redirect;
use super::rewrite::{PathRewrite, Unfit};
use super::upgrade::UpgradeRule;
use crate::config::matcher::HeaderField;
use crate::config::metadata::MetadataMatch;
use crate::exchange::upgrade::Upgrade;
use crate::exchange::{LocalReply, RequestHead, RoutingPriority};

/// What a route does with a request.
#[derive(Debug)]
pub enum Action {
    /// Sends it to a cluster.
    Forward(Forward),
    /// Tells the client where else to go.
    Redirect(Box<Redirect>),
    /// Answers it.
    Direct(DirectResponse),
    /// Nothing: the route is for others than proxies (`config.route.v3.NonForwardingAction`).
    NonForwarding,
}

/// `config.route.v3.RouteAction`, of a weighted cluster with that one cluster.
#[derive(Debug)]
pub struct Forward {
    pub(super) cluster: ClusterSource,
    pub(super) timeout: Arc<Timeout>,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) path: Option<Box<PathRewrite>>,
    pub(super) host: HostRewrite,
    pub(super) append_forwarded_host: bool,
    pub(super) cluster_not_found: StatusCode,
    pub(super) priority: RoutingPriority,
    pub(super) hash: Option<Arc<HashPolicies>>,
    pub(super) metadata: Option<Arc<MetadataMatch>>,
    pub(super) retry: Option<Arc<RetryPolicy>>,
    pub(super) hedge: bool,
    pub(super) body_limit: Option<BodyLimit>,
    pub(super) extras: Option<Arc<Extras>>,
}

/// What few routes say; those that do not pay one look for it.
#[derive(Debug, Default)]
pub struct Extras {
    pub(super) mirrors: Box<[Arc<Mirror>]>,
    pub(super) internal_redirect: Option<InternalRedirectPolicy>,
    pub(super) stream_duration: Option<StreamDuration>,
    pub(super) grpc_timeout: Option<GrpcTimeout>,
    pub(super) upgrades: Box<[UpgradeRule]>,
}

impl Extras {
    /// Where copies of the request go.
    pub fn mirrors(&self) -> &[Arc<Mirror>] {
        &self.mirrors
    }

    /// Which redirects of the upstream are followed, if any are.
    pub fn internal_redirect(&self) -> Option<&InternalRedirectPolicy> {
        self.internal_redirect.as_ref()
    }

    /// How long a stream may live, in place of what the connection manager says.
    pub fn stream_duration(&self) -> Option<&StreamDuration> {
        self.stream_duration.as_ref()
    }

    /// What goes before [`Forward::timeout`] for requests of gRPC.
    pub fn grpc_timeout(&self) -> Option<&GrpcTimeout> {
        self.grpc_timeout.as_ref()
    }

    /// What the route says of what a request wants to change to, if it says anything.
    pub fn upgrade(&self, upgrade: &Upgrade) -> Option<&UpgradeRule> {
        UpgradeRule::of(&self.upgrades, upgrade)
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        let Self { mirrors, internal_redirect, stream_duration, grpc_timeout, upgrades } = self;
        mirrors.is_empty()
            && internal_redirect.is_none()
            && stream_duration.is_none()
            && grpc_timeout.is_none()
            && upgrades.is_empty()
    }
}

#[derive(Debug, Clone)]
pub(super) enum ClusterSource {
    Name(Arc<str>),
    /// The request's header that has the name.
    Header(Box<HeaderField>),
}

impl ClusterSource {
    /// `None` when the header that should name the cluster is missing or is not text.
    pub(super) fn choose(&self, head: &RequestHead) -> Option<Arc<str>> {
        match self {
            Self::Name(name) => Some(Arc::clone(name)),
            Self::Header(field) => std::str::from_utf8(field.first(head)?).ok().map(Arc::from),
        }
    }
}

/// A timeout with what the upstream is told of it.
#[derive(Debug)]
pub(super) struct Timeout {
    pub(super) limit: Option<Duration>,
    /// Milliseconds.
    pub(super) header: Option<HeaderValue>,
}

impl Forward {
    /// The name of the cluster. `None` when the header that should name it is missing or is not
    /// text. Of a weighted route, [`RouteTable::find`](super::RouteTable::find) has drawn the cluster
    /// already, so that its headers and filter options agree with it.
    pub fn choose_cluster(&self, head: &RequestHead) -> Option<Arc<str>> {
        self.cluster.choose(head)
    }

    /// What few routes say.
    pub fn extras(&self) -> Option<&Extras> {
        self.extras.as_deref()
    }

    /// The longest an upstream may take, from the end of the request to the end of the response;
    /// `None` is for ever. 15 s unless configured.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.limit
    }

    /// [`Self::timeout`] in milliseconds, for `x-envoy-expected-rq-timeout-ms`.
    pub fn expected_timeout_header(&self) -> Option<&HeaderValue> {
        self.timeout.header.as_ref()
    }

    /// How long the stream may be idle; `None` leaves it to the connection manager, zero is for
    /// ever.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// When the request is tried again: the route's own policy, or its virtual host's.
    pub fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.retry.as_deref()
    }

    /// Whether a try that is over its time goes on beside the next one: the route's own policy, or its
    /// virtual host's.
    pub fn hedges(&self) -> bool {
        self.hedge
    }

    /// How much of a body may be held for that, in bytes, where the connection allows so many.
    pub fn body_limit(&self, connection: u32) -> u64 {
        BodyLimit::bytes(self.body_limit, connection)
    }

    /// Which circuit breakers count.
    pub fn priority(&self) -> RoutingPriority {
        self.priority
    }

    /// What of a request its host is chosen by, if anything.
    pub fn hash_policies(&self) -> Option<&HashPolicies> {
        self.hash.as_deref()
    }

    /// What is wanted of its host's metadata.
    pub fn metadata_match(&self) -> Option<&MetadataMatch> {
        self.metadata.as_deref()
    }

    /// The status when the cluster does not exist.
    pub fn cluster_not_found(&self) -> StatusCode {
        self.cluster_not_found
    }

    /// Whether the request's host becomes the chosen upstream host's name.
    pub fn auto_host_rewrite(&self) -> bool {
        matches!(self.host, HostRewrite::Auto)
    }

    /// What is kept of a host that is replaced; of the original only if `originals` are.
    pub fn kept_host(&self, originals: bool) -> KeptHost {
        KeptHost { forwarded: self.append_forwarded_host, original: originals }
    }

    /// Changes the request's host and path as the route says, and tells the upstream of the old ones in
    /// `x-envoy-original-` headers if `originals` are kept. Header mutations that name them come
    /// before, since they see what the client sent.
    ///
    /// # Errors
    /// The answer to the client when what becomes of the path is none.
    pub fn rewrite(&self, head: &mut RequestHead, originals: bool) -> Result<(), LocalReply> {
        if let Some(host) = self.host.host(head) {
            replace_host(head, host, self.kept_host(originals));
        }
        match &self.path {
            None => Ok(()),
            Some(rewrite) => rewrite
                .apply(head, originals)
                .map_err(|Unfit| LocalReply::bad_request("rewritten_path_unfit")),
        }
    }
}
