//! Subsets: hosts by what their metadata says, of which a route may want some only
//! (`Cluster.LbSubsetConfig`).
//!
//! A subset is a host set of its own, built with the one it is part of, and balanced like it: by
//! priorities, panic and policy. Which one a request goes to is one look into a table.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use prost_types::Value;
use prost_types::value::Kind;

use super::LbConfig;
use crate::config::metadata::{Criterion, LB, MetadataMatch, canonical};
use crate::upstream::host::Host;
use crate::upstream::hosts::{HostSet, LocalityHosts, PriorityHosts};

/// `Cluster.LbSubsetConfig`, or the extension of the same fields.
#[derive(Debug, Clone, PartialEq)]
pub struct SubsetConfig {
    /// Where a request goes that no subset is for.
    pub fallback: Fallback,
    /// The hosts of [`Fallback::Default`]: those that have all of these.
    pub default_subset: Vec<Criterion>,
    /// By which keys there are subsets.
    pub selectors: Vec<Selector>,
    /// A request may name keys that no selector has.
    pub allow_redundant_keys: bool,
    /// Localities keep their weights in a subset.
    pub locality_weight_aware: bool,
    /// As far as their hosts are in it.
    pub scale_locality_weight: bool,
    /// If the default subset has no host for a request, any host has.
    pub panic_mode_any: bool,
    /// A host whose value is a list is in the subset of each of its values.
    pub list_as_any: bool,
    /// A route may name other criteria to try: `FALLBACK_LIST`.
    pub fallback_list: bool,
}

/// Where a request goes that no subset is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Nowhere.
    #[default]
    None,
    /// To any host.
    Any,
    /// To a host of the default subset.
    Default,
}

/// Keys whose values make subsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Sorted.
    pub keys: Vec<Arc<str>>,
    /// Instead of the configuration's own.
    pub fallback: Option<SelectorFallback>,
    /// Each subset has one host: the first that fits.
    pub single_host: bool,
}

/// Where a request goes whose keys are a selector's but whose values are no host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As for any other request.
    To(Fallback),
    /// To the subset of fewer keys, sorted.
    Keys(Vec<Arc<str>>),
}

crate::stats! {
    /// `cluster.NAME.lb_subsets_*`
    pub struct SubsetStats {
        /// Subsets that have hosts.
        gauge lb_subsets_active,
        /// Requests whose subset was found.
        counter lb_subsets_selected,
        /// Requests that fell back.
        counter lb_subsets_fallback,
        /// Requests that fell back to any host since the default subset had none.
        counter lb_subsets_fallback_panic,
    }
}

/// The subsets of a host set.
#[derive(Debug, Default)]
pub(in crate::upstream) struct Subsets {
    by_criteria: HashMap<Box<[Criterion]>, usize, RandomState>,
    default: Option<usize>,
    sets: Vec<Arc<HostSet>>,
}

/// Where a request is to be balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    Subset(usize),
    /// The subset that requests fall back to.
    Default(usize),
}

/// Hosts of a subset, in the order of the whole: priority, locality, host.
type Members = Vec<(usize, usize, Arc<Host>)>;

impl Subsets {
    pub(in crate::upstream) fn build(
        set: &HostSet,
        config: &LbConfig,
        subsets: &SubsetConfig,
    ) -> Self {
        let mut members: HashMap<Box<[Criterion]>, (Members, bool), RandomState> =
            HashMap::default();
        let mut order: Vec<Box<[Criterion]>> = Vec::new();
        let mut default: Members = Vec::new();
        for (priority, hosts) in set.priorities.iter().enumerate() {
            for (locality, group) in hosts.localities.iter().enumerate() {
                for host in hosts.hosts.get(group.range.clone()).unwrap_or_default() {
                    let metadata = host.metadata();
                    let fields = metadata.as_ref().and_then(|metadata| metadata.get(LB));
                    let value = |key: &str| fields.and_then(|fields| fields.fields.get(key));
                    let has = |(key, wanted): &Criterion| {
                        value(key).is_some_and(|value| canonical(value) == *wanted)
                    };
                    if subsets.default_subset.iter().all(has) {
                        default.push((priority, locality, Arc::clone(host)));
                    }
                    for selector in &subsets.selectors {
                        for criteria in combinations(selector, &value, subsets.list_as_any) {
                            let (hosts, single) =
                                members.entry(criteria.clone()).or_insert_with(|| {
                                    order.push(criteria);
                                    (Vec::new(), selector.single_host)
                                });
                            let known = |(_, _, other): &(usize, usize, Arc<Host>)| {
                                Arc::ptr_eq(other, host)
                            };
                            // Two selectors may have the same keys.
                            let again =
                                *single && !hosts.is_empty() || hosts.last().is_some_and(known);
                            if !again {
                                hosts.push((priority, locality, Arc::clone(host)));
                            }
                        }
                    }
                }
            }
        }
        let mut built = Self::default();
        for criteria in order {
            let Some((hosts, _)) = members.remove(&criteria) else { continue };
            let index = built.push(part_of(set, hosts, config, subsets));
            built.by_criteria.insert(criteria, index);
        }
        if !default.is_empty() {
            built.default = Some(built.push(part_of(set, default, config, subsets)));
        }
        built
    }

    fn push(&mut self, set: HostSet) -> usize {
        self.sets.push(Arc::new(set));
        self.sets.len() - 1
    }

    /// How many there are.
    pub(in crate::upstream) fn len(&self) -> usize {
        self.sets.len()
    }

    pub(super) fn get(&self, index: usize) -> Option<&Arc<HostSet>> {
        self.sets.get(index)
    }

    /// The subset for these criteria, or what the fallbacks say. `None` is nowhere.
    pub(super) fn find(
        &self,
        config: &SubsetConfig,
        criteria: &[Criterion],
        stats: &SubsetStats,
    ) -> Option<Part> {
        let reduced: Vec<Criterion>;
        let criteria = match config.allow_redundant_keys && !self.by_criteria.contains_key(criteria)
        {
            true => {
                reduced = config.reduce(criteria);
                &reduced
            }
            false => criteria,
        };
        if let Some(index) = self.by_criteria.get(criteria) {
            stats.lb_subsets_selected.inc();
            return Some(Part::Subset(*index));
        }
        let has_keys =
            |selector: &&Selector| selector.keys.iter().eq(criteria.iter().map(|(key, _)| key));
        let selector = config.selectors.iter().find(has_keys);
        let fallback = match selector.and_then(|selector| selector.fallback.as_ref()) {
            None => config.fallback,
            Some(SelectorFallback::To(fallback)) => *fallback,
            Some(SelectorFallback::Keys(keys)) => {
                let fewer: Vec<Criterion> =
                    criteria.iter().filter(|(key, _)| keys.contains(key)).cloned().collect();
                // Each step has fewer keys, so this ends.
                return self.find(config, &fewer, stats);
            }
        };
        match fallback {
            Fallback::None => None,
            Fallback::Any => {
                stats.lb_subsets_fallback.inc();
                Some(Part::Whole)
            }
            Fallback::Default => {
                stats.lb_subsets_fallback.inc();
                match self.default {
                    Some(index) => Some(Part::Default(index)),
                    None if config.panic_mode_any => {
                        stats.lb_subsets_fallback_panic.inc();
                        Some(Part::Whole)
                    }
                    None => None,
                }
            }
        }
    }

    /// Each subset that a request may be put to, one after the other while there is no host.
    pub(super) fn parts<'a>(
        &'a self,
        config: &'a SubsetConfig,
        wanted: Option<&'a MetadataMatch>,
        stats: &'a SubsetStats,
    ) -> impl Iterator<Item = Part> + 'a {
        let listed = wanted.filter(|_| config.fallback_list).map(MetadataMatch::alternatives);
        let plain = match listed {
            Some(_) => None,
            None => Some(wanted.map_or(&[][..], MetadataMatch::criteria)),
        };
        let all = listed.into_iter().flatten().chain(plain);
        all.filter_map(|criteria| self.find(config, criteria, stats))
    }
}

impl SubsetConfig {
    /// The criteria that are a selector's: of those that have no others, the one with most keys.
    fn reduce(&self, criteria: &[Criterion]) -> Vec<Criterion> {
        let is_named = |key: &Arc<str>| criteria.iter().any(|(named, _)| named == key);
        let mut best: Option<&Selector> = None;
        for selector in self.selectors.iter().filter(|s| s.keys.iter().all(is_named)) {
            if best.is_none_or(|best| selector.keys.len() > best.keys.len()) {
                best = Some(selector);
            }
        }
        match best {
            None => criteria.to_vec(),
            Some(selector) => {
                let kept = criteria.iter().filter(|(key, _)| selector.keys.contains(key));
                kept.cloned().collect()
            }
        }
    }
}

/// The subsets by a selector that a host is in: none if it lacks a key, more than one if a value is a
/// list.
fn combinations<'a>(
    selector: &Selector,
    value: &impl Fn(&str) -> Option<&'a Value>,
    list_as_any: bool,
) -> Vec<Box<[Criterion]>> {
    let mut all: Vec<Vec<Criterion>> = vec![Vec::new()];
    for key in &selector.keys {
        let Some(value) = value(key) else { return Vec::new() };
        let values = match &value.kind {
            Some(Kind::ListValue(list)) if list_as_any => {
                list.values.iter().map(canonical).collect()
            }
            _ => vec![canonical(value)],
        };
        let longer = |criteria: &Vec<Criterion>| {
            let criteria = criteria.clone();
            values.clone().into_iter().map(move |value| {
                let mut longer = criteria.clone();
                longer.push((Arc::clone(key), value));
                longer
            })
        };
        all = all.iter().flat_map(longer).collect();
    }
    all.into_iter().map(Vec::into_boxed_slice).collect()
}

/// The set of some hosts of another.
fn part_of(set: &HostSet, members: Members, config: &LbConfig, subsets: &SubsetConfig) -> HostSet {
    let mut members = members.into_iter().peekable();
    let mut priorities = Vec::with_capacity(set.priorities.len());
    for (priority, whole) in set.priorities.iter().enumerate() {
        let (mut hosts, mut localities) = (Vec::new(), Vec::new());
        for (locality, group) in whole.localities.iter().enumerate() {
            let start = hosts.len();
            while let Some((_, _, host)) =
                members.next_if(|(p, l, _)| (*p, *l) == (priority, locality))
            {
                hosts.push(host);
            }
            let (some, all) = (hosts.len() - start, group.range.len());
            if some == 0 {
                continue;
            }
            let weight = match (subsets.locality_weight_aware, subsets.scale_locality_weight) {
                (false, _) => 0,
                (true, false) => group.weight,
                (true, true) => {
                    let scaled = u64::from(group.weight) * some as u64 / all.max(1) as u64;
                    u32::try_from(scaled).unwrap_or(u32::MAX).max(u32::from(group.weight > 0))
                }
            };
            localities.push(LocalityHosts {
                locality: Arc::clone(&group.locality),
                weight,
                range: start..hosts.len(),
            });
        }
        priorities.push(PriorityHosts::sorted(hosts, localities));
    }
    let mut part = HostSet::of(priorities.into(), set.policy);
    part.prepare_part(config);
    part
}
