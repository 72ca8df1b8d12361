//! Ejection in a cluster: limits, what balancers see, what a change of the cluster keeps; and a long
//! run by a seed.

use http::StatusCode;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::proto::json::from_json;
use crate::upstream::CompileContext;
use crate::upstream::host::HealthStatus;
use crate::upstream::hosts::tests::endpoints;

fn cluster(hosts: u16, outlier: Value) -> Arc<Cluster> {
    let proto = json!({"name": "c", "outlier_detection": outlier});
    let cluster =
        Cluster::compile(from_json(proto).unwrap().message, &CompileContext::default()).unwrap();
    let all: Vec<_> = (0..hosts).map(|_| (0, HealthStatus::Unknown, 1)).collect();
    cluster.set_endpoints(&endpoints(&all));
    Arc::new(cluster)
}

const BAD: Outcome = Outcome::Answer(StatusCode::INTERNAL_SERVER_ERROR);
const GOOD: Outcome = Outcome::Answer(StatusCode::OK);

fn healthy(cluster: &Cluster) -> usize {
    cluster.hosts().priorities[0].healthy.len()
}

fn stats(cluster: &Cluster) -> &OutlierStats {
    &cluster.outlier.as_ref().unwrap().stats
}

#[tokio::test]
async fn an_outlier_is_out_at_once_and_comes_back() {
    let cluster = cluster(4, json!({"consecutive_5xx": 2, "max_ejection_percent": 100}));
    let hosts = cluster.hosts();
    let host = &hosts.priorities[0].hosts[1];
    cluster.judge(host, BAD);
    assert_eq!(healthy(&cluster), 4);
    cluster.judge(host, BAD);
    assert_eq!((healthy(&cluster), stats(&cluster).ejections_active.value()), (3, 1));
    assert_eq!(stats(&cluster).ejections_enforced_consecutive_5xx.value(), 1);
    let now = Instant::now();
    cluster.sweep_outliers(now + Duration::from_secs(29));
    assert_eq!(healthy(&cluster), 3);
    cluster.sweep_outliers(now + Duration::from_secs(31));
    assert_eq!((healthy(&cluster), stats(&cluster).ejections_active.value()), (4, 0));
}

#[tokio::test]
async fn no_more_are_out_than_may_be() {
    for (percent, one, expected) in [(50, false, 2), (49, false, 1), (10, false, 0), (0, true, 1)] {
        let cluster = cluster(
            4,
            json!({"consecutive_5xx": 1, "max_ejection_percent": percent, "always_eject_one_host": one}),
        );
        for host in cluster.hosts().iter() {
            cluster.judge(host, BAD);
        }
        assert_eq!(4 - healthy(&cluster), expected, "{percent} percent");
        assert_eq!(stats(&cluster).ejections_overflow.value(), 4 - expected as u64);
    }
}

#[tokio::test]
async fn what_is_not_enforced_is_only_counted() {
    let cluster = cluster(2, json!({"consecutive_5xx": 1, "enforcing_consecutive_5xx": 0}));
    cluster.judge(&cluster.hosts().priorities[0].hosts[0], BAD);
    assert_eq!(healthy(&cluster), 2);
    assert_eq!(stats(&cluster).ejections_detected_consecutive_5xx.value(), 1);
}

#[tokio::test]
async fn hosts_are_compared_once_an_interval() {
    let cluster = cluster(
        5,
        json!({"consecutive_5xx": 1000, "max_ejection_percent": 100, "success_rate_request_volume": 10}),
    );
    for (index, host) in cluster.hosts().iter().enumerate() {
        for n in 0..20 {
            cluster.judge(host, if index == 2 && n % 2 == 0 { BAD } else { GOOD });
        }
    }
    cluster.sweep_outliers(Instant::now());
    let out: Vec<_> = cluster.hosts().iter().map(|host| host.is_ejected()).collect();
    assert_eq!(out, [false, false, true, false, false]);
    assert_eq!(stats(&cluster).ejections_enforced_success_rate.value(), 1);
    assert_eq!(stats(&cluster).ejections_detected_failure_percentage.value(), 0);
}

#[test]
fn whatever_happens_the_sets_agree_with_the_flags() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let config = json!({
            "consecutive_5xx": 3, "max_ejection_percent": 60, "success_rate_request_volume": 5,
            "success_rate_minimum_hosts": 3, "enforcing_failure_percentage": 100,
            "failure_percentage_request_volume": 5, "split_external_local_origin_errors": seed % 2 == 0,
        });
        let cluster = cluster(6, config);
        let mut now = Instant::now();
        for step in 0..2_000 {
            let hosts = cluster.hosts();
            let host = &hosts.priorities[0].hosts[rng.random_range(0..hosts.len())];
            match rng.random_range(0..100) {
                0..40 => cluster.judge(host, GOOD),
                40..70 => cluster.judge(host, BAD),
                70..80 => cluster.judge(host, Outcome::ConnectFailure),
                80..90 => cluster.judge(host, Outcome::Timeout),
                _ => {
                    now += Duration::from_secs(rng.random_range(0..60));
                    cluster.sweep_outliers(now);
                }
            }
            let hosts = cluster.hosts();
            let out = hosts.iter().filter(|host| host.is_ejected()).count();
            let at = format!("seed {seed}, step {step}");
            assert!(out <= 3, "{at}: {out} of 6 are out");
            assert_eq!(healthy(&cluster), 6 - out, "{at}");
            assert_eq!(stats(&cluster).ejections_active.value(), out as i64, "{at}");
        }
        cluster.sweep_outliers(now + Duration::from_secs(1_000_000));
        assert!(healthy(&cluster) >= 3, "seed {seed}");
    }
}
