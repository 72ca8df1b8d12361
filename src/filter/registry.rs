//! Every HTTP filter there is, read top to bottom, and the step from a listener's `http_filters` to
//! a compiled chain.

use std::any::Any as StdAny;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use prost_types::Any;

use super::chain::{Entry, FilterChain, Gate};
use super::discovery::Discovery;
use super::{
    FilterFactory, buffer, cache, compression, grpc_web, header_mutation, on_demand, router,
    session, stateful_session,
};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any::effective_type;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;

/// A compiled filter.
pub(super) type Factory = Arc<dyn FilterFactory>;

/// A filter that listeners can name by the type of its configuration.
pub struct Registration {
    /// Full name of the configuration message.
    pub config_type: &'static str,
    /// Must this filter, and only this, end the chain?
    pub terminal: bool,
    /// Compiles the configuration.
    pub compile: fn(&Any, &FilterContext) -> Result<Factory, Errors>,
}

impl Registration {
    /// Whether the filter `name` can be this one where it stands in its chain.
    pub(super) fn may_stand(&self, is_last: bool, name: &str) -> Result<(), Fault> {
        let reason = match (self.terminal, is_last) {
            (true, true) | (false, false) => return Ok(()),
            (false, true) => "the last filter must be the router",
            (true, false) => "the router must be the last filter",
        };
        Err(Fault::invalid(format!("{name:?}"), reason))
    }
}

/// The filter of a type of configuration.
pub(super) fn find(config_type: &str) -> Option<&'static Registration> {
    FILTERS.iter().find(|registration| registration.config_type == config_type)
}

/// Where a filter stands, and what its fields are settled by.
#[derive(Debug, Clone, Default)]
pub struct FilterContext {
    /// Its name in the listener, by which routes refer to it.
    pub name: Arc<str>,
    /// `HttpConnectionManager.stat_prefix`
    pub stat_prefix: Arc<str>,
    /// What goes before the defaults of fields that name a key: one for all places.
    pub runtime: Arc<Runtime>,
}

impl FilterContext {
    fn place(&self) -> (&str, &str) {
        (&self.name, &self.stat_prefix)
    }
}

impl PartialEq for FilterContext {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for FilterContext {}

impl Hash for FilterContext {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.place().hash(state);
    }
}

/// Options that routes can have for a filter, by the type of their message.
pub struct OverrideRegistration {
    /// Full name of the message.
    pub config_type: &'static str,
    /// Compiles it to what the filter looks for with [`super::route_config`].
    pub compile: fn(&Any) -> Result<Arc<dyn StdAny + Send + Sync>, Errors>,
}

static FILTERS: [Registration; 13] = [
    buffer::REGISTRATION,
    cache::REGISTRATION,
    cache::ENVOYS,
    cache::ENVOYS_V2,
    compression::REGISTRATION,
    compression::COMPRESSOR,
    compression::DECOMPRESSOR,
    grpc_web::REGISTRATION,
    header_mutation::REGISTRATION,
    on_demand::REGISTRATION,
    session::REGISTRATION,
    stateful_session::REGISTRATION,
    router::REGISTRATION,
];

const OVERRIDES: [OverrideRegistration; 6] = [
    buffer::OVERRIDE,
    cache::OVERRIDE,
    compression::OVERRIDE,
    compression::COMPRESSOR_OVERRIDE,
    header_mutation::OVERRIDE,
    stateful_session::OVERRIDE,
];

/// Compiles the filters of a connection manager. Unknown filters that are optional are left out and
/// named in the second part of the answer.
pub fn compile_chain(
    filters: &[hcm::HttpFilter],
    stat_prefix: &Arc<str>,
    runtime: &Arc<Runtime>,
) -> Result<(FilterChain, Vec<String>), Errors> {
    let mut errors = Errors::new();
    let mut entries = Vec::with_capacity(filters.len());
    let mut skipped = Vec::new();
    let mut names = HashSet::new();
    let place = FilterContext {
        name: Arc::default(),
        stat_prefix: Arc::clone(stat_prefix),
        runtime: Arc::clone(runtime),
    };
    for (i, filter) in filters.iter().enumerate() {
        if !names.insert(filter.name.as_str()) {
            errors.take::<()>(Err(Fault::Duplicate(filter.name.clone())).at("name").index(i));
        }
        let is_last = i + 1 == filters.len();
        match errors.take(compile_filter(filter, &place, (i, is_last)).index(i)) {
            Some(Compiled::Filter(gate, entry)) => entries.push((gate, entry)),
            Some(Compiled::Skipped(kind)) => skipped.push(kind),
            None => {}
        }
    }
    if filters.is_empty() {
        errors.push("", Fault::invalid("no filters", "the last filter must be the router"));
    }
    errors.finish()?;
    Ok((FilterChain::new(entries), skipped))
}

enum Compiled {
    Filter(Gate, Entry),
    Skipped(String),
}

fn compile_filter(
    filter: &hcm::HttpFilter,
    place: &FilterContext,
    (index, is_last): (usize, bool),
) -> Result<Compiled, Errors> {
    use hcm::http_filter::ConfigType;
    let hcm::HttpFilter { name, is_optional, disabled, config_type } = filter;
    let name = fields::non_empty(name).at("name")?;
    if is_last && *disabled {
        let fault = Fault::invalid("true", "the router, which is last, cannot be disabled");
        return Err(Errors::from(fault).at("disabled"));
    }
    let gate = Gate { name: Arc::clone(&name), disabled: *disabled };
    let cx = FilterContext { name: Arc::clone(&name), ..place.clone() };
    let config = match config_type {
        Some(ConfigType::TypedConfig(config)) => config,
        Some(ConfigType::ConfigDiscovery(source)) => {
            // As in Envoy, one that is optional must be known all the same: its types are named.
            let discovery = Discovery::compile(source, cx, (index, is_last));
            let entry = Entry::Discovered(Box::new(discovery.at("config_discovery")?));
            return Ok(Compiled::Filter(gate, entry));
        }
        None => return Err(Errors::from(Fault::Required).at("typed_config")),
    };
    let kind = effective_type(config).map_err(|e| Fault::Undecodable(e.to_string()));
    let kind = kind.at("typed_config")?;
    let Some(registration) = find(&kind) else {
        return match is_optional {
            true => Ok(Compiled::Skipped(kind.into_owned())),
            false => Err(Fault::UnknownExtension(kind.into_owned())).at("typed_config"),
        };
    };
    registration.may_stand(is_last, &name)?;
    let factory = (registration.compile)(config, &cx).at("typed_config")?;
    Ok(Compiled::Filter(gate, Entry::Given(factory)))
}

/// Compiles the options that a route has for a filter.
pub fn compile_override(
    _name: &str,
    config: &Any,
) -> Result<Arc<dyn StdAny + Send + Sync>, Errors> {
    let kind = effective_type(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
    match OVERRIDES.iter().find(|r| r.config_type == kind) {
        Some(registration) => (registration.compile)(config),
        None => Err(Fault::UnknownExtension(kind.into_owned()).into()),
    }
}
