//! Tests of the three forms.

use std::time::Duration;

use super::*;

crate::stats! {
    struct TestStats {
        counter upstream_rq_total,
        counter upstream_rq_2xx,
        counter upstream_rq_503,
        gauge membership_healthy,
        histogram upstream_rq_time,
    }
}

fn telemetry() -> (Telemetry, Arc<TestStats>) {
    let telemetry = Telemetry::default();
    let stats = telemetry.group::<TestStats>(Scope::cluster("users"));
    stats.upstream_rq_total.add(3);
    stats.upstream_rq_2xx.add(2);
    (telemetry, stats)
}

#[test]
fn text_is_sorted_with_histograms_last() {
    let (telemetry, stats) = telemetry();
    let other = telemetry.group::<TestStats>(Scope::cluster("a"));
    other.membership_healthy.set(-1);
    let text = Query::default().text(&telemetry);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "cluster.a.membership_healthy: -1");
    assert_eq!(lines[5], "cluster.users.upstream_rq_2xx: 2");
    assert_eq!(lines[7], "cluster.users.upstream_rq_total: 3");
    assert_eq!(lines[8], "cluster.a.upstream_rq_time: No recorded values");
    assert_eq!(lines[9], "cluster.users.upstream_rq_time: No recorded values");
    for ms in 1..=100 {
        stats.upstream_rq_time.record(Duration::from_millis(ms));
    }
    let text = Query::default().text(&telemetry);
    assert!(
        text.ends_with(
            "cluster.users.upstream_rq_time: P0(nan,0.5) P25(nan,25) P50(nan,50) P75(nan,75) \
             P90(nan,90) P95(nan,95) P99(nan,99) P99.5(nan,99.5) P99.9(nan,99.9) P100(nan,100)\n"
        ),
        "{text}"
    );
}

#[test]
fn filter_and_usedonly_select() {
    let (telemetry, _stats) = telemetry();
    let used = Query { used_only: true, filter: None };
    let expected = "cluster.users.upstream_rq_2xx: 2\ncluster.users.upstream_rq_total: 3\n";
    assert_eq!(used.text(&telemetry), expected);
    assert!(!used.prometheus(&telemetry).contains("histogram"));
    let filter = Some(Regex::new(r"^cluster\.users\.upstream_rq_total$").unwrap());
    let named = Query { used_only: false, filter };
    assert_eq!(named.text(&telemetry), "cluster.users.upstream_rq_total: 3\n");
    assert_eq!(
        named.prometheus(&telemetry),
        "# TYPE envoy_cluster_upstream_rq_total counter\n\
         envoy_cluster_upstream_rq_total{envoy_cluster_name=\"users\"} 3\n"
    );
}

#[test]
fn json_parses_and_holds_the_same_values() {
    let (telemetry, stats) = telemetry();
    stats.upstream_rq_time.record(Duration::from_micros(250));
    let json: serde_json::Value = serde_json::from_str(&Query::default().json(&telemetry)).unwrap();
    let stats = json["stats"].as_array().unwrap();
    assert_eq!(stats[3]["name"], "cluster.users.upstream_rq_total");
    assert_eq!(stats[3]["value"], 3);
    let histograms = &stats[4]["histograms"];
    assert_eq!(histograms["supported_quantiles"][7], 99.5);
    assert_eq!(histograms["computed_quantiles"][0]["name"], "cluster.users.upstream_rq_time");
    assert_eq!(histograms["computed_quantiles"][0]["values"][9]["cumulative"], 0.5);
    let nothing = Query { filter: Some(Regex::new("^$").unwrap()), used_only: false };
    assert_eq!(nothing.json(&telemetry), r#"{"stats":[]}"#);
}

#[test]
fn prometheus_takes_response_codes_into_labels() {
    let (telemetry, stats) = telemetry();
    stats.upstream_rq_503.inc();
    stats.upstream_rq_time.record(Duration::from_micros(1_500));
    let _global = telemetry.group::<TestStats>(Scope::global("server"));
    let text = Query::default().prometheus(&telemetry);
    for line in [
        "# TYPE envoy_cluster_upstream_rq_xx counter",
        r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="users"} 2"#,
        r#"envoy_cluster_upstream_rq{envoy_response_code="503",envoy_cluster_name="users"} 1"#,
        r#"envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="users",le="1"} 0"#,
        r#"envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="users",le="5"} 1"#,
        r#"envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="users",le="+Inf"} 1"#,
        r#"envoy_cluster_upstream_rq_time_sum{envoy_cluster_name="users"} 1.5"#,
        r#"envoy_cluster_upstream_rq_time_count{envoy_cluster_name="users"} 1"#,
        "envoy_server_membership_healthy{} 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
}

#[test]
fn label_values_are_escaped() {
    let telemetry = Telemetry::default();
    let _stats = telemetry.group::<TestStats>(Scope::cluster("a\"b\\c\nd"));
    let text = Query::default().prometheus(&telemetry);
    assert!(text.contains(r#"envoy_cluster_name="a\"b\\c\nd"} 0"#), "{text}");
    let json = Query::default().json(&telemetry);
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
}

#[test]
fn ten_thousand_scopes_render_quickly() {
    let telemetry = Telemetry::default();
    let groups: Vec<Arc<TestStats>> =
        (0..10_000).map(|i| telemetry.group(Scope::cluster(&format!("cluster_{i}")))).collect();
    let query = Query { used_only: false, filter: Some(Regex::new("upstream").unwrap()) };
    for render in [Query::text, Query::json, Query::prometheus] {
        let started = tokio::time::Instant::now();
        let text = render(&query, &telemetry);
        let took = started.elapsed();
        assert!(text.len() > groups.len() * 40);
        assert!(took < Duration::from_secs(3), "took {took:?}");
    }
}
