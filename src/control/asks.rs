//! Virtual hosts that requests wait for: many requests for one host make one subscription.
//!
//! A host that came stays subscribed to, one that did not is given up, so that what is subscribed is
//! bounded by what the server has, and what is waited for by [`MOST_WAITED`].

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::follow::{Follow, Want};
use super::state::State;
use super::store::Map;
use super::virtual_hosts;
use crate::filter::on_demand::Ask;
use crate::route::RouteTable;

/// Hosts that may be waited for at a time. Requests for more go on without.
const MOST_WAITED: usize = 1024;

/// What requests have asked for.
#[derive(Debug, Default)]
pub(super) struct Asks {
    waiting: Map<Want, Waiting>,
    /// Names that came and are subscribed to one by one.
    held: Map<Want, ()>,
    /// Names that a server has said something of since the last look.
    answered: Map<Want, ()>,
}

/// One host that is waited for.
#[derive(Debug)]
struct Waiting {
    table: Arc<str>,
    host: Box<str>,
    end: Option<Instant>,
    replies: Vec<oneshot::Sender<Arc<RouteTable>>>,
}

impl Asks {
    /// The server has spoken of these.
    pub(super) fn answered(&mut self, wants: impl Iterator<Item = Want>) {
        if !self.waiting.is_empty() {
            self.answered.extend(wants.map(|want| (want, ())));
        }
    }

    /// Subscribes to what there is already.
    pub(super) fn keep(&mut self, follow: &mut Follow, want: &Want) {
        if self.held.insert(want.clone(), ()).is_none() {
            follow.subscribe(want);
        }
    }

    /// There is no such host any more: the next request asks for it anew.
    pub(super) fn drop_name(&mut self, follow: &mut Follow, want: &Want) {
        if self.held.remove(want).is_some() {
            follow.unsubscribe(want);
        }
    }

    /// When a wait next lasts too long.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.waiting.values().filter_map(|waiting| waiting.end).min()
    }
}

impl State {
    /// A request waits for a host.
    pub(super) fn ask(&mut self, ask: Ask, now: Instant) {
        let Ask { table, host, reply } = ask;
        // Without a table the reply is dropped, and the request goes on with what it has.
        let Some(taking) = self.vhds.tables.get(&table) else { return };
        let (routes, timeout) = (taking.routes.clone(), taking.timeout);
        let want = virtual_hosts::want(taking.source, &format!("{table}/{host}").into());
        if let Some(waiting) = self.asks.waiting.get_mut(&want) {
            waiting.replies.push(reply);
            return;
        }
        let Some(whole) = self.whole_table(&routes) else { return };
        if whole.knows(host.as_bytes()) {
            // Only fails when the request is gone.
            let _gone = reply.send(whole);
            return;
        }
        if self.asks.waiting.len() >= MOST_WAITED {
            warn!(%table, %host, "too many virtual hosts are waited for; a request goes on without");
            return;
        }
        debug!(name = %want.name, "a request waits for a virtual host");
        match self.asks.held.contains_key(&want) {
            true => self.follow.again(&want),
            false => self.follow.subscribe(&want),
        }
        let end = timeout.and_then(|timeout| now.checked_add(timeout));
        self.asks.waiting.insert(want, Waiting { table, host, end, replies: vec![reply] });
    }

    /// Lets requests go on whose host came, or does not, or is too late.
    pub(super) fn settle_asks(&mut self, now: Instant) {
        let is_late = self.asks.next_end().is_some_and(|end| end <= now);
        if !is_late && !self.publish.dirty.routes && self.asks.answered.is_empty() {
            return;
        }
        let answered = std::mem::take(&mut self.asks.answered);
        let waited: Vec<Want> = self.asks.waiting.keys().cloned().collect();
        for want in waited {
            let Some(waiting) = self.asks.waiting.get(&want) else { continue };
            let taking = self.vhds.tables.get(&waiting.table);
            let Some(routes) = taking.map(|taking| taking.routes.clone()) else {
                self.go_on(&want, None, false);
                continue;
            };
            let is_over = answered.contains_key(&want) || waiting.end.is_some_and(|end| end <= now);
            let host = waiting.host.clone();
            let whole = self.whole_table(&routes);
            let came = whole.as_ref().is_some_and(|whole| whole.knows(host.as_bytes()));
            if came || is_over {
                self.go_on(&want, whole, came);
            }
        }
    }

    fn go_on(&mut self, want: &Want, table: Option<Arc<RouteTable>>, came: bool) {
        let Some(waiting) = self.asks.waiting.remove(want) else { return };
        match came {
            true => drop(self.asks.held.insert(want.clone(), ())),
            false => {
                debug!(name = %want.name, "there is no such virtual host");
                self.asks.held.remove(want);
                self.follow.unsubscribe(want);
            }
        }
        let Some(table) = table else { return };
        for reply in waiting.replies {
            // Only fails when the request is gone.
            let _gone = reply.send(table.clone());
        }
    }
}
