//! Bytes without end: they cost no more than what was allowed.

use super::recorder::Told;
use super::*;

/// How much is sent at most.
const MUCH: usize = 32 << 20;

/// By how much the proxy may grow meanwhile.
const MOST: u64 = 8 << 20;

/// Sends a beginning and then the same again and again, until the proxy has closed the connection or has
/// been sent enough. Returns what it said.
async fn flood(world: &World, start: &str, again: &str) -> Vec<u8> {
    let mut client = Http1::connect(world.address).await;
    let piece = again.repeat((64 << 10) / again.len());
    client.send(start).await;
    for _ in 0..MUCH / piece.len() {
        if client.try_send(piece.as_bytes()).await.is_err() {
            break;
        }
    }
    client.finish().await;
    client.rest().await.to_vec()
}

#[tokio::test]
async fn requests_without_end_are_refused_early() {
    let world = World::start(false).await;
    let post = "POST /a HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
    let floods = [
        ("a method", String::new(), "G", &[400, 431][..]),
        ("a target", "GET /".to_owned(), "a", &[414, 431]),
        ("a name", "GET / HTTP/1.1\r\nhost: t\r\n".to_owned(), "a", &[431]),
        ("a value", "GET / HTTP/1.1\r\nhost: t\r\nx: ".to_owned(), "a", &[431]),
        ("headers", "GET / HTTP/1.1\r\nhost: t\r\n".to_owned(), "x: y\r\n", &[431]),
        ("empty headers", "GET / HTTP/1.1\r\nhost: t\r\n".to_owned(), "x:\r\n", &[431]),
        ("empty lines", String::new(), "\r\n", &[400, 431]),
        ("a size", post.to_owned(), "0", &[]),
        ("an extension", format!("{post}1;"), "x", &[]),
        ("extensions", post.to_owned(), "1;xxxxxxxxxxxxxxxxxxxxxxxxx\r\na\r\n", &[]),
        ("a trailer", format!("{post}0\r\nx: "), "a", &[]),
        ("trailers", format!("{post}0\r\n"), "x: y\r\n", &[]),
    ];
    world.innocent("nothing").await;
    let start = world.proxy.process.rss();
    let mut wrong = Vec::new();
    for (name, start, again, wanted) in floods {
        let statuses = statuses(&flood(&world, &start, again).await);
        let right = match wanted {
            [] => statuses.iter().all(|status| *status >= 400),
            wanted => matches!(&statuses[..], [one] if wanted.contains(one)),
        };
        if !right {
            wrong.push((name, statuses));
        }
        assert_eq!(world.innocent(name).await, [""; 0]);
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    let grown = world.proxy.process.peak_rss().saturating_sub(start);
    assert!(grown < MOST, "grown by {grown}");
}

#[tokio::test]
async fn answers_without_end_are_given_up() {
    let world = World::start(false).await;
    world.innocent("nothing").await;
    let start = world.proxy.process.rss();
    for (name, begin, again) in [
        ("interim answers", "", "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        ("a reason", "HTTP/1.1 200 ", "a"),
        ("a value", "HTTP/1.1 200 OK\r\nx: ", "a"),
        ("headers", "HTTP/1.1 200 OK\r\n", "x: y\r\n"),
        ("empty lines", "", "\r\n"),
        ("a size", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "0"),
        ("an extension", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", "x"),
        ("trailers", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", "x: y\r\n"),
    ] {
        let bytes = format!("{begin}{}", again.repeat(MUCH / again.len()));
        world.origin.tell(Told { bytes: bytes.into_bytes(), times: 1, closes: false });
        let ask = b"GET /told HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        let said = world.exchange(&[ask], false).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        let said = String::from_utf8_lossy(&said);
        let whole = said.starts_with("HTTP/1.1 200") && said.ends_with("0\r\n\r\n");
        assert!(!whole && said.len() < 100_000, "{name}: {} bytes", said.len());
        assert_eq!(world.innocent(name).await, ["GET /told"]);
    }
    let grown = world.proxy.process.peak_rss().saturating_sub(start);
    assert!(grown < MOST, "grown by {grown}");
}

#[tokio::test]
async fn a_client_that_asks_and_never_reads_is_not_read_for_long() {
    let world = World::start(false).await;
    world.innocent("nothing").await;
    let body = "b".repeat(64 << 10);
    let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    world.origin.tell(Told { bytes: bytes.into_bytes(), times: 1, closes: false });
    let start = world.proxy.process.rss();
    let mut client = Http1::connect(world.address).await;
    let many = "GET /told HTTP/1.1\r\nhost: t\r\n\r\n".repeat(1000);
    let ask = async {
        for _ in 0..1000 {
            client.try_send(many.as_bytes()).await.unwrap();
        }
    };
    // It stops taking requests long before they are all sent.
    assert!(timeout(Duration::from_secs(2), ask).await.is_err());
    let grown = world.proxy.process.peak_rss().saturating_sub(start);
    assert!(grown < MOST, "grown by {grown}");
    drop(client);
    world.proxy.until_stat("http.in.downstream_rq_active", 0).await;
    let seen = world.innocent("the flood").await;
    assert!(seen.iter().all(|seen| seen == "GET /told"), "{seen:?}");
}
