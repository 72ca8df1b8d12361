//! One type on one stream, as a state machine without I/O.
//!
//! The two variants of the protocol differ in how a request is read and how a response is made;
//! [`Machine`] is what they have in common for the driver, [`Core`] the state they share.

use std::sync::Arc;
use std::time::SystemTime;

use nuncio::proto::envoy::config::core::v3::{ControlPlane, Node};
use nuncio::proto::google::rpc::Status;

use crate::ledger::{Ledger, Outcome};
use crate::snapshot::TypeSet;
use crate::subscription::Subscription;
use crate::types::ResourceType;

/// Whether a response may take something away. Ordering lets additions go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removals {
    /// What the client has and the snapshot has not stays for now.
    Hold,
    /// Say everything.
    Send,
}

/// A response, and the endpoints of the clusters that it adds or changes.
#[derive(Debug)]
pub(crate) struct Reply<R> {
    /// The message to send.
    pub(crate) message: R,
    /// Names of the `ClusterLoadAssignment`s that its new and changed clusters will wait for.
    pub(crate) endpoints: Vec<Arc<str>>,
}

/// What the machines of both variants hold.
#[derive(Debug)]
pub(crate) struct Core {
    /// The type.
    pub(crate) ty: ResourceType,
    /// What is wanted and what was sent.
    pub(crate) subscription: Subscription,
    /// Responses and their answers.
    pub(crate) ledger: Ledger,
    /// The set that was found to hold nothing to say, so that the next look costs nothing.
    clean: Option<(Arc<TypeSet>, Removals)>,
}

impl Core {
    /// State of a type nothing is known of yet.
    pub(crate) fn new(ty: ResourceType) -> Self {
        Self { ty, subscription: Subscription::default(), ledger: Ledger::default(), clean: None }
    }

    /// Whether `look` finds something to say, unless it found nothing in the same set before.
    pub(crate) fn look(
        &mut self,
        set: &Arc<TypeSet>,
        removals: Removals,
        look: impl FnOnce(&Subscription) -> bool,
    ) -> bool {
        if self.is_clean(set, removals) {
            return false;
        }
        let pending = look(&self.subscription);
        if !pending {
            self.clean = Some((Arc::clone(set), removals));
        }
        pending
    }

    /// Whether nothing was found to say of this very set.
    pub(crate) fn is_clean(&self, set: &Arc<TypeSet>, removals: Removals) -> bool {
        self.clean.as_ref().is_some_and(|(known, said)| {
            Arc::ptr_eq(known, set) && (*said == removals || *said == Removals::Send)
        })
    }

    /// What was wanted or sent is no longer what [`Self::look`] saw.
    pub(crate) fn touch(&mut self) {
        self.clean = None;
    }
}

/// One type on one stream.
pub(crate) trait Machine: Send + 'static {
    /// The client's message.
    type Request: Send + 'static;
    /// The server's message.
    type Response: Send + 'static;
    /// Name of the variant in logs and status: `sotw` or `delta`.
    const VARIANT: &'static str;

    /// Whether the variant has the type.
    fn serves(_ty: ResourceType) -> bool {
        true
    }
    /// The type URL of a request; empty if it names none.
    fn type_url(request: &Self::Request) -> &str;
    /// The node of a request, if it carries one.
    fn node(request: &mut Self::Request) -> Option<Node>;
    /// A machine for a type that nothing was asked of yet.
    fn new(ty: ResourceType) -> Self;
    /// The shared state.
    fn core(&self) -> &Core;
    /// The shared state.
    fn core_mut(&mut self) -> &mut Core;
    /// Takes a request. `set` is what is served now.
    fn request(&mut self, request: Self::Request, set: &TypeSet, now: SystemTime) -> Outcome;
    /// Whether there is something to say about `set`. Constant time if there was not before.
    fn pending(&mut self, set: &Arc<TypeSet>, removals: Removals) -> bool;
    /// The response that says it. Called only when there is something to say and no response waits
    /// for its answer.
    fn respond(&mut self, set: &TypeSet, removals: Removals, nonce: u64) -> Reply<Self::Response>;
}

/// Who the responses say they come from.
pub(crate) fn control_plane() -> Option<ControlPlane> {
    Some(ControlPlane { identifier: format!("nuncio-xds-server/{}", env!("CARGO_PKG_VERSION")) })
}

/// The text of a client's refusal.
pub(crate) fn refusal(status: Status) -> String {
    match status.message.is_empty() {
        true => format!("code {} without a message", status.code),
        false => status.message,
    }
}
