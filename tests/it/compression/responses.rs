//! Responses that are decoded for clients which do not take their coding, forms in a cache, and routes.

use serde_json::{Value, json};

use super::codings::{ALL, encode};
use super::{COMPRESSION, ask, compression, filtered, lines, page, plain, proxied};
use crate::harness::resources::{bootstrap, filter, route, static_cluster, table, to, typed, with};
use crate::harness::{Origin, Proxy, Script, get, request};

fn encoded_page(coding: &str, text: &str) -> Script {
    let script = page(text).header("content-encoding", coding).header("etag", "\"1\"");
    Script { body: Some(encode(coding, text.as_bytes()).into()), ..script }
}

#[tokio::test]
async fn every_coding_is_made_at_any_size_and_counted() {
    let origin = Origin::http1("one").await;
    let codings: Vec<_> = ALL.iter().map(|coding| json!({ "coding": coding })).collect();
    let (proxy, address) = proxied(&origin, &[compression(json!({ "encodings": codings }))]).await;
    for (made, coding) in ALL.iter().enumerate() {
        for (count, is_chunked) in [(200, false), (200, true), (5_000, false), (40_000, true)] {
            let text = lines(count);
            let script = page(&text);
            origin.script(if is_chunked { script.chunked() } else { script });
            let answer = ask(address, "/", coding).await;
            assert_eq!(answer.header("content-encoding"), *coding);
            assert!(plain(&answer) == text, "{coding} {count}");
            assert!(answer.body.len() < text.len() / 2);
            // Short ones are there at once, and have their length.
            let has_length = !answer.header("content-length").is_empty();
            assert_eq!(has_length, text.len() <= 65_536 && !is_chunked, "{coding} {count}");
        }
        let cell = |name: &str| format!("http.in.compression.{coding}.response.{name}");
        proxy.until_stat(&cell("bodies"), 4).await;
        proxy.until_stat(&cell("active"), 0).await;
        let bytes_in = proxy.stat(&cell("bytes_in")).await;
        let all: usize = [200, 200, 5_000, 40_000].map(|count| lines(count).len()).iter().sum();
        assert_eq!(bytes_in, all as u64, "{coding}");
        assert!(proxy.stat(&cell("bytes_out")).await < bytes_in / 2);
        assert_eq!(origin.requests(), 4 * (made + 1));
    }
    let metrics = proxy.admin_text("/metrics").await;
    let line = r#"gateway_compression_bodies_total{direction="response",library="br",operation="encode",stat_prefix="in"} 4"#;
    assert!(metrics.lines().any(|l| l == line), "{metrics}");
}

#[tokio::test]
async fn a_client_that_does_not_take_the_coding_gets_it_decoded() {
    let origin = Origin::http1("one").await;
    let config = json!({ "response_decompression": {}, "encodings": [{ "coding": "gzip" }] });
    let (proxy, address) = proxied(&origin, &[compression(config)]).await;
    let text = lines(20_000);
    for coding in ALL {
        origin.script(encoded_page(coding, &text).header("accept-ranges", "bytes"));
        let taken = ask(address, "/", coding).await;
        assert_eq!(taken.header("content-encoding"), coding);
        assert_eq!((taken.header("etag"), taken.header("vary")), ("\"1\"", "accept-encoding"));
        assert!(!taken.header("content-length").is_empty() && plain(&taken) == text);
        let other = get(address, "/").await;
        assert_eq!(other.header("content-encoding"), "");
        assert_eq!((other.header("etag"), other.header("vary")), ("W/\"1\"", "accept-encoding"));
        assert_eq!(other.header("accept-ranges"), "");
        assert!(other.text() == text, "{coding}");
        let head = request(address, "HEAD", "/", &[], b"").await;
        assert_eq!((head.header("content-encoding"), head.header("content-length")), ("", ""));
        let cell = format!("http.in.decompression.{coding}.response.ratio_5");
        assert!(proxy.stat(&cell).await <= 1);
        assert_eq!(proxy.stat(&format!("http.in.decompression.{coding}.response.bodies")).await, 1);
    }
    // Who takes another of ours gets that one.
    origin.script(encoded_page("zstd", &text));
    let recoded = ask(address, "/", "gzip").await;
    assert_eq!(recoded.header("content-encoding"), "gzip");
    assert!(plain(&recoded) == text);
    // Several codings are taken off in turn.
    let twice = encode("br", &encode("gzip", text.as_bytes()));
    let script = page(&text).header("content-encoding", "gzip, br");
    origin.script(Script { body: Some(twice.into()), ..script });
    assert!(get(address, "/").await.text() == text);
    // What is not known, or not whole, passes.
    for (status, coding) in [(200, "foo"), (206, "gzip")] {
        origin.script(Script { status, ..encoded_page("gzip", "x") }.header("x", coding));
        let script = page("not looked at").header("content-encoding", coding);
        origin.script(Script { status, ..script });
        let passed = get(address, "/").await;
        assert_eq!(
            (passed.header("content-encoding"), passed.text().as_str()),
            (coding, "not looked at")
        );
    }
}

#[tokio::test]
async fn what_is_stored_was_encoded_once_and_a_purge_forgets_every_form() {
    let origin = Origin::http1("one").await;
    let cache = "nuncio.extensions.filters.http.cache.v1.Cache";
    let filters = [
        filter("cache", cache, json!({ "default_ttl": "60s" })),
        compression(json!({ "encodings": [{ "coding": "br" }, { "coding": "gzip" }] })),
    ];
    let (proxy, address) = proxied(&origin, &filters).await;
    let text = lines(20_000);
    origin.script(page(&text).header("etag", "\"1\""));
    let accepted = ["gzip", "br", "identity"];
    for accepts in accepted {
        for _ in 0..10 {
            let answer = ask(address, "/page", accepts).await;
            let coding = if accepts == "identity" { "" } else { accepts };
            assert_eq!(answer.header("content-encoding"), coding);
            assert!(plain(&answer) == text, "{accepts}");
        }
    }
    assert_eq!(origin.requests(), 3);
    for coding in ["gzip", "br"] {
        let cell = format!("http.in.compression.{coding}.response.bodies");
        assert_eq!(proxy.stat(&cell).await, 1, "{coding}");
    }
    assert_eq!(proxy.stat("http.in.cache.hit").await, 27);
    let purge = proxy.admin("POST", "/cache/purge?url=http://test/page").await;
    assert_eq!(purge.status, 200, "{}", purge.text());
    origin.script(page("another page").header("cache-control", "max-age=60"));
    for accepts in accepted {
        assert_eq!(plain(&ask(address, "/page", accepts).await), "another page");
    }
}

#[tokio::test]
async fn a_route_may_have_a_policy_of_its_own_or_none() {
    let origin = Origin::http1("one").await;
    let own = |prefix: &str, config: Value| {
        let own = json!({ "typed_per_filter_config": { "compression": config } });
        with(route(prefix, json!({ "cluster": "one" })), own)
    };
    let off = typed("envoy.config.route.v3.FilterConfig", json!({ "disabled": true }));
    let as_struct = typed(
        "xds.type.v3.TypedStruct",
        json!({ "type_url": format!("type.googleapis.com/{COMPRESSION}"),
            "value": { "encodings": [{ "coding": "zstd", "level": 1 }], "bodies": { "min_size": 1 } } }),
    );
    let routes = [
        own("/br", typed(COMPRESSION, json!({ "encodings": [{ "coding": "br" }] }))),
        own("/struct", as_struct),
        own("/off", off),
        to("one"),
    ];
    let gzip = compression(json!({ "encodings": [{ "coding": "gzip" }] }));
    let listener = filtered(&[gzip], json!({ "route_config": table("local", &routes) }));
    let cluster = static_cluster("one", &[origin.address]);
    let proxy = Proxy::with(bootstrap(&[listener], &[cluster])).await;
    let address = proxy.listener("in").await;
    origin.script(page(&lines(1_000)));
    for (path, coding) in [("/br", "br"), ("/struct", "zstd"), ("/off", ""), ("/", "gzip")] {
        let answer = ask(address, path, "gzip, br, zstd").await;
        assert_eq!(answer.header("content-encoding"), coding, "{path}");
        assert!(plain(&answer) == lines(1_000));
    }
    assert_eq!(ask(address, "/off", "gzip").await.header("vary"), "");
}
