//! The shared cache tier against real Redis servers: what is kept, what must not come back, and what a
//! request pays when the server is away.

#![cfg(test)]
#![cfg(feature = "redis")]

mod cluster;
mod outages;
mod redis_server;
mod server;
#[path = "../it/harness/wait.rs"]
#[expect(dead_code, reason = "the stories of the binary use the rest")]
mod wait;

use std::time::Duration;

use nuncio::cache::tier::{self, Config, Error, Event};
use tokio::runtime::Handle;

use server::{HOUR, Proxy, Server, TIMEOUT};
use wait::eventually;

#[tokio::test]
async fn values_are_kept_for_their_time_and_shared() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    a.assert_none("k").await;
    a.fill("k", "value").await;
    let found = b.found("k").await;
    assert_eq!((&found.value[..], found.purges.len()), (&b"value"[..], 0));
    a.fill("k", "newer").await;
    assert_eq!(&b.found("k").await.value[..], b"newer");
    assert_eq!((a.stats.written.value(), b.stats.hit.value()), (2, 2));

    let lookup = a.get("short").await;
    let short = Duration::from_millis(300);
    a.tier.fill("short".into(), "value".into(), short, &lookup.stamp);
    a.tier.fill("never".into(), "value".into(), Duration::ZERO, &lookup.stamp);
    eventually("its time ends", async || {
        (a.stats.written.value() == 3 && b.get("short").await.found.is_none()).then_some(())
    })
    .await;
    b.assert_none("never").await;
    assert_eq!(a.stats.write_dropped.value(), 1);
}

#[tokio::test]
async fn writes_keep_their_order() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    let lookup = a.get("none").await;
    for round in 0..50 {
        let fill = |key: String| a.tier.fill(key.into(), "v".into(), HOUR, &lookup.stamp);
        fill(format!("gone{round}"));
        let told = a.tier.forget(vec![format!("gone{round}").into()], "gone".into());
        fill(format!("stays{round}"));
        drop(told);
    }
    let last = a.tier.forget(Vec::new(), "end".into());
    assert!(last.confirmed().await);
    assert_eq!((a.stats.written.value(), a.stats.write_refused.value()), (100, 0));
    for round in 0..50 {
        b.assert_none(&format!("gone{round}")).await;
        b.found(&format!("stays{round}")).await;
    }
    b.heard("end").await;
}

#[tokio::test]
async fn proxies_hear_each_other_and_not_themselves() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    assert!(a.tier.forget(vec!["k".into()], "from a".into()).confirmed().await);
    assert!(b.tier.purge("from b".into()).confirmed().await);
    assert!(a.tier.purge("from a too".into()).confirmed().await);
    a.heard("from b").await;
    b.heard("from a too").await;
    let message = |text: &'static str| Event::Message(text.into());
    assert_eq!(a.events(), [Event::Missed, message("from b")]);
    assert_eq!(b.events(), [Event::Missed, message("from a"), message("from a too")]);
    assert_eq!((a.stats.published.value(), a.stats.received.value()), (2, 1));
    // What others say on the channel is nothing to us.
    for rubbish in ["", "K", "Kshort", "?????????????"] {
        let _: i64 = server.ask(&["PUBLISH", "nuncio:invalidate", rubbish]).await;
    }
    assert!(a.tier.forget(Vec::new(), "last".into()).confirmed().await);
    b.heard("last").await;
    assert_eq!(b.events().len(), 4);
}

#[tokio::test]
async fn a_fill_does_not_bring_back_a_key_forgotten_since_it_began() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    a.fill("k", "old").await;
    let early = a.get("k").await;
    let unseen = a.tier.stamp();
    assert!(b.tier.forget(vec!["k".into()], "k".into()).confirmed().await);
    a.assert_none("k").await;
    a.fill_from("k", "old", &early).await;
    a.assert_none("k").await;
    assert_eq!(a.stats.write_refused.value(), 1);
    let late = a.get("k").await;
    a.fill_from("k", "new", &late).await;
    assert_eq!(&b.found("k").await.value[..], b"new");
    // Forgotten once more: what saw the first tombstone did not see the second.
    assert!(b.tier.forget(vec!["k".into()], "k".into()).confirmed().await);
    a.fill_from("k", "new", &late).await;
    a.tier.fill("k".into(), "old".into(), HOUR, &unseen);
    eventually("both are refused", async || (a.stats.write_refused.value() == 3).then_some(()))
        .await;
    b.assert_none("k").await;
}

#[tokio::test]
async fn a_purge_goes_with_every_value_whose_fill_began_before_it() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    a.fill("stored", "v").await;
    let early = a.get("late").await;
    assert!(b.tier.purge("/img/*".into()).confirmed().await);
    assert_eq!(b.found("stored").await.purges, ["/img/*"], "at once where it was given");
    a.heard("/img/*").await;
    a.fill_from("late", "v", &early).await;
    let newcomer = Proxy::connected(&server).await;
    for proxy in [&a, &b, &newcomer] {
        assert_eq!(proxy.found("stored").await.purges, ["/img/*"]);
        assert_eq!(proxy.found("late").await.purges, ["/img/*"]);
    }
    a.fill("late", "v").await;
    assert!(a.tier.purge("/css/*".into()).confirmed().await);
    newcomer.heard("/css/*").await;
    assert_eq!(newcomer.found("late").await.purges, ["/css/*"]);
    assert_eq!(newcomer.found("stored").await.purges, ["/img/*", "/css/*"]);
}

#[tokio::test]
async fn what_is_given_here_holds_here_before_the_server_has_it() {
    let Some(server) = Server::start(&[]).await else { return };
    let a = Proxy::connected(&server).await;
    a.fill("k", "v").await;
    a.fill("l", "v").await;
    let _: () = server.ask(&["CLIENT", "PAUSE", "1500", "WRITE"]).await;
    let forgotten = a.tier.forget(vec!["k".into()], "k".into());
    let purged = a.tier.purge("p".into());
    a.assert_none("k").await;
    assert_eq!(a.found("l").await.purges, ["p"]);
    assert_eq!(a.stats.published.value(), 0, "the server does not have it yet");
    let _: () = server.ask(&["CLIENT", "UNPAUSE"]).await;
    assert!(forgotten.confirmed().await && purged.confirmed().await);
    a.assert_none("k").await;
    assert_eq!(a.found("l").await.purges, ["p"]);
}

#[tokio::test]
async fn a_log_that_is_lost_or_goes_back_takes_all_values_with_it() {
    let Some(server) = Server::start(&[]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    assert!(a.tier.purge("one".into()).confirmed().await);
    assert!(a.tier.purge("two".into()).confirmed().await);
    b.heard("two").await;
    let damages: [&[&str]; 5] = [
        &["DEL", "nuncio:purges"],
        &["HSET", "nuncio:purges", "last", "1"],
        &["HSET", "nuncio:purges", "2", "another purge"],
        &["HSET", "nuncio:purges", "last", "4"],
        &["HSET", "nuncio:purges", "era", "other", "last", "0"],
    ];
    for damage in damages {
        eventually("a value is there", async || {
            a.fill("k", "v").await;
            b.get("k").await.found
        })
        .await;
        let missed = (a.missed(), b.missed());
        let _: i64 = server.ask(damage).await;
        eventually("both know", async || {
            (a.missed() > missed.0 && b.missed() > missed.1).then_some(())
        })
        .await;
        a.assert_none("k").await;
        b.assert_none("k").await;
        // Again as many, so that the next damage finds the same.
        assert!(a.tier.purge("one".into()).confirmed().await);
        assert!(b.tier.purge("two".into()).confirmed().await);
        eventually("both have seen both", async || {
            a.fill("k", "v").await;
            let found = (a.get("k").await.found?, b.get("k").await.found?);
            (found.0.purges.is_empty() && found.1.purges.is_empty()).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_others_wrote_under_our_keys_is_not_found() {
    let Some(server) = Server::start(&[]).await else { return };
    let a = Proxy::connected(&server).await;
    let _: () = server.ask(&["SET", "nuncio:v:k", "hello"]).await;
    let _: i64 = server.ask(&["RPUSH", "nuncio:v:list", "hello"]).await;
    a.assert_none("k").await;
    a.assert_none("list").await;
    assert_eq!(a.stats.error.value(), 2);
    a.fill("k", "v").await;
    assert_eq!(&a.found("k").await.value[..], b"v");
}

#[tokio::test]
async fn a_server_without_memory_still_forgets() {
    let Some(server) = Server::start(&["--maxmemory-policy", "noeviction"]).await else { return };
    let (a, b) = (Proxy::connected(&server).await, Proxy::connected(&server).await);
    a.fill("k", "v").await;
    a.fill("other", "v").await;
    let _: () = server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let dropped = a.stats.write_dropped.value();
    a.fill("k", "v2").await;
    assert_eq!(a.stats.write_dropped.value(), dropped + 1);
    assert!(a.tier.forget(vec!["k".into()], "k".into()).confirmed().await);
    b.assert_none("k").await;
    assert!(a.tier.purge("p".into()).confirmed().await);
    b.heard("p").await;
    assert_eq!(b.found("other").await.purges, ["p"]);
}

#[tokio::test]
async fn a_password_may_stand_in_the_address() {
    let Some(server) = Server::start(&["--requirepass", "secret"]).await else { return };
    let a = Proxy::new(&[format!("redis://:secret@{}", server.address())], false);
    a.until_connected().await;
    a.fill("k", "v").await;
    a.found("k").await;
    let named = Proxy::new(&[format!("redis://default:secret@{}", server.address())], false);
    named.until_connected().await;
    named.found("k").await;
    let wrong = Proxy::new(&[format!("redis://:guess@{}", server.address())], false);
    assert!(wrong.get("k").await.found.is_none());
    assert_eq!((wrong.stats.skipped.value(), wrong.stats.connected.value()), (1, 0));
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused() {
    let start = |addresses: &[&str], timeout| {
        let addresses = addresses.iter().map(ToString::to_string).collect();
        let config = Config { addresses, cluster: false, timeout, prefix: String::new() };
        tier::start(config, &Handle::current(), Default::default(), Box::new(|_| ())).err()
    };
    assert_eq!(start(&[], TIMEOUT), Some(Error::NoAddress));
    assert_eq!(start(&["a:1"], Duration::ZERO), Some(Error::NoTimeout));
    assert_eq!(start(&["a:1", "secret@b"], TIMEOUT), Some(Error::Address(1)));
    assert_eq!(start(&["127.0.0.1:1"], TIMEOUT), None);
}
