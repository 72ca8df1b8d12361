//! Attempts to have the cache give one user's response, or an attacker's, to another. Each story says
//! what attack it is.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{cached, cached_at, fresh, verdict};
use crate::harness::{Answer, Http1, Http2, Origin, Script, get, request};

fn saying(body: &str) -> Script {
    Script { body: Some(body.to_owned().into()), ..fresh() }
}

async fn with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(address, "GET", path, headers, b"").await
}

fn is_hit(answer: &Answer) -> bool {
    verdict(answer).starts_with("hit")
}

fn is_stored(answer: &Answer) -> bool {
    verdict(answer).ends_with("; stored")
}

/// Attack: a header that is not in the key, such as `X-Forwarded-Host`, is put into the page by the
/// origin, and whoever asks next gets the page. The origin knows that it looks at the header, and may
/// say so; the cache cannot know, and does not guess.
#[tokio::test]
async fn what_an_unkeyed_header_does_is_the_origins_to_say() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    let evil = [("x-forwarded-host", "evil")];
    origin.script(saying("evil").header("vary", "x-forwarded-host"));
    assert!(is_stored(&with(address, "/said", &evil).await));
    assert_eq!(origin.last().headers["x-forwarded-host"], "evil");
    origin.script(saying("good").header("vary", "x-forwarded-host"));
    let victim = get(address, "/said").await;
    assert_eq!((victim.text().as_str(), is_hit(&victim)), ("good", false));
    assert_eq!(with(address, "/said", &evil).await.text(), "evil");

    // An origin that looks at what it does not name answers the next one the same.
    origin.script(saying("evil"));
    with(address, "/unsaid", &evil).await;
    assert!(is_hit(&get(address, "/unsaid").await));
}

/// The same attack, where configuration says what the origin does not.
#[tokio::test]
async fn a_header_of_the_key_keeps_responses_apart() {
    let origin = Origin::http1("one").await;
    let config = json!({ "key": { "headers": ["x-forwarded-host"] } });
    let (_proxy, address) = cached(&origin, config).await;
    for host in ["evil", "other", "EVIL", ""] {
        origin.script(saying(host));
        assert!(!is_hit(&with(address, "/", &[("x-forwarded-host", host)]).await), "{host:?}");
    }
    origin.script(saying("good"));
    let victim = get(address, "/").await;
    assert_eq!((victim.text().as_str(), is_hit(&victim)), ("good", false));
    let evil = with(address, "/", &[("x-forwarded-host", "evil")]).await;
    assert_eq!((evil.text().as_str(), is_hit(&evil)), ("evil", true));

    // Another that names the header as one of the connection: what the origin does not see is not what
    // the response is stored by.
    origin.script(saying("nobody"));
    let headers = [("x-forwarded-host", "victim"), ("connection", "x-forwarded-host")];
    with(address, "/stripped", &headers).await;
    let saw = origin.last().headers.contains_key("x-forwarded-host");
    origin.script(saying("victim"));
    let victim = with(address, "/stripped", &headers[..1]).await;
    assert!(saw || !is_hit(&victim), "a response to a request without the header");
}

/// Attack: `Connection: accept-language` has a proxy take the header away before the origin sees it, and
/// the response for nobody's language is stored as the response for one; or credentials are taken away,
/// or left in, and the response is stored for everyone.
#[tokio::test]
async fn what_the_connection_takes_away_is_not_what_a_response_is_stored_by() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    origin.script(saying("nobody").header("vary", "accept-language"));
    let headers = [("accept-language", "de"), ("connection", "accept-language")];
    with(address, "/language", &headers).await;
    let saw = origin.last().headers.contains_key("accept-language");
    origin.script(saying("de").header("vary", "accept-language"));
    let victim = with(address, "/language", &headers[..1]).await;
    assert!(saw || !is_hit(&victim), "a response to a request without the header");

    origin.script(saying("account"));
    let headers = [("authorization", "Basic x"), ("connection", "authorization")];
    let own = with(address, "/account", &headers).await;
    let saw = origin.last().headers.contains_key("authorization");
    assert!(!saw || !is_stored(&own), "one user's response is everyone's");

    // `Connection: cache-control` or `if-none-match` does not let more be stored than was.
    let headers = [("cache-control", "no-store"), ("connection", "cache-control, host")];
    with(address, "/connection", &headers).await;
    assert_eq!(origin.last().headers["host"], "test");
}

/// Attack, "fat GET": a body that the cache does not look at and the origin does.
#[tokio::test]
async fn a_request_with_a_body_leaves_nothing_behind() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    origin.script(saying("evil"));
    let answer = request(address, "GET", "/", &[], b"q=evil").await;
    assert_eq!(verdict(&answer), "fwd=bypass; fwd-status=200");
    let mut client = Http1::connect(address).await;
    client
        .send("GET / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n6\r\nq=evil\r\n0\r\n\r\n")
        .await;
    assert_eq!(verdict(&client.answer().await), "fwd=bypass; fwd-status=200");
    assert_eq!(proxy.stat("http.in.cache.stored").await, 0);
    origin.script(saying("good"));
    assert_eq!(get(address, "/").await.text(), "good");
    // Nor does it get what is there, or change it.
    origin.script(saying("evil"));
    assert_eq!(request(address, "GET", "/", &[], b"q=evil").await.text(), "evil");
    let again = get(address, "/").await;
    assert_eq!((again.text().as_str(), is_hit(&again)), ("good", true));
}

/// Attack, path confusion and "web cache deception": two paths that one party takes for the same and
/// another does not. A response is stored under the path as it was asked, byte by byte, and the origin
/// was asked just that.
#[tokio::test]
async fn no_path_is_taken_for_another() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    let paths = [
        "/b",
        "/B",
        "/b/",
        "//b",
        "///b",
        "/./b",
        "/a/../b",
        "/a/%2e%2e/b",
        "/a/%2E%2E/b",
        "/a/..%2fb",
        "/a/..%2Fb",
        "/%62",
        "/b;x.css",
        "/b%3bx.css",
        "/b%3Bx.css",
        "/b.css",
        "/b/x.css",
        "/b%2fx.css",
        "/b%2Fx.css",
        "/b\\x.css",
        "/b%5cx.css",
        "/b%00",
        "/b%00.css",
        "/b%20",
        "/b+",
        "/b?",
        "/b?x",
        "/b?x=",
        "/b?X",
        "/b%3fx",
        "/b%3Fx",
        "/b%23x",
        "/b?x%23",
        "/b?x&",
        "/b?&x",
        "/b?x;y",
        "/b%0d%0a",
    ];
    let mut taken = Vec::new();
    for path in paths {
        let before = origin.requests();
        origin.script(saying(path));
        let answer = get(address, path).await;
        if answer.status == 400 {
            // What is refused is not stored either.
            assert_eq!(origin.requests(), before, "{path}");
            continue;
        }
        assert_eq!((answer.text().as_str(), is_stored(&answer)), (path, true), "{path}");
        assert_eq!(origin.last().uri, path);
        taken.push(path);
    }
    assert!(taken.len() > 25, "{taken:?}");
    origin.script(saying("another"));
    for path in taken {
        let answer = get(address, path).await;
        assert_eq!((answer.text().as_str(), is_hit(&answer)), (path, true), "{path}");
    }
}

fn host_of(origin: &Origin) -> String {
    let host = origin.last().headers.get("host").cloned();
    host.map_or(String::new(), |host| host.to_str().unwrap().to_owned())
}

/// Attack: a request that says two hosts, so that the response of one is stored as the other's.
#[tokio::test]
async fn a_response_is_stored_for_the_host_that_the_origin_saw() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    let heads = [
        "GET http://evil/N HTTP/1.1\r\nhost: victim\r\n",
        "GET http://victim/N HTTP/1.1\r\nhost: evil\r\n",
        "GET http://evil@victim/N HTTP/1.1\r\nhost: victim\r\n",
        "GET http://victim@evil/N HTTP/1.1\r\nhost: victim\r\n",
        "GET http://evil:80/N HTTP/1.1\r\nhost: victim\r\n",
        "GET /N HTTP/1.1\r\nhost: victim\r\nhost: evil\r\n",
        "GET /N HTTP/1.1\r\nhost: evil\r\nhost: victim\r\n",
        "GET /N HTTP/1.1\r\nhost: victim, evil\r\n",
        "GET /N HTTP/1.1\r\nhost: evil@victim\r\n",
        "GET /N HTTP/1.1\r\nhost: victim@evil\r\n",
        "GET /N HTTP/1.1\r\nhost: victim/N?\r\n",
        "GET /N HTTP/1.1\r\nhost: victim:81\r\n",
        "GET /N HTTP/1.1\r\nhost: victim.\r\n",
        "GET /N HTTP/1.1\r\nhost:\r\n",
        "GET /N HTTP/1.1\r\nhost : victim\r\n",
        "GET /N HTTP/1.1\r\nhost: evil\r\n host: victim\r\n",
        "GET victim/N HTTP/1.1\r\nhost: evil\r\n",
        "GET @victim/N HTTP/1.1\r\nhost: evil\r\n",
        "GET //victim/N HTTP/1.1\r\nhost: evil\r\n",
    ];
    for (number, head) in heads.into_iter().enumerate() {
        let path = format!("/{number}");
        let before = origin.requests();
        origin.script(saying("evil"));
        let mut client = Http1::connect(address).await;
        client.send(&format!("{}\r\n", head.replace("/N", &path))).await;
        let answer = client.try_answer("GET").await;
        let saw = (origin.requests() > before).then(|| host_of(&origin));
        if answer.is_none_or(|answer| answer.status != 200) {
            assert!(saw.is_none(), "{head:?} was refused and passed on");
        }
        origin.script(saying("good"));
        let victim = with(address, &path, &[("host", "victim")]).await;
        let is_victims = saw.is_some_and(|host| host == "victim");
        assert!(is_victims || victim.text() == "good", "{head:?} is stored as the victim's");
    }

    // HTTP/2 has two places for a host too.
    for (authority, host) in [("evil", "victim"), ("victim", "evil")] {
        let path = format!("/h2-{authority}");
        origin.script(saying("evil"));
        let before = origin.requests();
        let target = Request::get(format!("http://{authority}{path}")).header("host", host);
        let mut client = Http2::connect(address).await;
        client.send(target.body(Bytes::new()).unwrap()).await;
        let saw = (origin.requests() > before).then(|| host_of(&origin));
        origin.script(saying("good"));
        let victim = with(address, &path, &[("host", "victim")]).await;
        let is_victims = saw.is_some_and(|host| host == "victim");
        assert!(is_victims || victim.text() == "good", "{authority} is stored as {host}");
    }
}

/// Attack: a host that goes on where a path begins, so that a response to another path of the attacker's
/// choice, or to no host at all, is stored as the victim's.
#[tokio::test]
async fn a_host_is_no_part_of_a_path() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    for (host, path, of_victim) in [
        (&b"victim/a"[..], "/b", "/a/b"),
        (b"victim/c?d=", "/e", "/c?d=/e"),
        (b"victim/f#", "/g", "/f#/g"),
    ] {
        origin.script(saying("evil"));
        let mut client = Http1::connect(address).await;
        let head =
            [format!("GET {path} HTTP/1.1\r\nhost: ").as_bytes(), host, b"\r\n\r\n"].concat();
        client.send_bytes(&head).await;
        client.try_answer("GET").await;
        origin.script(saying("good"));
        let mut client = Http1::connect(address).await;
        client.send(&format!("GET {of_victim} HTTP/1.1\r\nhost: victim\r\n\r\n")).await;
        let victim = client.try_answer("GET").await;
        assert!(victim.is_none_or(|answer| answer.text() != "evil"), "{host:?}");
    }
    // Hosts that are no text are not all one.
    for (host, says) in [(&b"\xe1"[..], "one"), (b"\xe2", "other")] {
        origin.script(saying(says));
        let mut client = Http1::connect(address).await;
        client.send_bytes(&[b"GET /x HTTP/1.1\r\nhost: ", host, b"\r\n\r\n"].concat()).await;
        let answer = client.try_answer("GET").await;
        assert!(answer.is_none_or(|answer| answer.status != 200 || answer.text() == says));
    }
}

/// Attack, "Vary bomb": one URL whose response depends on a header that the attacker makes up anew each
/// time, until the cache holds nothing else.
#[tokio::test]
async fn ten_thousand_variants_take_no_more_room_than_a_few() {
    const CLIENTS: usize = 10;
    const EACH: usize = 1_000;
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    origin.script(fresh());
    for n in 0..20 {
        assert!(is_stored(&get(address, &format!("/{n}")).await));
    }
    origin.script(
        Script::size(2_000).header("cache-control", "max-age=60").header("vary", "x-a, user-agent"),
    );
    let mut bombs = JoinSet::new();
    for client in 0..CLIENTS {
        bombs.spawn(async move {
            let mut connection = Http1::connect(address).await;
            for n in 0..EACH {
                let head = format!("GET /bomb HTTP/1.1\r\nhost: test\r\nx-a: {client}-{n}\r\n\r\n");
                connection.send(&head).await;
                assert_eq!(connection.answer().await.status, 200);
            }
        });
    }
    while let Some(bomb) = bombs.join_next().await {
        bomb.unwrap();
    }
    let bytes = proxy.stat("http.in.cache.bytes").await;
    assert!(bytes < 1_000_000, "{bytes} bytes of 20,000,000");
    assert_eq!(proxy.stat("http.in.cache.entries").await, 21);
    let asked = origin.requests();
    for n in 0..20 {
        assert!(is_hit(&get(address, &format!("/{n}")).await), "/{n}");
    }
    assert_eq!(origin.requests(), asked);
}

/// Attack: a part is stored and given out as the whole, or a part of a part; and, "range amplification",
/// many small ranges make an answer larger than what they are of.
#[tokio::test]
async fn a_part_is_never_the_whole_and_never_more_than_it() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    let part = saying("x");
    origin.script(Script { status: 206, ..part }.header("content-range", "bytes 5-5/10"));
    for (number, headers) in [
        &[("range", "bytes=5-5")][..],
        &[],
        &[("range", "bytes=5-5"), ("if-range", "\"1\"")],
        &[("range", "bytes=5-5"), ("if-none-match", "\"1\"")],
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{number}");
        assert_eq!(with(address, &path, headers).await.status, 206);
        // The part is not there to be cut again.
        let before = origin.requests();
        let again = with(address, &path, &[("range", "bytes=0-0")]).await;
        assert_eq!((origin.requests(), is_hit(&again)), (before + 1, false), "{headers:?}");
    }
    origin.script(saying("0123456789").header("etag", "\"1\""));
    for number in 0..4 {
        let whole = get(address, &format!("/{number}")).await;
        assert_eq!((whole.status, whole.text().as_str()), (200, "0123456789"));
    }

    let size = 10_000;
    let script = Script::size(size).header("cache-control", "max-age=60");
    origin.script(script.clone());
    get(address, "/large").await;
    for ranges in ["0-,".repeat(500), "0-0,".repeat(1_000), "5-6,8-9,".repeat(500)] {
        origin.script(script.clone());
        let answer = with(address, "/large", &[("range", &format!("bytes={ranges}"))]).await;
        assert!(is_hit(&answer), "{}", verdict(&answer));
        assert!(answer.body.len() as u64 <= size, "{} bytes", answer.body.len());
    }
}

/// Attack: a client says itself what only caches say, to look like a hit, or to make a response old.
#[tokio::test]
async fn what_clients_say_of_caches_does_not_count() {
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let (_proxy, address) = cached(&origin, json!({})).await;
    let lies = [
        ("cache-status", "nuncio; hit; ttl=9999"),
        ("age", "9999"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("expires", "0"),
        ("vary", "*"),
        ("etag", "\"evil\""),
        ("warning", "110 - evil"),
        ("surrogate-control", "no-store"),
        ("cdn-cache-control", "no-store"),
    ];
    let first = with(address, "/", &lies).await;
    assert_eq!(verdict(&first), "fwd=uri-miss; fwd-status=200; stored");
    assert_eq!(first.headers.get_all("cache-status").iter().count(), 1);
    for headers in [&lies[..], &[]] {
        let answer = with(address, "/", headers).await;
        assert!(is_hit(&answer), "{}", verdict(&answer));
        assert_eq!(answer.headers.get_all("cache-status").iter().count(), 1);
        let age: u64 = answer.header("age").parse().unwrap();
        assert!(age < 60, "{age}");
        for name in ["etag", "warning", "vary"] {
            assert_eq!(answer.header(name), "", "{name}");
        }
    }
}

/// An origin that answers every request with these very bytes.
async fn raw_origin(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap_or(0) > 0
            {
            }
            // The proxy may have left.
            let _ = stream.write_all(bytes).await;
        }
    });
    address
}

/// Attack, response splitting: a line end within a value makes it two headers, or two responses, when it
/// is written again. Nothing that comes out of the cache has more lines than came in.
#[tokio::test]
async fn no_stored_header_is_split() {
    let answers: [&[u8]; 6] = [
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nx-a: 1\revil: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nx-a: 1\0evil: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nx-a: 1\r\n evil: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nx-a: 1\r\r\nevil : 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nx-a: 1%0d%0aevil: 2\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\nlocation: /\xe5\x98\x8a\xe5\x98\x8devil:2\r\ncontent-length: 2\r\n\r\nok",
    ];
    for bytes in answers {
        let origin = raw_origin(bytes).await;
        let (_proxy, address) = cached_at(origin, json!({})).await;
        let shown = String::from_utf8_lossy(bytes);
        for _ in 0..2 {
            let mut client = Http1::connect(address).await;
            client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
            let read = client.rest().await;
            let text = String::from_utf8_lossy(&read);
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{shown}: {text}");
            let (head, _) = text.split_once("\r\n\r\n").unwrap();
            // However a reader ends its lines.
            let mut lines = head.split(['\r', '\n', '\0']).map(str::trim_start);
            assert!(!lines.any(|line| line.starts_with("evil")), "{shown}: {text}");
        }
    }
}

/// Attack: what has no body is stored as the response that has one.
#[tokio::test]
async fn nothing_without_a_body_is_stored_as_the_page() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    origin.script(saying("page").header("etag", "\"1\""));
    for _ in 0..2 {
        let head = request(address, "HEAD", "/head", &[], b"").await;
        assert!(!is_hit(&head) && !is_stored(&head), "{}", verdict(&head));
    }
    // "Not modified", to those that asked so and those that did not.
    let unchanged = Script::status(304).header("etag", "\"1\"");
    origin.script(unchanged.header("cache-control", "max-age=60"));
    for headers in [&[][..], &[("if-none-match", "\"1\"")], &[("if-none-match", "*")]] {
        with(address, "/304", headers).await;
    }
    assert_eq!(proxy.stat("http.in.cache.stored").await, 0);
    origin.script(saying("page").header("etag", "\"1\""));
    for path in ["/head", "/304"] {
        let page = get(address, path).await;
        assert_eq!((page.text().as_str(), is_hit(&page)), ("page", false), "{path}");
        let head = request(address, "HEAD", path, &[], b"").await;
        assert_eq!((head.header("content-length"), is_hit(&head)), ("4", true), "{path}");
        let page = get(address, path).await;
        assert_eq!((page.text().as_str(), is_hit(&page)), ("page", true), "{path}");
    }
}

/// Attack, "cache-poisoned denial of service": a request that the origin refuses, for a header that is
/// not in the key, and the refusal is stored for everyone.
#[tokio::test]
async fn a_refusal_that_says_nothing_of_caching_is_not_stored() {
    let origin = Origin::http1("one").await;
    let (_proxy, address) = cached(&origin, json!({})).await;
    for status in [400, 401, 403, 406, 408, 413, 421, 429, 431, 500, 502, 503, 504] {
        let path = format!("/{status}");
        origin.script(Script::status(status).header("etag", "\"1\""));
        let refused = with(address, &path, &[("x-http-method-override", "POST")]).await;
        assert_eq!((refused.status, is_stored(&refused)), (status, false));
        origin.script(saying("good"));
        assert_eq!(get(address, &path).await.text(), "good", "{status}");
    }
}
