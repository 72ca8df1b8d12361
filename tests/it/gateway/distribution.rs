//! How requests are shared out, counted over ten thousand of them: by two workers, each of which takes
//! turns of its own, for clients that keep their connections.

use std::net::SocketAddr;

use super::world::{ORIGINS, World};
use crate::harness::Http1;
use crate::harness::scrape::Scrape;

/// Before the instances change, and for each state after.
const REQUESTS: usize = 10_000;
const FEWER: usize = 4_000;
const CLIENTS: usize = 16;

/// How many of so many requests each origin answered.
async fn shares(address: SocketAddr, requests: usize) -> [usize; ORIGINS.len()] {
    let clients = (0..CLIENTS).map(|_| {
        tokio::spawn(async move {
            let mut client = Http1::connect(address).await;
            let mut shares = [0; ORIGINS.len()];
            for _ in 0..requests / CLIENTS {
                let answer = client.get("/").await;
                assert_eq!(answer.status, 200);
                let name = answer.text();
                shares[ORIGINS.iter().position(|origin| *origin == name).unwrap()] += 1;
            }
            shares
        })
    });
    let mut all = [0; ORIGINS.len()];
    for client in clients.collect::<Vec<_>>() {
        for (sum, share) in all.iter_mut().zip(client.await.unwrap()) {
            *sum += share;
        }
    }
    assert_eq!(all.iter().sum::<usize>(), requests);
    all
}

/// A service of this strategy. Before it has a fifth instance, while it has and after, each instance must
/// get its part of the requests, give or take `slack` of all of them and of the part.
async fn spread(strategy: &str, weights: [usize; ORIGINS.len()], slack: fn(usize, usize) -> usize) {
    let instance = |(name, weight)| format!("{{id: {name}, url: ${name}, weight: {weight}}}");
    let four: Vec<_> = ORIGINS.iter().zip(weights).take(4).map(instance).collect();
    let mut world = World::new().await;
    world.write(&format!(
        "services: [{{name: s, strategy: {strategy}, instances: [{}]}}]\nroutes: [{{service: s}}]
load_balancer: {{health_check: {{enabled: false}}}}\n",
        four.join(", ")
    ));
    world.start_with_workers("2").await.unwrap();
    let address = world.proxy().new_listener("in").await;
    let check = async |when: &str, instances: usize, requests: usize| {
        world.proxy().until_stat("cluster.s.membership_total", instances as u64).await;
        let shares = shares(address, requests).await;
        let sum: usize = weights[..instances].iter().sum();
        for (index, share) in shares.into_iter().enumerate() {
            let due = if index < instances { requests * weights[index] / sum } else { 0 };
            let slack = slack(requests, due);
            assert!(share.abs_diff(due) <= slack, "{strategy}, {when}: {shares:?}");
        }
    };
    check("before", 4, REQUESTS).await;
    let weight = weights[4];
    let fifth = format!(r#"{{"id": "e", "url": "http://$e.address", "weight": {weight}}}"#);
    world.api("POST", "/v1/services/s/instances", &fifth).await;
    check("with the fifth", 5, FEWER).await;
    world.api("DELETE", "/v1/services/s/instances/e", "").await;
    check("after", 4, FEWER).await;

    let scrape = Scrape::of(world.proxy()).await;
    for name in &ORIGINS[..4] {
        let instance = world.origin(name).address.to_string();
        let labels = [("instance", instance.as_str()), ("strategy", strategy)];
        let counted = scrape.count("gateway_loadbalancer_requests_total", &labels);
        assert_eq!(counted, world.origin(name).requests() as u64, "{name}");
    }
}

#[tokio::test]
async fn round_robin_is_even_within_a_hundredth_of_each_share() {
    spread("round_robin", [1; ORIGINS.len()], |_, due| due / 100).await;
}

#[tokio::test]
async fn weights_are_honoured_within_a_hundredth_of_all_requests() {
    spread("weighted", [4, 3, 2, 1, 10], |requests, _| requests / 100).await;
}
