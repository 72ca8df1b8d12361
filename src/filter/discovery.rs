//! Filters whose configuration is a resource of its own: `HttpFilter.config_discovery` (ECDS).
//!
//! A listener names the resource ([`Discovery`]), control compiles it ([`Extension`]) and fits it to
//! each place that names it ([`Extensions`]), and a worker's chain chooses what it runs on. A chain
//! that has nothing to choose answers 500: what a filter was to do must not be left out.

use std::collections::HashMap;
use std::sync::Arc;

use prost_types::Any;

use super::registry::{Factory, FilterContext, Registration, find};
use super::{Flow, HeadFilter, Stage};
use crate::config::source::{self, ConfigSource};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::{
    Dispatch, HttpService, LocalReply, Request, RequestHead, ResponseFuture, StreamInfo,
};
use crate::proto::any::{effective_type, type_name};
use crate::proto::envoy::config::core::v3 as core;

/// Where a filter's configuration comes from, and which are taken.
pub struct Discovery {
    /// Where the filter stands. Its name is the resource's too.
    pub place: FilterContext,
    /// Its position in `http_filters`.
    pub index: usize,
    /// The server or file.
    pub source: ConfigSource,
    /// The default serves until the resource comes, and the listener waits for nothing.
    pub without_warming: bool,
    types: Vec<&'static str>,
    is_last: bool,
    default: Option<Factory>,
}

impl Discovery {
    /// Compiles the reference that the filter at `index` makes; `is_last` if it ends the chain.
    pub(super) fn compile(
        message: &core::ExtensionConfigSource,
        place: FilterContext,
        (index, is_last): (usize, bool),
    ) -> Result<Self, Errors> {
        let core::ExtensionConfigSource {
            config_source,
            default_config,
            apply_default_config_without_warming: without_warming,
            type_urls,
        } = message;
        let mut errors = Errors::new();
        let source = fields::required(config_source.as_ref()).and_then(source::compile);
        let source = errors.take(source.at("config_source"));
        let mut types = Vec::with_capacity(type_urls.len());
        for (i, url) in type_urls.iter().enumerate() {
            let known = find(type_name(url));
            let known = known.ok_or_else(|| Fault::UnknownExtension(type_name(url).to_owned()));
            types.extend(errors.take(known.index(i).at("type_urls")).map(|r| r.config_type));
        }
        if type_urls.is_empty() {
            errors.push("type_urls", Fault::Required);
        }
        if *without_warming && default_config.is_none() {
            let fault = Fault::Conflict("there is no default_config to apply".into());
            errors.push("apply_default_config_without_warming", fault);
        }
        errors.finish()?;
        let source = source.ok_or_else(Errors::new)?;
        let without_warming = *without_warming;
        let mut discovery =
            Self { place, index, source, without_warming, types, is_last, default: None };
        if let Some(config) = default_config {
            discovery.default = Some(discovery.compile_default(config).at("default_config")?);
        }
        Ok(discovery)
    }

    fn compile_default(&self, config: &Any) -> Result<Factory, Errors> {
        let registration = registration(config)?;
        self.accepts_type(registration)?;
        (registration.compile)(config, &self.place)
    }

    /// Whether a configuration can be used here.
    pub fn accepts(&self, extension: &Extension) -> Result<(), Fault> {
        self.accepts_type(extension.registration)
    }

    fn accepts_type(&self, registration: &Registration) -> Result<(), Fault> {
        if !self.types.contains(&registration.config_type) {
            let reason = format!("the filter's type_urls are {}", self.types.join(", "));
            return Err(Fault::invalid(registration.config_type, reason));
        }
        registration.may_stand(self.is_last, &self.place.name)
    }

    /// What the filter runs on: what came, else the default. Where what came is for another version
    /// of the listener, the filter stays as it is `now`.
    pub(super) fn choose(&self, now: Option<&Factory>, found: &Extensions) -> Option<Factory> {
        match found.0.get(&self.place) {
            Some(None) => self.default.clone(),
            Some(Some(fitted)) if self.accepts(&fitted.extension).is_ok() => {
                Some(Arc::clone(&fitted.factory))
            }
            Some(Some(_)) | None => now.cloned(),
        }
    }

    /// What the filter begins with.
    pub(super) fn default(&self) -> Option<&Factory> {
        self.default.as_ref()
    }

    /// The stage of a filter that nothing is known of.
    pub(super) fn missing(&self) -> Stage {
        match self.is_last {
            true => Stage::Terminal(HttpService::new(Missing)),
            false => Stage::Head(Arc::new(Missing)),
        }
    }
}

/// Answers in place of a filter that has no configuration.
struct Missing;

impl HeadFilter for Missing {
    fn on_request(&self, _: &mut StreamInfo, _: &mut RequestHead) -> Flow {
        Flow::Reply(LocalReply::filter_config_not_found())
    }
}

impl Dispatch for Missing {
    fn dispatch(self: Arc<Self>, request: Request) -> ResponseFuture {
        let response = LocalReply::filter_config_not_found().into_response(request.stream);
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// The configuration of a filter that came by its name: `config.core.v3.TypedExtensionConfig`.
pub struct Extension {
    config: Any,
    registration: &'static Registration,
}

impl Extension {
    /// Compiles a resource. Where it will stand makes no difference to what is a fault.
    pub fn compile(message: core::TypedExtensionConfig) -> Result<Self, Errors> {
        let core::TypedExtensionConfig { name, typed_config } = message;
        let name = fields::non_empty(&name).at("name")?;
        let config = fields::required(typed_config).at("typed_config")?;
        let registration = registration(&config).at("typed_config")?;
        let nowhere = FilterContext { name, ..FilterContext::default() };
        (registration.compile)(&config, &nowhere).at("typed_config")?;
        Ok(Self { config, registration })
    }
}

fn registration(config: &Any) -> Result<&'static Registration, Errors> {
    let kind = effective_type(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
    match find(&kind) {
        Some(registration) => Ok(registration),
        None => Err(Fault::UnknownExtension(kind.into_owned()).into()),
    }
}

/// A configuration at one place.
#[derive(Clone)]
struct Fitted {
    extension: Arc<Extension>,
    factory: Factory,
}

/// What the filters of one listener were found to be configured with, by where they stand: nothing
/// where the resource is not known. A place that is not in here is followed no more.
#[derive(Clone, Default)]
pub struct Extensions(HashMap<FilterContext, Option<Fitted>>);

impl Extensions {
    /// Fits a configuration to a place. If it is that of `before`, so is what comes of it.
    ///
    /// # Errors
    /// None for an extension that compiled by itself.
    pub fn fit(
        &mut self,
        discovery: &Discovery,
        extension: Option<&Arc<Extension>>,
        before: &Self,
    ) -> Result<(), Errors> {
        let place = &discovery.place;
        let fit = |extension: &Arc<Extension>| match before.0.get(place) {
            Some(Some(same)) if Arc::ptr_eq(&same.extension, extension) => Ok(same.clone()),
            _ => (extension.registration.compile)(&extension.config, place)
                .map(|factory| Fitted { extension: Arc::clone(extension), factory }),
        };
        let (fitted, outcome) = match extension.map(fit).transpose() {
            Ok(fitted) => (fitted, Ok(())),
            Err(errors) => (None, Err(errors)),
        };
        self.0.insert(place.clone(), fitted);
        outcome
    }
}

impl std::fmt::Debug for Extension {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Extension").field(&self.registration.config_type).finish()
    }
}

impl std::fmt::Debug for Extensions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = |fitted: &Option<Fitted>| {
            fitted.as_ref().map(|fitted| fitted.extension.registration.config_type)
        };
        f.debug_map().entries(self.0.iter().map(|(place, f)| (&place.name, kind(f)))).finish()
    }
}
