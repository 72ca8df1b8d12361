//! Bytes that nobody should send. The proxy may refuse them; it must live.

use futures_util::future::join_all;
use prost_types::Any;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::harness::resources::{
    any, assignment, bootstrap, eds_cluster, listener, rds_listener, static_cluster, table, to,
};
use crate::harness::{Http1, Kind, Origin, Proxy, get, sotw};
use crate::http_h1::in_front_of;
use crate::xds_world::World;

/// Printed when a story fails, so that it can be told again.
const SEED: u64 = 0x6e75_6e63_696f;

fn random() -> StdRng {
    StdRng::seed_from_u64(SEED)
}

/// Random bytes; every other time with the beginning of something that makes sense.
fn junk(rng: &mut StdRng) -> Vec<u8> {
    let starts: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        b"GET /ready HTTP/1.1\r\nhost: ",
    ];
    let mut bytes = starts[rng.random_range(0..starts.len())].to_vec();
    let from = bytes.len();
    bytes.resize(from + rng.random_range(1..2000), 0);
    rng.fill_bytes(&mut bytes[from..]);
    bytes
}

#[tokio::test]
async fn random_bytes_on_every_socket() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    let mut rng = random();
    for target in [address, proxy.admin] {
        for _ in 0..150 {
            let bytes = junk(&mut rng);
            let mut client = Http1::connect(target).await;
            let _ = client.try_send(&bytes).await;
        }
    }
    assert_eq!(get(address, "/").await.text(), "one");
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    assert!(!proxy.process.stderr().contains("panicked"));
}

#[tokio::test]
async fn random_resources_are_refused_or_harmless() {
    let mut world = World::sotw().await;
    let mut rng = random();
    let good = [
        (Kind::Cluster, eds_cluster("one")),
        (Kind::Endpoints, assignment("one", &[world.origin.address])),
        (Kind::Listener, rds_listener("in", "table")),
        (Kind::Routes, table("table", &[to("one")])),
    ];
    for round in 0..120 {
        let (kind, value) = &good[round % good.len()];
        let mut bad = any(*kind, value);
        match round % 3 {
            0 => {
                let mut bytes = vec![0; rng.random_range(0..300)];
                rng.fill_bytes(&mut bytes);
                bad = Any { type_url: kind.url(), value: bytes };
            }
            1 => {
                let at = rng.random_range(0..bad.value.len());
                bad.value[at] ^= 1 << rng.random_range(0..8);
            }
            _ => {
                let end = rng.random_range(0..bad.value.len());
                bad.value.truncate(end);
            }
        }
        let version = format!("junk-{round}");
        let mut response = sotw(*kind, &version, &[]);
        response.resources = vec![bad];
        world.stream.respond(response).await;
        let nonce = format!("{kind:?}-{version}");
        while world.stream.request(*kind).await.response_nonce != nonce {}
    }
    // What it made of them does not matter. It lives, and takes what is good.
    for (kind, value) in &good {
        world.push(*kind, "good", std::slice::from_ref(value)).await;
    }
    let address = world.proxy.listener("in").await;
    crate::harness::eventually("good resources serve", async || {
        (get(address, "/").await.text() == "one").then_some(())
    })
    .await;
    assert!(!world.proxy.process.stderr().contains("panicked"));
}

#[tokio::test]
async fn many_connections_opened_and_dropped() {
    let origin = Origin::http1("one").await;
    let proxy = in_front_of(&origin).await;
    let address = proxy.listener("in").await;
    for _ in 0..5 {
        let opened = join_all((0..200).map(|_| Http1::connect(address))).await;
        drop(opened);
    }
    let mut asked = join_all((0..100).map(|_| Http1::connect(address))).await;
    for client in &mut asked {
        client.send("GET / HTTP/1.1\r\nhost: t\r\n\r\n").await;
    }
    drop(asked);
    proxy.until_stat_at_least("http.in.downstream_cx_total", 1100).await;
    proxy.until_stat("http.in.downstream_cx_active", 0).await;
    proxy.until_stat("http.in.downstream_rq_active", 0).await;
    proxy.until_stat("cluster.one.upstream_rq_active", 0).await;
    assert_eq!(get(address, "/").await.text(), "one");
}

#[tokio::test]
async fn heads_of_every_size_are_answered() {
    let origin = Origin::http1("one").await;
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener("in", &[to("one")])], &[cluster])).await;
    let address = proxy.listener("in").await;
    for (count, statuses) in
        [(10, [200, 200]), (90, [200, 200]), (500, [431, 431]), (5000, [431, 400])]
    {
        let headers: String = (0..count).map(|n| format!("x-{n}: {n}\r\n")).collect();
        let mut client = Http1::connect(address).await;
        let _ =
            client.try_send(format!("GET / HTTP/1.1\r\nhost: t\r\n{headers}\r\n").as_bytes()).await;
        let status = client.try_answer("GET").await.map(|a| a.status);
        assert!(status.is_some_and(|s| statuses.contains(&s)), "{count}: {status:?}");
    }
    for length in [1000, 50_000, 200_000] {
        let mut client = Http1::connect(address).await;
        let path = "p".repeat(length);
        let _ =
            client.try_send(format!("GET /{path} HTTP/1.1\r\nhost: t\r\n\r\n").as_bytes()).await;
        let status = client.try_answer("GET").await.map(|a| a.status);
        assert!(matches!(status, Some(200 | 414 | 431)), "{length}: {status:?}");
    }
    assert_eq!(get(address, "/").await.status, 200);
}
