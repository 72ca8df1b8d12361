//! The tier in a cluster of three.

use futures_util::future::join_all;

use crate::server::{Proxy, Server, free_port};
use crate::wait::eventually;

/// Members that know each other, each with a third of the keys.
async fn cluster() -> Option<Vec<Server>> {
    let mut servers = Vec::new();
    let mut buses = Vec::new();
    for _ in 0..3 {
        let bus = free_port().await.to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus];
        servers.push(Server::start(&options).await?);
        buses.push(bus);
    }
    let first = servers[0].port.to_string();
    for (n, range) in [["0", "5460"], ["5461", "10922"], ["10923", "16383"]].iter().enumerate() {
        let _: () = servers[n].ask(&["CLUSTER", "ADDSLOTSRANGE", range[0], range[1]]).await;
        let epoch = (n + 1).to_string();
        let _: () = servers[n].ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        if n > 0 {
            let _: () = servers[n].ask(&["CLUSTER", "MEET", "127.0.0.1", &first, &buses[0]]).await;
        }
    }
    eventually("every member knows the others", async || {
        let all = servers.iter().map(async |server| {
            let info: String = server.ask(&["CLUSTER", "INFO"]).await;
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        });
        join_all(all).await.into_iter().all(|ok| ok).then_some(())
    })
    .await;
    Some(servers)
}

#[tokio::test]
async fn a_cluster_is_one_tier() {
    let Some(mut servers) = cluster().await else { return };
    let addresses: Vec<_> = servers.iter().map(Server::address).collect();
    let (a, b) = (Proxy::new(&addresses[..1], true), Proxy::new(&addresses[1..], true));
    a.until_connected().await;
    b.until_connected().await;
    let keys: Vec<_> = (0..30).map(|n| format!("http://example/{n}")).collect();
    for key in &keys {
        a.fill(key, key).await;
        assert_eq!(&b.found(key).await.value[..], key.as_bytes());
    }
    for server in &servers {
        let held: i64 = server.ask(&["DBSIZE"]).await;
        assert!(held > 1, "the keys are spread");
    }
    let early = a.get(&keys[0]).await;
    let forgotten: Vec<_> = keys[..15].iter().map(|key| key.clone().into()).collect();
    assert!(b.tier.forget(forgotten, "half".into()).confirmed().await);
    a.heard("half").await;
    a.fill_from(&keys[0], "old", &early).await;
    assert!(b.tier.purge("all".into()).confirmed().await);
    a.heard("all").await;
    for (n, key) in keys.iter().enumerate() {
        if n < 15 {
            a.assert_none(key).await;
        } else {
            assert_eq!(a.found(key).await.purges, ["all"]);
        }
    }

    // A member is gone: what it had is not found, and the tier is not asked again and again.
    servers.pop();
    let missed = a.missed();
    eventually("the loss is noticed", async || {
        for key in &keys {
            a.get(key).await;
        }
        (a.missed() > missed || a.stats.skipped.value() > 0).then_some(())
    })
    .await;
}
