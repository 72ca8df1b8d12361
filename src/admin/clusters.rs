//! `/clusters`: limits, hosts and their counts.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Reply;
use super::listeners::address;
use super::query::Query;
use crate::control::Origin;
use crate::control::dump::Dump;
use crate::exchange::RoutingPriority;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{Cell, StatGroup};
use crate::upstream::health::Health;
use crate::upstream::host::{HealthStatus, Locality};
use crate::upstream::{Cluster, Host};

pub(super) fn clusters(snapshot: &Snapshot, dump: &Dump, query: &Query) -> Reply {
    let mut clusters: Vec<&Arc<Cluster>> = snapshot.clusters.iter().collect();
    clusters.sort_by(|a, b| a.name().cmp(b.name()));
    let origins: HashMap<&str, Origin> =
        dump.clusters.iter().map(|shown| (&*shown.name, shown.origin)).collect();
    let from_api = |cluster: &Cluster| {
        origins.get(&**cluster.name()).is_some_and(|origin| *origin != Origin::Static)
    };
    if query.wants_json() {
        let statuses: Vec<Value> =
            clusters.iter().map(|cluster| status(cluster, from_api(cluster))).collect();
        return Reply::json(&json!({"cluster_statuses": statuses}));
    }
    let mut text = String::new();
    for cluster in clusters {
        // Writing to a string cannot fail.
        let _ok = lines(&mut text, cluster, from_api(cluster));
    }
    Reply::text(text)
}

const PRIORITIES: [(RoutingPriority, &str, &str); 2] = [
    (RoutingPriority::Default, "default_priority", "DEFAULT"),
    (RoutingPriority::High, "high_priority", "HIGH"),
];

fn lines(text: &mut String, cluster: &Cluster, from_api: bool) -> std::fmt::Result {
    let name = cluster.name();
    writeln!(text, "{name}::observability_name::{name}")?;
    for (priority, spelling, _) in PRIORITIES {
        let limits = cluster.breakers().limits(priority);
        writeln!(text, "{name}::{spelling}::max_connections::{}", limits.max_connections)?;
        writeln!(
            text,
            "{name}::{spelling}::max_pending_requests::{}",
            limits.max_pending_requests
        )?;
        writeln!(text, "{name}::{spelling}::max_requests::{}", limits.max_requests)?;
        writeln!(text, "{name}::{spelling}::max_retries::{}", limits.max_retries)?;
    }
    writeln!(text, "{name}::added_via_api::{from_api}")?;
    if let Some(eds) = cluster.eds().filter(|eds| eds.service_name != *name) {
        writeln!(text, "{name}::eds_service_name::{}", eds.service_name)?;
    }
    for_each_host(cluster, |priority, locality, host| {
        let at = format!("{name}::{}", host.address());
        host.stats.visit(&mut |cell, value| {
            let value = value_of(value);
            text.push_str(&format!("{at}::{cell}::{value}\n"));
        });
        let Locality { region, zone, sub_zone } = locality;
        text.push_str(&format!(
            "{at}::hostname::{}\n{at}::health_flags::{}\n{at}::weight::{}\n{at}::region::{region}\n\
             {at}::zone::{zone}\n{at}::sub_zone::{sub_zone}\n{at}::canary::false\n\
             {at}::priority::{priority}\n{at}::success_rate::-1\n\
             {at}::local_origin_success_rate::-1\n",
            host.hostname(),
            health_flags(host),
            host.weight(),
        ));
    });
    Ok(())
}

fn for_each_host(cluster: &Cluster, mut see: impl FnMut(usize, &Locality, &Host)) {
    for (priority, hosts) in cluster.hosts().priorities.iter().enumerate() {
        for locality in &hosts.localities {
            for host in &hosts.hosts[locality.range.clone()] {
                see(priority, &locality.locality, host);
            }
        }
    }
}

fn value_of(cell: Cell<'_>) -> i64 {
    match cell {
        Cell::Counter(counter) => i64::try_from(counter.value()).unwrap_or(i64::MAX),
        Cell::Gauge(gauge) => gauge.value(),
        Cell::Histogram(histogram) => i64::try_from(histogram.value().count()).unwrap_or(i64::MAX),
    }
}

/// Envoy's words for why a host is not used as a healthy one is.
fn health_flags(host: &Host) -> String {
    let mut flags = String::new();
    match host.checked() {
        Health::Healthy => {}
        Health::Degraded => flags.push_str("/degraded_active_hc"),
        Health::Pending => flags.push_str("/failed_active_hc/pending_active_hc"),
        Health::Unhealthy => flags.push_str("/failed_active_hc"),
        Health::TimedOut => flags.push_str("/failed_active_hc/active_hc_timeout"),
        Health::Excluded => flags.push_str("/failed_active_hc/excluded_via_immediate_hc_fail"),
    }
    if host.is_ejected() {
        flags.push_str("/failed_outlier_check");
    }
    flags.push_str(match host.health() {
        HealthStatus::Unknown | HealthStatus::Healthy => "",
        HealthStatus::Degraded => "/degraded_eds_health",
        HealthStatus::Draining => "/eds_status_draining",
        HealthStatus::Unhealthy | HealthStatus::Timeout => "/failed_eds_health",
    });
    if flags.is_empty() { "healthy".to_owned() } else { flags }
}

/// A cluster in the form of `admin.v3.ClusterStatus`.
fn status(cluster: &Cluster, from_api: bool) -> Value {
    let thresholds = PRIORITIES.map(|(priority, _, spelling)| {
        let limits = cluster.breakers().limits(priority);
        json!({
            "priority": spelling,
            "max_connections": limits.max_connections,
            "max_pending_requests": limits.max_pending_requests,
            "max_requests": limits.max_requests,
            "max_retries": limits.max_retries,
        })
    });
    let mut hosts = Vec::new();
    for_each_host(cluster, |priority, locality, host| {
        hosts.push(host_status(priority, locality, host));
    });
    let mut status = Map::new();
    status.insert("name".into(), (&**cluster.name()).into());
    status.insert("added_via_api".into(), from_api.into());
    status.insert("host_statuses".into(), hosts.into());
    status.insert("circuit_breakers".into(), json!({"thresholds": thresholds}));
    status.insert("observability_name".into(), (&**cluster.name()).into());
    if let Some(eds) = cluster.eds().filter(|eds| eds.service_name != *cluster.name()) {
        status.insert("eds_service_name".into(), (&*eds.service_name).into());
    }
    Value::Object(status)
}

fn host_status(priority: usize, locality: &Locality, host: &Host) -> Value {
    let mut stats = Vec::new();
    host.stats.visit(&mut |name, cell| {
        let mut stat = json!({"name": name, "value": value_of(cell).to_string()});
        if matches!(cell, Cell::Gauge(_)) {
            stat["type"] = "GAUGE".into();
        }
        stats.push(stat);
    });
    let health = match host.health() {
        HealthStatus::Unknown => "HEALTHY",
        health => health.as_str(),
    };
    let mut health = json!({"eds_health_status": health});
    let checked = host.checked();
    for (name, is_set) in [
        ("failed_active_health_check", !checked.is_up()),
        ("failed_outlier_check", host.is_ejected()),
        ("failed_active_degraded_check", checked == Health::Degraded),
        ("pending_active_hc", checked == Health::Pending),
        ("excluded_via_immediate_hc_fail", checked == Health::Excluded),
        ("active_hc_timeout", checked == Health::TimedOut),
    ] {
        if is_set {
            health[name] = true.into();
        }
    }
    let Locality { region, zone, sub_zone } = locality;
    json!({
        "address": address(host.address()),
        "stats": stats,
        "health_status": health,
        "weight": host.weight(),
        "hostname": &**host.hostname(),
        "priority": priority,
        "locality": {"region": &**region, "zone": &**zone, "sub_zone": &**sub_zone},
    })
}
