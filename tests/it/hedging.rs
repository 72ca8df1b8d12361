//! Tries beside each other, tries that stall, and retries that leave a priority.

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, endpoint, listener, route, static_cluster, typed, with,
};
use crate::harness::{Http1, Origin, Proxy, Script, eventually, get, request};

fn hedging(retries: u32) -> Value {
    let kind = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    json!({ "cluster": "one", "timeout": "5s",
        "hedge_policy": { "hedge_on_per_try_timeout": true },
        "retry_policy": { "retry_on": "5xx", "num_retries": retries, "per_try_timeout": "0.2s",
            "retry_back_off": { "base_interval": "0.001s" },
            "retry_host_predicate": [{ "name": "previous", "typed_config": typed(kind, json!({})) }],
            "host_selection_retry_max_attempts": 10 } })
}

async fn in_front_of(origins: &[&Origin], action: Value) -> (Proxy, std::net::SocketAddr) {
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let cluster = static_cluster("one", &addresses);
    let listeners = [listener("in", &[route("/", action)])];
    let proxy = Proxy::with(bootstrap(&listeners, &[cluster])).await;
    let address = proxy.listener("in").await;
    (proxy, address)
}

#[tokio::test]
async fn a_slow_try_is_joined_by_another_and_the_first_good_answer_wins() {
    let (slow, quick) = (Origin::http1("slow").await, Origin::http1("quick").await);
    slow.script(Script::held());
    quick.script(Script::echo());
    let (proxy, address) = in_front_of(&[&slow, &quick], hedging(1)).await;
    let body = vec![b'x'; 20_000];
    for _ in 0..6 {
        let answer = request(address, "POST", "/", &[], &body).await;
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
    }
    let hedged = slow.requests() as u64;
    assert!(hedged > 0);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_per_try_timeout").await, hedged);
    assert_eq!(proxy.stat("cluster.one.upstream_rq_retry_success").await, hedged);
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn the_slow_try_wins_when_the_other_fails_and_no_more_are_allowed() {
    let (slow, bad) = (Origin::http1("slow").await, Origin::http1("bad").await);
    slow.script(Script::held());
    bad.script(Script::status(503));
    // In turns, each request would begin with the same host, since each takes two.
    let cluster = static_cluster("one", &[slow.address, bad.address]);
    let cluster = with(cluster, json!({ "lb_policy": "RANDOM" }));
    let listeners = [listener("in", &[route("/", hedging(1))])];
    let proxy = Proxy::with(bootstrap(&listeners, &[cluster])).await;
    let address = proxy.listener("in").await;
    eventually("the slow one is asked first", async || {
        let before = slow.requests();
        let asking = tokio::spawn(async move { get(address, "/").await });
        eventually("a try or its retry is with the slow one", async || {
            (slow.requests() > before).then_some(())
        })
        .await;
        // Long enough for the other try to begin and fail.
        crate::harness::pace(std::time::Duration::from_millis(400)).await;
        slow.release();
        let answer = asking.await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "slow"));
        (proxy.stat("cluster.one.upstream_rq_per_try_timeout").await > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn all_tries_end_with_the_routes_timeout() {
    let slow = Origin::http1("slow").await;
    slow.script(Script::held());
    let action = with(hedging(1), json!({ "timeout": "0.6s" }));
    let (proxy, address) = in_front_of(&[&slow], action).await;
    let answer = get(address, "/").await;
    assert_eq!(answer.status, 504);
    assert_eq!(slow.requests(), 2);
    slow.until_active(0).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
}

#[tokio::test]
async fn a_try_of_which_nothing_comes_is_tried_again_and_a_body_that_stalls_is_cut() {
    let (slow, quick) = (Origin::http1("slow").await, Origin::http1("quick").await);
    slow.script(Script::held());
    let idle = json!({ "cluster": "one", "retry_policy": { "retry_on": "5xx", "num_retries": 5,
        "per_try_idle_timeout": "0.2s", "retry_back_off": { "base_interval": "0.001s" } } });
    let (proxy, address) = in_front_of(&[&slow, &quick], idle).await;
    for _ in 0..4 {
        assert_eq!(get(address, "/").await.text(), "quick");
    }
    let counted = "cluster.one.upstream_rq_per_try_idle_timeout";
    assert_eq!(proxy.stat(counted).await, slow.requests() as u64);
    for origin in [&slow, &quick] {
        origin.script(Script { held_after: Some(1_000), ..Script::size(4_000) });
    }
    let before = proxy.stat(counted).await;
    let mut client = Http1::connect(address).await;
    client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    assert!(client.try_answer("GET").await.is_none(), "it must not look whole");
    proxy.until_stat(counted, before + 1).await;
}

#[tokio::test]
async fn a_retry_leaves_the_priority_that_failed() {
    let (first, second) = (Origin::http1("first").await, Origin::http1("second").await);
    first.script(Script::status(503));
    let kind = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
    let action = |update_frequency: u32| {
        let config = typed(kind, json!({ "update_frequency": update_frequency }));
        let priority = json!({ "name": "previous", "typed_config": config });
        json!({ "cluster": "one", "retry_policy": { "retry_on": "5xx", "num_retries": 3,
            "retry_back_off": { "base_interval": "0.001s" }, "retry_priority": priority } })
    };
    let groups = json!([
        { "lb_endpoints": [endpoint(first.address)] },
        { "priority": 1, "lb_endpoints": [endpoint(second.address)] },
    ]);
    let cluster = with(
        static_cluster("one", &[]),
        json!({ "load_assignment": { "cluster_name": "one", "endpoints": groups } }),
    );
    let routes = [route("/two", action(2)), route("/", action(1))];
    let proxy = Proxy::with(bootstrap(&[listener("in", &routes)], &[cluster])).await;
    let address = proxy.listener("in").await;
    for (path, tries) in [("/", 1), ("/two", 2)] {
        let before = first.requests();
        assert_eq!(get(address, path).await.text(), "second", "{path}");
        assert_eq!(first.requests() - before, tries, "{path}");
    }
}
