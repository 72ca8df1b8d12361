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
mod direct_response;
pub mod discovered;
mod duration;
pub mod hash;
mod headers;
mod host;
mod host_rewrite;
mod internal_redirect;
mod mirror;
mod policy;
mod predicate;
mod redirect;
mod rewrite;
mod stats;
mod template;
mod tree;
mod upgrade;

#[cfg(test)]
mod tests;

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use http::{HeaderName, Method};

pub use action::{Action, Extras, Forward};
pub use compile::{
    CompileContext, CompileFilterOverride, header_addition, header_removal, response_additions,
};
pub use direct_response::DirectResponse;
pub use duration::{GrpcTimeout, StreamDuration};
pub use headers::{Level as HeaderLevel, record_request};
pub use host_rewrite::{HostValue, KeptHost, replace_host};
pub use internal_redirect::{InternalRedirectPolicy, Step as RedirectStep};
pub use mirror::Mirror;
pub use policy::{Avoid, BackOff, BodyLimit, RateLimited, ResetHeader, RetryOn, RetryPolicy};
pub use redirect::Redirect;
pub use rewrite::X_ENVOY_ORIGINAL_PATH;
pub use stats::{RequestCounts, RequestStats};
pub use upgrade::UpgradeRule;

use self::discovered::HostDiscovery;
use crate::exchange::{RequestHead, ResponseHead, StreamInfo};
use headers::Mutations;
use host::Domains;
use predicate::Predicates;
use stats::VirtualClusters;
use tree::{Asked, PathIndex};

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
    hosts: Box<[Arc<HostRoutes>]>,
    ignore_port: bool,
    ignore_path_parameters: bool,
    internal_only_headers: Box<[HeaderName]>,
    cluster_names: Box<[Arc<str>]>,
    discovery: Option<Arc<HostDiscovery>>,
}

/// The routes of one virtual host, known by position.
#[derive(Debug)]
struct HostRoutes {
    /// What requests get that ought to have come over TLS, if any ought to.
    to_tls: Option<ToTls>,
    paths: PathIndex,
    entries: Box<[Entry]>,
}

/// `VirtualHost.require_tls`
#[derive(Debug)]
struct ToTls {
    external_only: bool,
    route: Arc<Route>,
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
    /// The request's header that holds the number it is drawn by (`WeightedCluster.header_name`).
    number: Option<HeaderName>,
}

impl Weighted {
    /// `random` is for requests that do not bring a number of their own, or bring several.
    fn draw(&self, head: &RequestHead, random: impl FnOnce() -> u64) -> Option<&Arc<Route>> {
        let total = u64::from(*self.ends.last()?);
        let own = self.number.as_ref().and_then(|name| {
            let mut values = head.headers.get_all(name).iter();
            let value = values.next().filter(|_| values.next().is_none())?;
            value.to_str().ok()?.trim().parse().ok()
        });
        let drawn = own.unwrap_or_else(random).checked_rem(total)?;
        self.routes.get(self.ends.partition_point(|end| u64::from(*end) <= drawn))
    }
}

impl RouteTable {
    /// The table's name; empty for one that a listener holds itself.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The route of a request: that of the first match in the virtual host of its authority.
    /// `random` decides what a share of the requests only gets, and draws a cluster of a weighted
    /// route; it must be uniform over all `u64`, and is called once, if a route depends on it.
    ///
    /// Costs by the length of authority and path, by the regular expressions of the virtual host,
    /// and by the predicates of the routes whose path matches; not by the number of routes.
    pub fn find(&self, head: &RequestHead, random: impl FnOnce() -> u64) -> Option<Arc<Route>> {
        let host = &self.hosts[self.domains.find(self.asked_host(head))? as usize];
        if let Some(to_tls) = &host.to_tls
            && !redirect::is_https(head)
            && !(to_tls.external_only && is_internal(head))
        {
            return Some(Arc::clone(&to_tls.route));
        }
        let random = Lazy::new(random);
        let found = host.paths.first(self.asked(head), |position| {
            let predicates = &host.entries[position as usize].predicates;
            predicates.as_ref().is_none_or(|predicates| predicates.match_all(head, || random.get()))
        })?;
        match &host.entries[found as usize].target {
            Target::One(route) => Some(Arc::clone(route)),
            Target::Weighted(weighted) => weighted.draw(head, || random.get()).cloned(),
        }
    }

    /// What of a request's target routes match. A `CONNECT` has no path, unless it is for a protocol
    /// within HTTP/2 (RFC 8441), which makes it a request like others.
    fn asked<'h>(&self, head: &'h RequestHead) -> Asked<'h> {
        let connect = head.method == Method::CONNECT
            && head.extensions.get::<hyper::ext::Protocol>().is_none();
        let mut path = match connect && head.uri.path_and_query().is_none() {
            true => "",
            false => head.uri.path(),
        };
        if self.ignore_path_parameters
            && let Some((before, _)) = path.split_once(';')
        {
            path = before;
        }
        Asked { path, connect }
    }

    /// Whether a virtual host is there for the request, whatever its routes.
    pub fn has_host(&self, head: &RequestHead) -> bool {
        self.knows(self.asked_host(head))
    }

    /// Whether a virtual host is there for a host as [`Self::asked_host`] gives it.
    pub fn knows(&self, host: &[u8]) -> bool {
        self.domains.find(host).is_some()
    }

    /// The host of a request as virtual hosts match it.
    pub fn asked_host<'h>(&self, head: &'h RequestHead) -> &'h [u8] {
        let authority = host::authority(head);
        match host::port_start(authority) {
            Some(colon) if self.ignore_port => &authority[..colon],
            _ => authority,
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

/// Whether the request comes from our own side, as whoever knows it has written down.
fn is_internal(head: &RequestHead) -> bool {
    head.headers.get("x-envoy-internal").is_some_and(|internal| internal == "true")
}

/// A random number that is drawn when it is first asked for.
struct Lazy<F> {
    draw: Cell<Option<F>>,
    drawn: Cell<u64>,
}

impl<F: FnOnce() -> u64> Lazy<F> {
    fn new(draw: F) -> Self {
        Self { draw: Cell::new(Some(draw)), drawn: Cell::new(0) }
    }

    fn get(&self) -> u64 {
        if let Some(draw) = self.draw.take() {
            self.drawn.set(draw());
        }
        self.drawn.get()
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
    stats: Option<Arc<RequestStats>>,
}

/// What a virtual host says about requests of all its routes.
#[derive(Debug)]
struct VirtualHost {
    name: Arc<str>,
    include_request_attempt_count: bool,
    include_attempt_count_in_response: bool,
    include_is_timeout_retry: bool,
    virtual_clusters: Option<Box<VirtualClusters>>,
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

    /// Where a request counts beside its cluster.
    pub fn counts(&self, head: &RequestHead) -> RequestCounts {
        let mut counts = RequestCounts::default();
        if let Some(clusters) = &self.host.virtual_clusters {
            counts.0.push(Arc::clone(clusters.find(head)));
        }
        counts.0.extend(self.stats.clone());
        counts
    }

    /// Whether the upstream is told which try of the request it gets.
    pub fn include_request_attempt_count(&self) -> bool {
        self.host.include_request_attempt_count
    }

    /// Whether the upstream is told if it gets a request again because the last try took too long.
    pub fn include_is_timeout_retry(&self) -> bool {
        self.host.include_is_timeout_retry
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
            record_request(head, stream);
        }
    }
}
