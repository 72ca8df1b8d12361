//! Choices by policy, health, weight, subset and zone.

use std::collections::BTreeMap;

use super::*;
use crate::upstream::host::HealthStatus::{self, Draining, Timeout, Unhealthy, Unknown};
use crate::upstream::hosts::tests::set;

fn balancer(config: LbConfig) -> Balancer {
    balancer_in(config, None)
}

fn balancer_in(config: LbConfig, zone: Option<Arc<LocalZone>>) -> Balancer {
    let counters =
        Counters { cluster: Arc::default(), subsets: Arc::default(), zones: Arc::default() };
    Balancer::with(config, counters, zone)
}

/// A host of the set that is followed.
fn choose(choosing: &Balancer, cx: &LbContext<'_>) -> Result<Arc<Host>, NoHost> {
    let set = choosing.state.lock().set.clone().ok_or(NoHost)?;
    choosing.choose(&set, cx).1
}

/// The ports that so many choices go to, and how often.
fn chosen(choosing: &Balancer, cx: &LbContext<'_>, times: u32) -> BTreeMap<u16, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        let Ok(host) = choose(choosing, cx) else { continue };
        *counts.entry(host.address().port()).or_default() += 1;
    }
    counts
}

fn counts(
    policy: LbPolicy,
    hosts: &[(u32, HealthStatus, u32)],
    requests: u32,
) -> BTreeMap<u16, u32> {
    let choosing = balancer(LbConfig { policy, ..LbConfig::default() });
    choosing.follow(&set(hosts));
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        let host = choose(&choosing, &LbContext::default()).unwrap();
        *counts.entry(host.address().port()).or_default() += 1;
    }
    counts
}

#[test]
fn round_robin_is_exact_by_weight_and_health() {
    type Case = (&'static [(u32, HealthStatus, u32)], u32, &'static [(u16, u32)]);
    let cases: &[Case] = &[
        (&[(0, Unknown, 1)], 12, &[(1, 12)]),
        (&[(0, Unknown, 1), (0, Unknown, 1)], 12, &[(1, 6), (2, 6)]),
        (&[(0, Draining, 1), (0, Unknown, 1)], 12, &[(2, 12)]),
        (&[(0, Unknown, 1), (0, Unhealthy, 1), (0, Unknown, 1)], 12, &[(1, 6), (3, 6)]),
        (&[(0, Unknown, 3), (0, Unknown, 1)], 40, &[(1, 30), (2, 10)]),
        (&[(0, Draining, 1)], 4, &[(1, 4)]),
        (&[(0, Timeout, 1), (1, Unknown, 7), (1, Unknown, 7)], 8, &[(2, 4), (3, 4)]),
    ];
    for (hosts, requests, expected) in cases {
        let expected: BTreeMap<_, _> = expected.iter().copied().collect();
        assert_eq!(counts(LbPolicy::RoundRobin, hosts, *requests), expected, "{hosts:?}");
    }
}

#[test]
fn random_reaches_every_healthy_host_about_equally() {
    let hosts = [(0, Unknown, 1), (0, Unknown, 9), (0, Unhealthy, 1)];
    let counts = counts(LbPolicy::Random, &hosts, 10_000);
    assert_eq!(counts.len(), 2);
    assert!(counts.values().all(|n| (4_500..5_500).contains(n)), "{counts:?}");
}

#[test]
fn least_request_prefers_the_idle_host() {
    let hosts = set(&[(0, Unknown, 1), (0, Unknown, 1)]);
    hosts.priorities[0].hosts[0].stats.rq_active.add(10);
    let policy = LbPolicy::LeastRequest(LeastRequest::default());
    let choosing = balancer(LbConfig { policy, ..LbConfig::default() });
    choosing.follow(&hosts);
    let busy = (0..1_000)
        .filter(|_| {
            let host = choose(&choosing, &LbContext::default());
            host.unwrap().address().port() == 1
        })
        .count();
    assert!((150..350).contains(&busy), "{busy}");
}

#[test]
fn an_empty_set_has_no_host_and_a_new_set_is_followed() {
    let choosing = balancer(LbConfig::default());
    let chosen = || choose(&choosing, &LbContext::default());
    assert_eq!(chosen().unwrap_err(), NoHost);
    let one = set(&[(0, Unknown, 1)]);
    assert!(choosing.follow(&one) && !choosing.follow(&one));
    assert!(chosen().is_ok());
    assert!(choosing.follow(&set(&[])));
    assert_eq!(chosen().unwrap_err(), NoHost);
}

#[test]
fn a_full_scan_finds_the_idle_host_and_the_bias_weighs_load_against_weight() {
    let hosts = set(&[(0, Unknown, 4), (0, Unknown, 1), (0, Unknown, 1)]);
    let busy =
        |host: usize, requests| hosts.priorities[0].hosts[host].stats.rq_active.add(requests);
    for (host, requests) in [(0, 7), (1, 3), (2, 2)] {
        busy(host, requests);
    }
    let first = |active_request_bias| {
        let policy = LbPolicy::LeastRequest(LeastRequest { choices: None, active_request_bias });
        let choosing = balancer(LbConfig { policy, ..LbConfig::default() });
        choosing.follow(&hosts);
        chosen(&choosing, &LbContext::default(), 50)
    };
    assert_eq!(first(1.0), BTreeMap::from([(1, 50)]), "8/4 is less than 3/1 and 4/1");
    assert_eq!(first(2.0), BTreeMap::from([(3, 50)]), "64/4 is more than 9/1");
    assert_eq!(first(0.0), BTreeMap::from([(1, 50)]), "by weight alone");
}

#[test]
fn a_pinned_host_goes_before_the_policy_while_it_may() {
    let hosts = set(&[(0, Unknown, 1), (0, Unknown, 1), (0, Draining, 1)]);
    let choosing = balancer(LbConfig::default());
    choosing.follow(&hosts);
    let pinned = |choosing: &Balancer, host: usize, strict| {
        let addresses = [hosts.priorities[0].hosts[host].address()].into_iter().collect();
        let wanted = OverrideHost { addresses, strict };
        let cx = LbContext { override_host: Some(&wanted), ..LbContext::default() };
        chosen(choosing, &cx, 10)
    };
    assert_eq!(pinned(&choosing, 1, false), BTreeMap::from([(2, 10)]));
    assert_eq!(pinned(&choosing, 2, false).len(), 2, "it drains: any other");
    assert_eq!(pinned(&choosing, 2, true).len(), 0);
    let draining = LbConfig { override_statuses: 1 << Draining as u8, ..LbConfig::default() };
    let choosing = balancer(draining);
    choosing.follow(&hosts);
    assert_eq!(pinned(&choosing, 2, false), BTreeMap::from([(3, 10)]));
}

mod subsets {
    use super::*;
    use crate::config::metadata::{LB, criteria};
    use crate::upstream::balancer::subset::{Fallback, Selector, SelectorFallback};
    use crate::upstream::health::Health;
    use crate::upstream::host::Told;
    use crate::upstream::hosts::tests::endpoints;
    use prost_types::value::Kind;
    use prost_types::{ListValue, Struct, Value};

    fn value(text: &str) -> Value {
        let string = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
        match text.contains('|') {
            false => string(text),
            true => {
                let values = text.split('|').map(string).collect();
                Value { kind: Some(Kind::ListValue(ListValue { values })) }
            }
        }
    }

    fn fields(of: &[(&str, &str)]) -> Struct {
        Struct { fields: of.iter().map(|(k, v)| ((*k).to_owned(), value(v))).collect() }
    }

    fn config(selectors: &[&[&str]]) -> SubsetConfig {
        let selector = |keys: &&[&str]| Selector {
            keys: keys.iter().map(|key| Arc::from(*key)).collect(),
            fallback: None,
            single_host: false,
        };
        SubsetConfig {
            fallback: Fallback::None,
            default_subset: Vec::new(),
            selectors: selectors.iter().map(selector).collect(),
            allow_redundant_keys: false,
            locality_weight_aware: false,
            scale_locality_weight: false,
            panic_mode_any: false,
            list_as_any: false,
            fallback_list: false,
        }
    }

    /// Hosts on ports from 1, the last one unhealthy.
    fn choosing(config: SubsetConfig) -> Balancer {
        let hosts: [&[(&str, &str)]; 4] = [
            &[("version", "1"), ("stage", "prod")],
            &[("version", "2"), ("stage", "prod")],
            &[("version", "2|3"), ("stage", "dev")],
            &[("version", "4"), ("stage", "dev")],
        ];
        let mut all = endpoints(&[(0, Unknown, 1); 4]);
        for (group, metadata) in all.localities.iter_mut().zip(hosts) {
            let metadata = Some(Arc::new([(LB.to_owned(), fields(metadata))].into()));
            group.endpoints[0].told = Told { metadata, check: None };
        }
        all.localities[3].endpoints[0].health = Unhealthy;
        let config = LbConfig {
            subsets: Some(Arc::new(config)),
            panic_threshold: 0.0,
            ..LbConfig::default()
        };
        let (mut set, _) = HostSet::build(&all, &HostSet::default(), Health::Healthy);
        set.prepare(&config);
        let choosing = balancer(config);
        choosing.follow(&Arc::new(set));
        choosing
    }

    fn ports(choosing: &Balancer, wanted: &[(&str, &str)]) -> Vec<u16> {
        let wanted = MetadataMatch::of(Some(&fields(wanted)), None);
        let cx = LbContext { metadata: wanted.as_ref(), ..LbContext::default() };
        chosen(choosing, &cx, 30).into_keys().collect()
    }

    #[test]
    fn criteria_choose_a_subset_only_if_all_keys_are_a_selectors() {
        let by_version = choosing(config(&[&["version"], &["stage", "version"]]));
        assert_eq!(ports(&by_version, &[("version", "2")]), [2]);
        assert_eq!(ports(&by_version, &[("version", "2"), ("stage", "prod")]), [2]);
        assert_eq!(ports(&by_version, &[("version", "2|3")]), [3], "a list is one value");
        for none in [&[("version", "9")][..], &[("stage", "dev")], &[("version", "4")], &[]] {
            assert!(ports(&by_version, none).is_empty(), "{none:?}");
        }
        assert_eq!(by_version.counters.subsets.lb_subsets_fallback.value(), 0);
        let redundant = SubsetConfig { allow_redundant_keys: true, ..config(&[&["version"]]) };
        assert_eq!(ports(&choosing(redundant), &[("version", "2"), ("x", "y")]), [2]);
    }

    #[test]
    fn every_fallback_goes_where_it_says() {
        let with = |fallback, default: &[(&str, &str)]| SubsetConfig {
            fallback,
            default_subset: criteria(&fields(default).fields),
            ..config(&[&["version"]])
        };
        let any = choosing(with(Fallback::Any, &[]));
        assert_eq!(ports(&any, &[("version", "9")]), [1, 2, 3]);
        assert_eq!(ports(&any, &[]), [1, 2, 3]);
        assert!(ports(&any, &[("version", "4")]).is_empty(), "its subset is there, and ill");
        let prod = choosing(with(Fallback::Default, &[("stage", "prod")]));
        assert_eq!(ports(&prod, &[]), [1, 2]);
        let ill = with(Fallback::Default, &[("version", "4")]);
        assert!(ports(&choosing(ill.clone()), &[]).is_empty());
        let panics = SubsetConfig { panic_mode_any: true, ..ill };
        assert_eq!(ports(&choosing(panics), &[]), [1, 2, 3]);
    }

    #[test]
    fn a_selector_has_its_own_fallback_and_may_hold_one_host() {
        let mut own = config(&[&["stage", "version"], &["stage"]]);
        own.selectors[0].fallback = Some(SelectorFallback::Keys(vec!["stage".into()]));
        own.selectors[1].fallback = Some(SelectorFallback::To(Fallback::Any));
        let own = choosing(own);
        assert_eq!(ports(&own, &[("stage", "prod"), ("version", "9")]), [1, 2]);
        assert_eq!(ports(&own, &[("stage", "none"), ("version", "9")]), [1, 2, 3]);
        let mut single = config(&[&["stage"]]);
        single.selectors[0].single_host = true;
        assert_eq!(ports(&choosing(single), &[("stage", "prod")]), [1]);
    }

    #[test]
    fn lists_count_by_value_and_routes_may_list_what_to_try() {
        let lists = SubsetConfig { list_as_any: true, ..config(&[&["version"]]) };
        assert_eq!(ports(&choosing(lists.clone()), &[("version", "2")]), [2, 3]);
        assert_eq!(ports(&choosing(lists), &[("version", "3")]), [3]);
        let tries = choosing(SubsetConfig { fallback_list: true, ..config(&[&["version"]]) });
        let structs = |of: &[&str]| {
            let kind =
                |v: &&str| Value { kind: Some(Kind::StructValue(fields(&[("version", v)]))) };
            Value {
                kind: Some(Kind::ListValue(ListValue { values: of.iter().map(kind).collect() })),
            }
        };
        let mut wanted = fields(&[("version", "0")]);
        wanted.fields.insert("fallback_list".into(), structs(&["9", "4", "1"]));
        let wanted = MetadataMatch::of(Some(&wanted), None);
        let cx = LbContext { metadata: wanted.as_ref(), ..LbContext::default() };
        assert_eq!(chosen(&tries, &cx, 10), BTreeMap::from([(1, 10)]), "9 is nowhere, 4 is ill");
    }
}

mod zones {
    use super::*;
    use crate::upstream::balancer::zone_aware::ZoneAware;
    use crate::upstream::health::Health;
    use crate::upstream::host::Locality;
    use crate::upstream::hosts::tests::endpoints;

    fn zone(name: &str) -> Locality {
        Locality { zone: name.into(), ..Locality::default() }
    }

    /// One healthy host for each zone named.
    fn set_in(zones: &str) -> HostSet {
        let mut all = endpoints(&vec![(0, Unknown, 1); zones.len()]);
        for (group, name) in all.localities.iter_mut().zip(zones.chars()) {
            group.locality = Arc::new(zone(&name.to_string()));
        }
        HostSet::build(&all, &HostSet::default(), Health::Healthy).0
    }

    /// How many of a thousand requests go to each zone, of a proxy in zone a.
    fn shares(proxies: &str, upstream: &str, config: ZoneAware) -> BTreeMap<char, u32> {
        let local = Arc::new(LocalZone::new("own".into(), zone("a")));
        local.published("own", &set_in(proxies));
        local.published("other", &set_in("zzz"));
        let locality = LocalityPolicy::ZoneAware(config);
        let choosing = balancer_in(LbConfig { locality, ..LbConfig::default() }, Some(local));
        choosing.follow(&Arc::new(set_in(upstream)));
        let mut shares = BTreeMap::new();
        for (port, count) in chosen(&choosing, &LbContext::default(), 1_000) {
            let zone = upstream.chars().nth(usize::from(port) - 1).unwrap();
            *shares.entry(zone).or_default() += count;
        }
        shares
    }

    #[test]
    fn requests_stay_as_far_as_load_stays_even() {
        let any = ZoneAware { min_cluster_size: 1, ..ZoneAware::default() };
        let of = |proxies, upstream| shares(proxies, upstream, any);
        assert_eq!(of("ab", "aabb"), BTreeMap::from([('a', 1_000)]), "as many there as here");
        assert_eq!(of("ab", "aaab"), BTreeMap::from([('a', 1_000)]));
        // Half of the proxies, a quarter of the hosts: half stays; c has no proxies at all.
        assert_eq!(of("ab", "abbc"), BTreeMap::from([('a', 500), ('c', 500)]));
        assert_eq!(of("bb", "aabb").len(), 2, "no proxy is known to be here");
        assert_eq!(of("ab", "bbbb"), BTreeMap::from([('b', 1_000)]), "no host is here");
    }

    #[test]
    fn sizes_and_percentages_bound_it() {
        let six = ZoneAware::default();
        assert_eq!(shares("ab", "aabb", six).len(), 2, "fewer hosts than six");
        assert_eq!(shares("ab", "aaabbb", six).len(), 1);
        let half = ZoneAware { routing_enabled: 50.0, min_cluster_size: 1, ..six };
        let away = shares("ab", "aabb", half)[&'b'];
        assert!((200..300).contains(&away), "half of those that know no zones: {away}");
        let forced = ZoneAware { force_local_min_size: Some(1), min_cluster_size: 1, ..six };
        assert_eq!(shares("ab", "abbb", forced), BTreeMap::from([('a', 1_000)]));
    }
}

#[test]
fn a_host_in_slow_start_gets_less_and_all_of_it_in_the_end() {
    let window = std::time::Duration::from_millis(400);
    let slow_start = Some(SlowStart { window, aggression: 1.0, least: 0.05 });
    let choosing = balancer(LbConfig { slow_start, ..LbConfig::default() });
    let old = set(&[(0, Unknown, 1)]);
    eventually_older(&old, window);
    let (both, _) = HostSet::build(
        &crate::upstream::hosts::tests::endpoints(&[(0, Unknown, 1), (0, Unknown, 1)]),
        &old,
        Health::Healthy,
    );
    choosing.follow(&Arc::new(both));
    let cx = LbContext::default();
    let early = chosen(&choosing, &cx, 200);
    assert!(early.get(&2).copied().unwrap_or(0) < 60, "{early:?}");
    while choosing.state.lock().whole.is_slow() {
        chosen(&choosing, &cx, 1_000);
    }
    assert_eq!(chosen(&choosing, &cx, 200), BTreeMap::from([(1, 100), (2, 100)]));
}

/// Waits until every host is older than this.
fn eventually_older(set: &HostSet, age: std::time::Duration) {
    while set.iter().any(|host| host.up_since().elapsed() <= age) {
        std::thread::yield_now();
    }
}

#[test]
fn least_request_is_even_although_one_host_is_slow() {
    // A host answers each of its requests after so many arrivals; the last one takes ten times as long.
    let hosts = set(&[(0, Unknown, 1); 8]);
    let choosing = balancer(LbConfig {
        policy: LbPolicy::LeastRequest(LeastRequest::default()),
        ..LbConfig::default()
    });
    choosing.follow(&hosts);
    let mut ends: BTreeMap<usize, Vec<Arc<Host>>> = BTreeMap::new();
    let mut counts = BTreeMap::<u16, usize>::new();
    for arrival in 0..10_000 {
        for host in ends.remove(&arrival).into_iter().flatten() {
            host.stats.rq_active.dec();
        }
        let host = choose(&choosing, &LbContext::default()).unwrap();
        let port = host.address().port();
        *counts.entry(port).or_default() += 1;
        host.stats.rq_active.inc();
        let takes = if port == 8 { 200 } else { 20 };
        ends.entry(arrival + takes).or_default().push(host);
    }
    let worst = counts.values().max().unwrap();
    assert!(*worst * 8 < 13_000, "under 1.3 of the mean: {counts:?}");
    assert!(counts[&8] * 8 < 7_000, "the slow one has less: {counts:?}");
}
