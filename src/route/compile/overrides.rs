//! `typed_per_filter_config` to [`Overrides`].

use std::collections::HashMap;
use std::sync::Arc;

use prost_types::Any;

use super::CompileContext;
use crate::config::{Errors, Fault, OrFault, ResourceId};
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::route::v3::FilterConfig;
use crate::route::{FilterOverride, Overrides};

/// What holds below a level with these options: for each filter the most specific ones.
pub(super) fn below(
    above: Option<&Arc<Overrides>>,
    level: &HashMap<String, Any>,
    cx: &CompileContext<'_>,
) -> Result<Option<Arc<Overrides>>, Errors> {
    if level.is_empty() {
        return Ok(above.cloned());
    }
    let mut errors = Errors::new();
    let mut own: Vec<(Arc<str>, FilterOverride)> = Vec::with_capacity(level.len());
    let mut filters: Vec<_> = level.iter().collect();
    filters.sort_unstable_by_key(|(name, _)| *name);
    for (name, options) in filters {
        let compiled = filter_override(name, options, cx).key(name).at("typed_per_filter_config");
        if let Some(Some(compiled)) = errors.take(compiled) {
            own.push((name.as_str().into(), compiled));
        }
    }
    errors.finish()?;
    let inherited = above.map_or(&[][..], |above| &above.0);
    for (name, options) in inherited {
        if !level.contains_key(&**name) {
            own.push((Arc::clone(name), options.clone()));
        }
    }
    Ok((!own.is_empty()).then(|| Arc::new(Overrides(own.into()))))
}

/// `None` for optional options of a type that is not known.
fn filter_override(
    name: &str,
    options: &Any,
    cx: &CompileContext<'_>,
) -> Result<Option<FilterOverride>, Errors> {
    let compile = |options: &Any| (cx.compile_filter_override)(name, options);
    let Some(FilterConfig { config, is_optional, disabled }) = filter_config(options)? else {
        return compile(options).map(|config| Some(FilterOverride::Config(config)));
    };
    if disabled {
        return Ok(Some(FilterOverride::Disabled));
    }
    let config = config.ok_or(Fault::Required).at("config")?;
    if config.type_url.is_empty() {
        return Ok(Some(FilterOverride::Config(Arc::new(()))));
    }
    match compile(&config).at("config") {
        Ok(config) => Ok(Some(FilterOverride::Config(config))),
        Err(errors) if is_optional && is_unknown(&errors) => Ok(None),
        Err(errors) => Err(errors),
    }
}

/// The options common to all filters, if that is what is in it.
fn filter_config(options: &Any) -> Result<Option<FilterConfig>, Errors> {
    let undecodable = |error: UnpackError| Errors::from(Fault::Undecodable(error.to_string()));
    if effective_type(options).map_err(undecodable)? != "envoy.config.route.v3.FilterConfig" {
        return Ok(None);
    }
    unpack(options).map(Some).map_err(undecodable)
}

fn is_unknown(errors: &Errors) -> bool {
    let resource = ResourceId { kind: "", name: "".into() };
    let errors = errors.clone().of(&resource);
    errors.iter().all(|error| matches!(error.fault, Fault::UnknownExtension(_)))
}
