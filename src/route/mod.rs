//! Routing: a request's head in, a decision out. Nothing here waits, allocates or is changed after it
//! was compiled.
//!
//! ```text
//! Tables ── name ──> RouteTable ── authority ──> virtual host ── path, headers, query ──> Route
//! ```
//!
//! A [`Route`] holds everything that its own message and the ones around it say: header mutations
//! and filter options of the table, the virtual host and a weighted cluster are put together when
//! the table is compiled. Each cluster of a weighted route has a [`Route`] of its own, and
//! [`RouteTable::find`] draws one.

mod action;
mod compile;
pub mod hash;
mod headers;
mod host;
mod policy;
mod predicate;
mod rewrite;
mod tree;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, Method};

pub use action::{Action, DirectResponse, Forward, Redirect};
pub use compile::{CompileContext, CompileFilterOverride, response_additions};
pub use headers::Level as HeaderLevel;
pub use policy::{Avoid, BackOff, BodyLimit, RateLimited, ResetHeader, RetryOn, RetryPolicy};
pub use rewrite::{HostValue, X_ENVOY_ORIGINAL_PATH};

use crate::exchange::{RequestHead, ResponseHead, StreamInfo};
use headers::Mutations;
use host::Domains;
use predicate::Predicates;
use tree::PathIndex;

/// Every route table by name.
#[derive(Debug, Clone, Default)]
pub struct Tables(BTreeMap<Arc<str>, Arc<RouteTable>>);

impl Tables {
    /// The table of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<RouteTable>> {
        self.0.get(name)
    }

    /// These tables and `table`, which takes the place of one of the same name. The tables
    /// themselves are shared.
    #[must_use]
    pub fn with(&self, table: Arc<RouteTable>) -> Self {
        let mut tables = self.0.clone();
        tables.insert(Arc::clone(&table.name), table);
        Self(tables)
    }

    /// These tables but for the one of this name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        let mut tables = self.0.clone();
        tables.remove(name);
        Self(tables)
    }

    /// The tables in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<RouteTable>> {
        self.0.values()
    }
}

impl FromIterator<Arc<RouteTable>> for Tables {
    fn from_iter<I: IntoIterator<Item = Arc<RouteTable>>>(tables: I) -> Self {
        Self(tables.into_iter().map(|table| (Arc::clone(&table.name), table)).collect())
    }
}

/// A compiled `config.route.v3.RouteConfiguration`.
#[derive(Debug)]
pub struct RouteTable {
    name: Arc<str>,
    domains: Domains,
    hosts: Box<[HostRoutes]>,
    ignore_port: bool,
    internal_only_headers: Box<[HeaderName]>,
    cluster_names: Box<[Arc<str>]>,
}

/// The routes of one virtual host, known by position.
#[derive(Debug)]
struct HostRoutes {
    paths: PathIndex,
    entries: Box<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    predicates: Option<Box<Predicates>>,
    target: Target,
}

#[derive(Debug)]
enum Target {
    One(Arc<Route>),
    Weighted(Box<Weighted>),
}

/// Routes that differ by cluster, each up to a share of the whole.
#[derive(Debug)]
struct Weighted {
    /// The sum of the weights up to and with each route; ascending, the last above zero.
    ends: Box<[u32]>,
    routes: Box<[Arc<Route>]>,
}

impl Weighted {
    fn draw(&self, random: u64) -> Option<&Arc<Route>> {
        let total = u64::from(*self.ends.last()?);
        let drawn = random.checked_rem(total)?;
        self.routes.get(self.ends.partition_point(|end| u64::from(*end) <= drawn))
    }
}

impl RouteTable {
    /// The table's name; empty for one that a listener holds itself.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The route of a request: that of the first match in the virtual host of its authority.
    /// `random` draws a cluster of a weighted route; it must be uniform over all `u64`, and is called
    /// for such a route only.
    ///
    /// Costs by the length of authority and path, by the regular expressions of the virtual host,
    /// and by the predicates of the routes whose path matches; not by the number of routes.
    pub fn find(&self, head: &RequestHead, random: impl FnOnce() -> u64) -> Option<Arc<Route>> {
        // A CONNECT request has no path that a route could match.
        if head.method == Method::CONNECT && head.uri.path_and_query().is_none() {
            return None;
        }
        let mut authority = host::authority(head);
        if self.ignore_port
            && let Some(colon) = host::port_start(authority)
        {
            authority = &authority[..colon];
        }
        let host = &self.hosts[self.domains.find(authority)? as usize];
        let found = host.paths.first(head.uri.path(), |position| {
            let predicates = &host.entries[position as usize].predicates;
            predicates.as_ref().is_none_or(|predicates| predicates.match_all(head))
        })?;
        match &host.entries[found as usize].target {
            Target::One(route) => Some(Arc::clone(route)),
            Target::Weighted(weighted) => weighted.draw(random()).cloned(),
        }
    }

    /// Headers that requests from outside must not have (`internal_only_headers`).
    pub fn internal_only_headers(&self) -> &[HeaderName] {
        &self.internal_only_headers
    }

    /// Every cluster that a route names, once each, in order. Those that requests name in a header
    /// are not known.
    pub fn cluster_names(&self) -> &[Arc<str>] {
        &self.cluster_names
    }
}

/// What to do with a request that matched.
#[derive(Debug)]
pub struct Route {
    name: Option<Arc<str>>,
    host: Arc<VirtualHost>,
    action: Action,
    overrides: Option<Arc<Overrides>>,
    mutations: Option<Arc<Mutations>>,
}

/// What a virtual host says about requests of all its routes.
#[derive(Debug)]
struct VirtualHost {
    name: Arc<str>,
    include_request_attempt_count: bool,
    include_attempt_count_in_response: bool,
}

/// What a route says about one filter.
#[derive(Clone)]
pub enum FilterOverride {
    /// The filter is off.
    Disabled,
    /// The filter is on, with these options instead of the listener's. A route may also switch on a
    /// filter that the listener has off, without options of its own; they are `()` then.
    Config(Arc<dyn Any + Send + Sync>),
}

impl fmt::Debug for FilterOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "Disabled",
            Self::Config(_) => "Config",
        })
    }
}

/// Filter names and what holds for them; few, so they are searched one by one.
#[derive(Debug)]
struct Overrides(Box<[(Arc<str>, FilterOverride)]>);

impl Route {
    /// The route's name, if it has one.
    pub fn name(&self) -> Option<&Arc<str>> {
        self.name.as_ref()
    }

    /// The name of the virtual host it belongs to.
    pub fn virtual_host(&self) -> &Arc<str> {
        &self.host.name
    }

    /// What to do.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// What the route says about the filter of this name; the most specific level that says
    /// anything counts.
    pub fn filter_override(&self, filter: &str) -> Option<&FilterOverride> {
        let Overrides(overrides) = self.overrides.as_deref()?;
        overrides.iter().find(|(name, _)| **name == *filter).map(|(_, found)| found)
    }

    /// Whether the upstream is told which try of the request it gets.
    pub fn include_request_attempt_count(&self) -> bool {
        self.host.include_request_attempt_count
    }

    /// Whether the client is told how many tries were made.
    pub fn include_attempt_count_in_response(&self) -> bool {
        self.host.include_attempt_count_in_response
    }

    /// Adds and removes the request's headers as configured. Goes before [`Forward::rewrite`].
    pub fn apply_request_headers(&self, head: &mut RequestHead, stream: &mut StreamInfo) {
        if let Some(mutations) = &self.mutations {
            mutations.apply_to_request(head, stream);
        }
    }

    /// Adds and removes the response's headers as configured. If one of them is made of the request's
    /// and the request never went through [`Self::apply_request_headers`], it must have been kept
    /// with [`Self::record_request`].
    pub fn apply_response_headers(&self, head: &mut ResponseHead, stream: &mut StreamInfo) {
        if let Some(mutations) = &self.mutations {
            mutations.apply_to_response(head, stream);
        }
    }

    /// Keeps the request in `stream` if [`Self::apply_response_headers`] will want to read it.
    pub fn record_request(&self, head: &RequestHead, stream: &mut StreamInfo) {
        if self.mutations.as_ref().is_some_and(|mutations| mutations.response_reads_request) {
            headers::record_request(head, stream);
        }
    }
}
