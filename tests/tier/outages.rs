//! Servers that are away, slow, back again, or something else altogether: a request pays the timeout a
//! few times and then nothing, and nothing old comes back.

use std::time::Duration;

use nuncio::cache::tier::Event;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::server::{Proxy, Server, TIMEOUT, free_port};
use crate::wait::{eventually, soon};

/// Many lookups, one after another. At the price of a timeout for each they would take forty seconds.
async fn two_hundred_lookups_are_quick(proxy: &Proxy) {
    let begun = Instant::now();
    for _ in 0..200 {
        proxy.get("k").await;
    }
    let took = begun.elapsed();
    assert!(took < 20 * TIMEOUT, "{took:?}");
    assert!(proxy.stats.timeout.value() <= 3, "{:?}", proxy.stats);
    assert!(proxy.stats.skipped.value() >= 190, "{:?}", proxy.stats);
    assert_eq!(proxy.stats.connected.value(), 0);
}

#[tokio::test]
async fn a_server_that_dies_costs_little_and_is_found_again() {
    let Some(mut server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    a.fill("k", "v").await;
    let before = a.get("k").await;
    server.kill();
    two_hundred_lookups_are_quick(&a).await;
    let waiting = a.tier.forget(vec!["other".into()], "while it was away".into());
    let dropped = a.stats.write_dropped.value();
    a.fill_from("k", "v", &before).await;
    assert_eq!(a.stats.write_dropped.value(), dropped + 1);

    server.restart().await;
    a.until_connected().await;
    b.until_connected().await;
    assert!(waiting.confirmed().await);
    eventually("both are told that they missed something", async || {
        (a.missed() == 2 && b.missed() == 2).then_some(())
    })
    .await;
    // What began before belongs to another era.
    a.fill_from("k", "v", &before).await;
    a.assert_none("k").await;
    a.fill("k", "v2").await;
    assert_eq!(&b.found("k").await.value[..], b"v2");
}

#[tokio::test]
async fn a_server_that_stands_still_costs_little_and_forgets_when_it_goes_on() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    for key in ["k", "forgotten", "kept"] {
        a.fill(key, "v").await;
    }
    server.signal("STOP");
    two_hundred_lookups_are_quick(&a).await;
    assert_eq!(a.stats.timeout.value(), 3);
    let told = a.tier.forget(vec!["forgotten".into()], "forgotten".into());
    assert!(!soon("an answer", told.confirmed()).await);
    let purged = a.tier.purge("p".into());

    server.signal("CONT");
    a.until_connected().await;
    a.assert_none("forgotten").await;
    assert_eq!(a.found("kept").await.purges, ["p"]);
    assert!(purged.confirmed().await);
    b.until_connected().await;
    b.assert_none("forgotten").await;
    assert_eq!(b.found("kept").await.purges, ["p"]);
}

#[tokio::test]
async fn messages_that_were_missed_are_announced() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    let _: i64 = server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("both are told", async || (a.missed() == 2 && b.missed() == 2).then_some(())).await;
    a.until_connected().await;
    b.until_connected().await;
    assert!(a.tier.forget(Vec::new(), "after".into()).confirmed().await);
    b.heard("after").await;
    assert_eq!(b.events().last(), Some(&Event::Message("after".into())));
}

#[tokio::test]
async fn more_orders_than_can_wait_empty_the_tier() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    a.fill("k", "v").await;
    b.found("k").await;
    server.signal("STOP");
    let key = |n: usize| vec![format!("forgotten{n}").into()];
    let all: Vec<_> = (0..5000).map(|n| a.tier.forget(key(n), "m".into())).collect();
    let missed = b.missed();
    server.signal("CONT");
    eventually("the others are told", async || (b.missed() > missed).then_some(())).await;
    a.until_connected().await;
    a.assert_none("k").await;
    b.assert_none("k").await;
    drop(all);
    let told = a.tier.forget(vec!["k".into()], "once more".into());
    assert!(soon("an answer", told.confirmed()).await);
    b.heard("once more").await;
    a.fill("l", "v").await;
    b.found("l").await;
}

#[tokio::test]
async fn a_server_that_talks_rubbish_is_not_listened_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let talking = tokio::spawn(async move {
        let rubbish: [&[u8]; 4] =
            [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$99999999999\r\n", b"%\xff", b""];
        for n in 0.. {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.write_all(&rubbish[n % 4].repeat(1000)).await;
        }
    });
    let a = Proxy::new(&[address], false);
    two_hundred_lookups_are_quick(&a).await;
    assert!(!a.tier.purge("p".into()).confirmed().await);
    talking.abort();
}

#[tokio::test]
async fn a_tier_starts_before_its_server_and_tries_each_address() {
    let nobody = format!("127.0.0.1:{}", free_port().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let Some(mut server) = Server::start(&[]).await else { return };
    server.kill();
    let a = Proxy::new(&[nobody, silent, server.address()], false);
    assert!(a.get("k").await.found.is_none());
    assert_eq!(a.stats.skipped.value(), 1);
    server.restart().await;
    a.until_connected().await;
    a.fill("k", "v").await;
    a.found("k").await;
}

#[tokio::test]
async fn a_tier_that_is_dropped_lets_go_of_the_server() {
    let Some(server) = Server::start(&[]).await else { return };
    let a = Proxy::connected(&server).await;
    let connections = async || {
        let clients: String = server.ask(&["CLIENT", "LIST"]).await;
        clients.lines().count()
    };
    assert_eq!(connections().await, 3);
    drop(a.tier);
    eventually("its connections are closed", async || (connections().await == 1).then_some(()))
        .await;
}

#[test]
fn lookups_from_other_threads_are_answered_there() {
    let control =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let started = control.block_on(async {
        let server = Server::start(&[]).await?;
        let proxy = Proxy::connected(&server).await;
        proxy.fill("k", "v").await;
        Some((server, proxy))
    });
    let Some((_server, proxy)) = started else { return };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let worker =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                worker.block_on(async {
                    for _ in 0..100 {
                        assert_eq!(&proxy.found("k").await.value[..], b"v");
                    }
                });
            });
        }
    });
    drop(proxy);
    control.shutdown_timeout(Duration::from_secs(1));
}
