//! What the two protocol variants have in common, seen from a stream: one resource type, no I/O.

use tokio::time::Instant;

use super::turn::Outcome;
use super::types::{Rejection, Resource, ResourceType, Variant, Verdict};
use crate::proto::envoy::config::core::v3::{ControlPlane, Node};
use crate::proto::envoy::service::discovery::v3::ResourceError;

/// The client's side of one resource type on one stream after another.
///
/// Inputs are calls; outputs are pulled by [`Self::take_request`] and [`Self::take_offer`] when
/// the stream and control have room, so that what leaves is always built from the newest state.
pub(super) trait Machine: Send + Sized + 'static {
    type Request: prost::Message + Default + 'static;
    type Response: prost::Message + Default + 'static;

    const VARIANT: Variant;

    fn new(ty: ResourceType) -> Self;

    fn subscribe_all(&mut self);
    fn subscribe(&mut self, name: &std::sync::Arc<str>);
    fn unsubscribe(&mut self, name: &str);

    /// A stream is up and knows nothing of us.
    fn opened(&mut self);
    /// The stream ended.
    fn closed(&mut self);

    fn receive(&mut self, response: Self::Response);
    /// Whether no further response should be read from the stream.
    fn is_full(&self) -> bool;

    /// Whether [`Self::take_request`] has a request to give.
    fn has_request(&self) -> bool;
    /// Whether that request is an answer.
    fn has_answer(&self) -> bool;
    /// The next request, without a node.
    fn take_request(&mut self) -> Option<Self::Request>;
    /// Whether a request of this type has been sent on this stream.
    fn asked(&self) -> bool;

    /// Whether [`Self::take_offer`] has something to look at.
    fn has_offer(&self, now: Instant) -> bool;
    /// The next thing to tell control. None also when what there was needed no telling.
    fn take_offer(&mut self, now: Instant) -> Option<Offer>;
    /// When a resource's time to live ends next.
    fn next_end(&self) -> Option<Instant>;

    /// Control decided about offer `seq`. None when it was not outstanding.
    fn decide(&mut self, seq: u64, verdict: &Verdict, now: Instant) -> Option<Outcome>;

    /// The last accepted version, for people.
    fn version(&self) -> &str;

    fn set_node(request: &mut Self::Request, node: Node);
    fn head(response: &Self::Response) -> Head<'_>;
}

/// The parts of a response that concern the stream rather than a type.
pub(super) struct Head<'a> {
    pub(super) type_url: &'a str,
    pub(super) nonce: &'a str,
    pub(super) control_plane: Option<&'a ControlPlane>,
    pub(super) resource_errors: &'a [ResourceError],
}

/// An update, before the stream adds who said it.
#[derive(Debug, Default)]
pub(super) struct Offer {
    pub(super) seq: u64,
    pub(super) version: String,
    pub(super) full: bool,
    pub(super) resources: Vec<Resource>,
    pub(super) kept: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) answered: Vec<String>,
    pub(super) expired: bool,
    pub(super) malformed: Vec<Rejection>,
}
