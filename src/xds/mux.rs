//! One stream, many types. A stream that is not aggregated is a mux of one.
//!
//! Each type has a machine of its own and waits for nobody else's verdict. The stream's task asks
//! [`Mux::ready`] what can be done now, and does it; nothing here waits or does I/O.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::machine::{Head, Machine, Offer};
use super::rate::Bucket;
use super::stats::{SourceStatus, StreamStats, TypeStats, TypeStatus};
use super::turn::Outcome;
use super::types::{Event, ResourceType, Source, Update, UpdateToken, Variant, Verdict};
use crate::proto::envoy::config::core::v3::Node;

/// All that is known about one stream and the resources subscribed to on it.
pub(super) struct Mux<M> {
    source: Source,
    only: Option<ResourceType>,
    node: NodePolicy,
    bucket: Option<Bucket>,
    lanes: [Option<Lane<M>>; ResourceType::ALL.len()],
    open: bool,
    node_sent: bool,
    responded: bool,
    /// The request that is next has been counted as held back.
    held_back: bool,
    /// The newest turn of the connection that control has not heard of.
    notice: Option<Event>,
    since: Option<SystemTime>,
    control_plane: String,
    last_error: Option<String>,
    stats: Arc<StreamStats>,
}

/// Who we are and how often to say it.
pub(super) struct NodePolicy {
    pub(super) node: Node,
    /// `ApiConfigSource.set_node_on_first_message_only`
    pub(super) first_only: bool,
}

struct Lane<M> {
    machine: M,
    last_nack: Option<String>,
    stats: Arc<TypeStats>,
}

/// What a stream's task can do now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ready {
    /// [`Mux::take_request`] has a request.
    pub(super) request: bool,
    /// [`Mux::take_event`] should be called.
    pub(super) event: bool,
    /// There is room for another response.
    pub(super) read: bool,
    /// When to ask again at the latest.
    pub(super) wake: Option<Instant>,
}

impl<M: Machine> Mux<M> {
    pub(super) fn new(
        source: Source,
        only: Option<ResourceType>,
        node: NodePolicy,
        bucket: Option<Bucket>,
    ) -> Self {
        Self {
            source,
            only,
            node,
            bucket,
            lanes: [const { None }; ResourceType::ALL.len()],
            open: false,
            node_sent: false,
            responded: false,
            held_back: false,
            notice: None,
            since: None,
            control_plane: String::new(),
            last_error: None,
            stats: Arc::default(),
        }
    }

    /// The machine of a type, made when it is first subscribed to.
    pub(super) fn machine(&mut self, ty: ResourceType) -> &mut M {
        let open = self.open;
        let lane = self.lanes[ty.index()].get_or_insert_with(|| {
            let mut machine = M::new(ty);
            if open {
                machine.opened();
            }
            Lane { machine, last_nack: None, stats: Arc::default() }
        });
        &mut lane.machine
    }

    /// A stream is up: everything wanted is asked for anew.
    pub(super) fn opened(&mut self) {
        self.open = true;
        self.node_sent = false;
        self.responded = false;
        self.since = Some(SystemTime::now());
        self.stats.opened.inc();
        for lane in self.lanes.iter_mut().flatten() {
            lane.machine.opened();
        }
        info!(source = %self.source, ty = self.only.map(ResourceType::short), "xds stream open");
        self.notice = Some(Event::Connected { source: self.source.clone(), ty: self.only });
    }

    /// The stream ended, or could not be opened.
    pub(super) fn closed(&mut self, error: &str) {
        if self.open || self.since.is_none() {
            self.since = Some(SystemTime::now());
        }
        self.open = false;
        self.stats.failed.inc();
        for lane in self.lanes.iter_mut().flatten() {
            lane.machine.closed();
            lane.stats.update_failure.inc();
        }
        warn!(
            source = %self.source, ty = self.only.map(ResourceType::short), error,
            "xds stream ended; what was accepted stays in service"
        );
        self.last_error = Some(error.to_owned());
        self.notice = Some(Event::Disconnected {
            source: self.source.clone(),
            ty: self.only,
            error: error.to_owned(),
        });
    }

    /// Whether the present or last stream brought a response.
    pub(super) fn responded(&self) -> bool {
        self.responded
    }

    pub(super) fn receive(&mut self, response: M::Response) {
        self.responded = true;
        self.stats.responses.inc();
        let Head { type_url, nonce, control_plane, resource_errors } = M::head(&response);
        if let Some(server) = control_plane {
            self.control_plane.clone_from(&server.identifier);
        }
        // The type URL says nothing new on a stream of one type, and some servers leave it out.
        let ty = match self.only {
            Some(only) if type_url.is_empty() => Some(only),
            _ => ResourceType::from_type_url(type_url),
        };
        for error in resource_errors {
            self.stats.resource_errors.inc();
            let name = error.resource_name.as_ref().map_or("", |n| &n.name);
            let reason = error.error_detail.as_ref().map_or("", |status| &status.message);
            warn!(source = %self.source, type_url, name, reason, "server cannot give a resource");
        }
        let lane = ty.and_then(|ty| self.lanes[ty.index()].as_mut());
        let Some(lane) = lane.filter(|lane| lane.machine.asked()) else {
            self.stats.unknown_type.inc();
            // An answer of either kind would claim that the resources were looked at.
            warn!(source = %self.source, type_url, nonce, "xds response of a type not asked for");
            return;
        };
        debug!(source = %self.source, type_url, nonce, "xds response");
        lane.machine.receive(response);
    }

    pub(super) fn ready(&mut self, now: Instant) -> Ready {
        let machines = || self.lanes.iter().flatten().map(|lane| &lane.machine);
        let mut ready = Ready {
            request: self.open && machines().any(M::has_request),
            event: self.notice.is_some() || machines().any(|m| m.has_offer(now)),
            read: !machines().any(M::is_full),
            wake: machines().filter_map(M::next_end).filter(|end| *end > now).min(),
        };
        if let (true, Some(bucket)) = (ready.request, &mut self.bucket) {
            let at = bucket.ready_at(now);
            if at > now {
                ready.request = false;
                ready.wake = Some(ready.wake.map_or(at, |wake| wake.min(at)));
                if !std::mem::replace(&mut self.held_back, true) {
                    self.stats.rate_limit_enforced.inc();
                }
            }
        }
        ready
    }

    /// The next request, in the order in which types are applied, answers last.
    pub(super) fn take_request(&mut self, now: Instant) -> Option<M::Request> {
        if !self.open || self.bucket.as_mut().is_some_and(|bucket| bucket.ready_at(now) > now) {
            return None;
        }
        // What follows from a response is subscribed to before that response is accepted.
        let due = |lane: &&mut Lane<M>| lane.machine.has_request();
        let plain = |lane: &&mut Lane<M>| due(lane) && !lane.machine.has_answer();
        let lanes = &mut self.lanes;
        let lane = if lanes.iter_mut().flatten().any(|lane| plain(&lane)) {
            lanes.iter_mut().flatten().find(plain)?
        } else {
            lanes.iter_mut().flatten().find(due)?
        };
        if !lane.machine.asked() {
            lane.stats.update_attempt.inc();
        }
        let mut request = lane.machine.take_request()?;
        if let Some(bucket) = &mut self.bucket {
            bucket.spend(now);
        }
        self.held_back = false;
        let every_time = !self.node.first_only && M::VARIANT == Variant::Sotw;
        if !std::mem::replace(&mut self.node_sent, true) || every_time {
            M::set_node(&mut request, self.node.node.clone());
        }
        self.stats.requests.inc();
        Some(request)
    }

    /// The next thing control should hear. None also when what was due needed no telling.
    pub(super) fn take_event(&mut self, now: Instant) -> Option<Event> {
        if let Some(notice) = self.notice.take() {
            return Some(notice);
        }
        for (lane, ty) in self.lanes.iter_mut().zip(ResourceType::ALL) {
            let Some(offer) = lane.as_mut().and_then(|lane| lane.machine.take_offer(now)) else {
                continue;
            };
            let Offer {
                seq,
                version,
                full,
                resources,
                kept,
                removed,
                answered,
                expired,
                malformed,
            } = offer;
            return Some(Event::Update(Update {
                token: UpdateToken { source: self.source.clone(), ty, seq },
                source: self.source.clone(),
                ty,
                version: version.into(),
                full,
                resources,
                kept,
                removed,
                answered,
                expired,
                malformed,
            }));
        }
        None
    }

    pub(super) fn decide(&mut self, token: &UpdateToken, verdict: &Verdict, now: Instant) {
        let Some(lane) = &mut self.lanes[token.ty.index()] else { return };
        match lane.machine.decide(token.seq, verdict, now) {
            None => {}
            Some(Outcome::Accepted) => {
                lane.last_nack = None;
                lane.stats.update_success.inc();
                lane.stats.update_attempt.inc();
                let version = lane.machine.version();
                debug!(source = %self.source, ty = %token.ty, version, "xds update accepted");
            }
            Some(Outcome::Rejected(error)) => {
                warn!(source = %self.source, ty = %token.ty, error, "xds update rejected");
                lane.last_nack = Some(error);
                lane.stats.update_rejected.inc();
                lane.stats.update_attempt.inc();
            }
        }
    }

    pub(super) fn status(&self) -> SourceStatus {
        let types = self.lanes.iter().zip(ResourceType::ALL).filter_map(|(lane, ty)| {
            lane.as_ref().map(|lane| TypeStatus {
                ty,
                version: lane.machine.version().to_owned(),
                last_nack: lane.last_nack.clone(),
                stats: lane.stats.clone(),
            })
        });
        SourceStatus {
            source: self.source.clone(),
            ty: self.only,
            connected: self.open,
            since: self.since,
            control_plane: self.control_plane.clone(),
            last_error: self.last_error.clone(),
            stats: self.stats.clone(),
            types: types.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
