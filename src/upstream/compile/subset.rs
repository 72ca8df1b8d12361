//! `Cluster.LbSubsetConfig`, and the extension of the same fields, to [`SubsetConfig`].

use std::sync::Arc;

use crate::config::metadata::criteria;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::cluster::v3::cluster as old;
use crate::proto::envoy::extensions::load_balancing_policies::subset::v3 as new;
use crate::upstream::balancer::subset::{Fallback, Selector, SelectorFallback, SubsetConfig};
use new::subset::lb_subset_selector::LbSubsetSelectorFallbackPolicy as NamedSelector;
use new::subset::{
    LbSubsetFallbackPolicy as Named, LbSubsetMetadataFallbackPolicy, LbSubsetSelector,
};

/// As the extension, which has the same fields and more.
pub(super) fn compile(proto: old::LbSubsetConfig) -> Result<SubsetConfig, Errors> {
    let old::LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = proto;
    let selector = |selector| {
        let old::lb_subset_config::LbSubsetSelector {
            keys,
            fallback_policy,
            fallback_keys_subset,
            single_host_per_subset,
        } = selector;
        LbSubsetSelector { keys, fallback_policy, fallback_keys_subset, single_host_per_subset }
    };
    extension(new::Subset {
        fallback_policy,
        default_subset,
        subset_selectors: subset_selectors.into_iter().map(selector).collect(),
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: None,
        allow_redundant_keys: false,
    })
}

/// The policy within the subsets is the caller's.
pub(super) fn extension(proto: new::Subset) -> Result<SubsetConfig, Errors> {
    let new::Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: _,
        allow_redundant_keys,
    } = proto;
    let mut errors = Errors::new();
    let fallback = match errors.take(fields::enumeration(fallback_policy).at("fallback_policy")) {
        Some(Named::NoFallback) | None => Fallback::None,
        Some(Named::AnyEndpoint) => Fallback::Any,
        Some(Named::DefaultSubset) => Fallback::Default,
    };
    let list = fields::enumeration(metadata_fallback_policy).at("metadata_fallback_policy");
    let fallback_list = errors
        .take(list)
        .is_some_and(|policy| matches!(policy, LbSubsetMetadataFallbackPolicy::FallbackList));
    let default_subset = default_subset.map(|fields| criteria(&fields.fields)).unwrap_or_default();
    let mut selectors = Vec::with_capacity(subset_selectors.len());
    for (index, proto) in subset_selectors.into_iter().enumerate() {
        selectors.extend(errors.take(selector(proto).index(index).at("subset_selectors")));
    }
    errors.finish()?;
    Ok(SubsetConfig {
        fallback,
        default_subset,
        selectors,
        fallback_list,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
    })
}

fn sorted(keys: Vec<String>) -> Vec<Arc<str>> {
    let mut keys: Vec<Arc<str>> = keys.into_iter().map(Arc::from).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn selector(proto: LbSubsetSelector) -> Result<Selector, Errors> {
    let LbSubsetSelector { keys, fallback_policy, fallback_keys_subset, single_host_per_subset } =
        proto;
    let keys = sorted(keys);
    let fewer = sorted(fallback_keys_subset);
    let policy = fields::enumeration::<NamedSelector>(fallback_policy).at("fallback_policy")?;
    if policy != NamedSelector::KeysSubset && !fewer.is_empty() {
        let fault = Fault::Conflict("is for fallback_policy KEYS_SUBSET".into());
        return Err(Errors::from(fault).at("fallback_keys_subset"));
    }
    let fallback = match policy {
        NamedSelector::NotDefined => None,
        NamedSelector::NoFallback => Some(SelectorFallback::To(Fallback::None)),
        NamedSelector::AnyEndpoint => Some(SelectorFallback::To(Fallback::Any)),
        NamedSelector::DefaultSubset => Some(SelectorFallback::To(Fallback::Default)),
        NamedSelector::KeysSubset => {
            let is_part = fewer.len() < keys.len() && fewer.iter().all(|key| keys.contains(key));
            if fewer.is_empty() || !is_part {
                let fault = Fault::Conflict("must be some of keys, and not all".into());
                return Err(Errors::from(fault).at("fallback_keys_subset"));
            }
            Some(SelectorFallback::Keys(fewer))
        }
    };
    Ok(Selector { keys, fallback, single_host: single_host_per_subset })
}
