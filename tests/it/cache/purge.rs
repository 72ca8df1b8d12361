//! Purges by the admin listener and by gRPC, and by traffic.

use nuncio::proto::nuncio::service::cache::v1::cache_service_client::CacheServiceClient;
use nuncio::proto::nuncio::service::cache::v1::{PurgeRequest, purge_request::Target};
use serde_json::{Value, json};

use super::{cached, fresh, verdict};
use crate::harness::{Answer, Http1, Origin, Proxy, Script, get, request};

async fn purge(proxy: &Proxy, query: &str) -> Value {
    let answer = proxy.admin("POST", &format!("/cache/purge?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn is_hit(answer: &Answer) -> bool {
    verdict(answer).starts_with("hit")
}

#[tokio::test]
async fn each_kind_of_purge_hits_what_it_says_and_says_how_many() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    let paths = ["/u/1", "/u/2?q", "/u/deep/3", "/user", "/other", "/u/"];
    for (query, hits) in [
        ("url=/u/1", &["/u/1"][..]),
        ("url=http://test/u/2%3Fq", &["/u/2?q"]),
        ("url=http://elsewhere/u/1", &[]),
        ("url=/u/1%3Fother", &[]),
        ("prefix=/u/", &["/u/1", "/u/2?q", "/u/deep/3", "/u/"]),
        ("prefix=/u", &["/u/1", "/u/2?q", "/u/deep/3", "/u/", "/user"]),
        ("prefix=//test/u/deep/", &["/u/deep/3"]),
        ("pattern=/u/*", &["/u/1", "/u/2?q", "/u/deep/3", "/u/"]),
        ("pattern=*3", &["/u/deep/3"]),
        ("tag=users", &["/u/1", "/u/2?q", "/u/deep/3", "/u/"]),
        ("tag=nobody", &[]),
        ("everything", &paths),
    ] {
        for soft in ["", "&soft"] {
            for path in paths {
                let script = fresh().header("etag", "\"1\"");
                let tag = if path.starts_with("/u/") { "a, users" } else { "b" };
                origin.script(script.header("cache-tag", tag));
                get(address, path).await;
                assert!(is_hit(&get(address, path).await));
            }
            let said = purge(&proxy, &format!("{query}{soft}")).await;
            assert_eq!(said["purged"], hits.len(), "{query}{soft}");
            assert_eq!((&said["caches"], &said["untold"]), (&json!(1), &json!(false)));
            origin.script(Script::status(304).header("cache-control", "max-age=60"));
            for path in paths {
                let answer = get(address, path).await;
                let expected = match (hits.contains(&path), soft) {
                    (false, _) => "hit; ttl=",
                    (true, "") => "fwd=uri-miss; fwd-status=304",
                    (true, _) => "fwd=stale; fwd-status=304",
                };
                let said = verdict(&answer);
                assert!(said.starts_with(expected), "{query}{soft} {path}: {said}");
            }
        }
    }
    assert_eq!(proxy.stat("http.in.cache.purge_tag").await, 4);
}

#[tokio::test]
async fn what_is_no_target_is_refused_and_nothing_is_forgotten() {
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let (proxy, address) = cached(&origin, json!({})).await;
    get(address, "/a").await;
    for (query, wanted) in [
        ("", "one of url, prefix, pattern, tag, everything"),
        ("url=/a&tag=b", "one of url, prefix, pattern, tag, everything"),
        ("url=a", "url: \"a\" is not"),
        ("pattern=http://*.test/", "pattern: "),
        ("prefix=/a*b", "prefix: "),
        ("tag=", "tag: "),
        ("everything&soft=perhaps", "soft: \"perhaps\""),
    ] {
        let answer = proxy.admin("POST", &format!("/cache/purge?{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(wanted), "{query}: {}", answer.text());
    }
    let nowhere = proxy.admin("POST", "/cache/purge?everything&stat_prefix=nowhere").await;
    assert_eq!(nowhere.status, 404);
    assert_eq!(proxy.admin("GET", "/cache/purge?everything").await.status, 405);
    assert!(is_hit(&get(address, "/a").await));
    let shown = proxy.admin_json("/cache").await;
    assert_eq!(
        (&shown["caches"][0]["stat_prefix"], &shown["caches"][0]["entries"]),
        (&json!("in"), &json!(1))
    );
    let metrics = proxy.admin_text("/metrics").await;
    assert!(metrics.contains(r#"gateway_cache_hits_total{stat_prefix="in"} 1"#), "{metrics}");
}

#[tokio::test]
async fn the_same_by_grpc_on_the_admin_listener() {
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let (proxy, address) = cached(&origin, json!({})).await;
    let mut client = CacheServiceClient::connect(format!("http://{}", proxy.admin)).await.unwrap();
    let mut ask = async |target: Option<Target>, stat_prefix: &str| {
        let request = PurgeRequest { target, soft: false, stat_prefix: stat_prefix.to_owned() };
        client.purge(request).await.map(|response| response.into_inner().purged)
    };
    for (target, hits) in [
        (Target::Url("/a/1".into()), 1),
        (Target::Prefix("/a/".into()), 2),
        (Target::Pattern("/a/*".into()), 2),
        (Target::Tag("x".into()), 0),
        (Target::Everything(true), 3),
    ] {
        for path in ["/a/1", "/a/2", "/b"] {
            get(address, path).await;
        }
        assert_eq!(ask(Some(target.clone()), "in").await.unwrap(), hits, "{target:?}");
    }
    for target in [None, Some(Target::Everything(false)), Some(Target::Url("a".into()))] {
        let refused = ask(target, "").await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
    let nowhere = ask(Some(Target::Everything(true)), "nowhere").await.unwrap_err();
    assert_eq!(nowhere.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_purge_is_not_undone_by_a_fill_that_began_before_it() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = cached(&origin, json!({})).await;
    for query in ["url=/d/x", "prefix=/d/", "pattern=/d*x", "tag=t", "everything"] {
        let held = Script { held_after: Some(1_000), ..Script::size(3_000) };
        origin.script(held.header("cache-control", "max-age=60").header("surrogate-key", "s t"));
        let mut slow = Http1::connect(address).await;
        slow.send("GET /d/x HTTP/1.1\r\nhost: test\r\n\r\n").await;
        slow.head().await.unwrap();
        assert_eq!(purge(&proxy, query).await["purged"], 0, "{query}");
        origin.release();
        slow.exactly(3_000).await.unwrap();
        origin.script(fresh());
        let after = get(address, "/d/x").await;
        assert!(!is_hit(&after), "{query}");
        assert!(is_hit(&get(address, "/d/x").await), "{query}");
        purge(&proxy, "everything").await;
    }
}

#[tokio::test]
async fn traffic_purges_only_what_its_sender_may() {
    let origin = Origin::http1("one").await;
    origin.script(fresh());
    let by = |network: &str| {
        json!({ "invalidation": { "patterns": ["/api/*"], "methods": ["POST"], "allow_purge": true,
            "headers": ["x-cache-invalidate"],
            "trusted_addresses": [{ "address_prefix": network, "prefix_len": 8 }] } })
    };
    for (network, is_trusted) in [("127.0.0.0", true), ("10.0.0.0", false)] {
        let (_proxy, address) = cached(&origin, by(network)).await;
        let fill = async || {
            for path in ["/api/1", "/api/2", "/x"] {
                get(address, path).await;
            }
        };
        let are_hits = async || {
            let mut hits = Vec::new();
            for path in ["/api/1", "/api/2", "/x"] {
                hits.push(is_hit(&get(address, path).await));
            }
            hits
        };
        fill().await;
        // Whoever may send POST may make its target, and what belongs to it, forgotten.
        request(address, "POST", "/api/3", &[], b"x").await;
        assert_eq!(are_hits().await, [false, false, true]);
        let told = [("x-cache-invalidate", "/api/*")];
        assert_eq!(request(address, "GET", "/y", &told, b"").await.status, 200);
        assert!(!origin.last().headers.contains_key("x-cache-invalidate"));
        assert_eq!(are_hits().await, [!is_trusted, !is_trusted, true]);
        let before = origin.requests();
        let purged = request(address, "PURGE", "/x", &[], b"").await;
        assert_eq!(purged.status, if is_trusted { 200 } else { 403 });
        assert_eq!(origin.requests(), before);
        assert_eq!(are_hits().await, [true, true, !is_trusted]);
        let malformed = request(address, "GET", "/x", &[("x-cache-invalidate", "?")], b"").await;
        assert_eq!(malformed.status, if is_trusted { 400 } else { 200 });
    }
    // Without a rule it is a method like any other.
    let (_proxy, address) = cached(&origin, json!({})).await;
    let before = origin.requests();
    request(address, "PURGE", "/x", &[], b"").await;
    assert_eq!((origin.requests(), origin.last().method.as_str()), (before + 1, "PURGE"));
}
