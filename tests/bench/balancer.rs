//! The cost of choosing a host among ten thousand, by each policy.
//!
//! `cargo bench --bench balancer`. Round robin, random and least request should stay under 50 ns, ring
//! hash and Maglev under 100 ns; the change of one host should take effect within 5 ms.

use criterion::{BatchSize, Criterion, Throughput};
use nuncio::proto::envoy::config::cluster::v3 as proto;
use nuncio::proto::json::from_json;
use nuncio::upstream::{Cluster, CompileContext, LbContext, LoadBalancer};
use serde_json::{Value, json};

const HOSTS: u32 = 10_000;

fn cluster(policy: &str, weights: bool) -> Value {
    let endpoint = |n: u32| {
        let address = format!("10.{}.{}.{}", n / 65_536, n / 256 % 256, n % 256);
        let weight = if weights { n % 7 + 1 } else { 1 };
        json!({ "load_balancing_weight": weight, "endpoint": { "address": {
            "socket_address": { "address": address, "port_value": 80 } } } })
    };
    let endpoints: Vec<Value> = (0..HOSTS).map(endpoint).collect();
    json!({ "name": "one", "lb_policy": policy, "load_assignment": { "cluster_name": "one",
        "endpoints": [{ "lb_endpoints": endpoints }] } })
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _inside = runtime.enter();
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("choose among 10,000 hosts");
    group.throughput(Throughput::Elements(1));
    let policies = [
        ("ROUND_ROBIN", false),
        ("ROUND_ROBIN", true),
        ("RANDOM", false),
        ("LEAST_REQUEST", false),
        ("RING_HASH", false),
        ("MAGLEV", false),
    ];
    for (policy, weights) in policies {
        let message =
            from_json::<proto::Cluster>(cluster(policy, weights)).expect("a cluster").message;
        let cluster = Cluster::compile(message, &CompileContext::default()).expect("a cluster");
        let balancer = LoadBalancer::new(cluster);
        let mut request = 0u64;
        let name = if weights { format!("{policy} by weight") } else { policy.to_owned() };
        group.bench_function(name, |bench| {
            bench.iter_batched(
                || {
                    request = request.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    request
                },
                |hash| {
                    let cx = LbContext { hash: Some(hash), ..LbContext::default() };
                    balancer.choose(&cx).expect("a host")
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();

    let message = from_json::<proto::Cluster>(cluster("ROUND_ROBIN", false)).expect("a cluster");
    let cluster = Cluster::compile(message.message, &CompileContext::default()).expect("a cluster");
    let balancer = LoadBalancer::new(cluster);
    let address = "10.0.0.77:80".parse().expect("an address");
    let mut weight = 1;
    criterion.bench_function("change one of 10,000 hosts and choose", |bench| {
        bench.iter(|| {
            weight = 3 - weight;
            balancer.add(address, weight);
            balancer.choose(&LbContext::default()).expect("a host")
        });
    });
    criterion.final_summary();
}
