//! Envoy's compressor and decompressor: what a recording cannot show of them, and what they count.

use http::Request;
use serde_json::{Value, json};

use super::codings::{decode, encode};
use super::{ask, filtered, lines, page, plain, proxied};
use crate::harness::resources::{bootstrap, filter, route, static_cluster, table, to, typed, with};
use crate::harness::{Http2, Origin, Proxy, Script, get, request, run};

const COMPRESSOR: &str = "envoy.extensions.filters.http.compressor.v3.Compressor";
pub(super) const DECOMPRESSOR: &str = "envoy.extensions.filters.http.decompressor.v3.Decompressor";

pub(super) fn library(name: &str, kind: &str, config: Value) -> Value {
    let kind = format!("envoy.extensions.compression.{kind}");
    json!({ "name": name, "typed_config": typed(&kind, config) })
}

pub(super) fn compressor(name: &str, kind: &str, config: Value) -> Value {
    let library = json!({ "compressor_library": library("l", kind, json!({})) });
    filter(name, COMPRESSOR, with(library, config))
}

fn decompressor(config: Value) -> Value {
    let library =
        library("My lib", "gzip.decompressor.v3.Gzip", json!({ "max_inflate_ratio": 50 }));
    filter("d", DECOMPRESSOR, with(json!({ "decompressor_library": library }), config))
}

const GZIP: &str = "gzip.compressor.v3.Gzip";
const BROTLI: &str = "brotli.compressor.v3.Brotli";

#[tokio::test]
async fn statistics_have_envoys_names() {
    let origin = Origin::http1("one").await;
    let config = json!({ "response_direction_config": { "disable_on_etag_header": true } });
    let filters = [compressor("br", BROTLI, json!({})), compressor("gzip", GZIP, config)];
    let (proxy, address) = proxied(&origin, &filters).await;
    let text = lines(1_000);
    origin.script(page(&text));
    for accepts in ["gzip", "br", "*", "identity", "deflate"] {
        assert!(plain(&ask(address, "/", accepts).await) == text);
    }
    get(address, "/").await;
    origin.script(page("short"));
    ask(address, "/", "gzip").await;
    origin.script(page(&text).header("etag", "W/\"1\""));
    assert_eq!(ask(address, "/", "gzip").await.header("content-encoding"), "");
    for (cell, value) in [
        ("gzip.response.compressed", 1),
        ("gzip.response.not_compressed", 7),
        ("gzip.response.content_length_too_small", 1),
        ("gzip.response.total_uncompressed_bytes", text.len() as u64),
        // What clients take has no direction in its name.
        ("gzip.header_compressor_used", 2),
        ("gzip.header_compressor_overshadowed", 1),
        ("gzip.header_wildcard", 1),
        ("gzip.header_identity", 1),
        ("gzip.header_not_valid", 1),
        ("gzip.no_accept_header", 1),
        ("gzip.not_compressed_etag", 1),
        ("gzip.request.not_compressed", 8),
        // Nothing has, where responses are not configured.
        ("brotli.compressed", 2),
        ("brotli.not_compressed", 6),
        ("brotli.header_compressor_used", 1),
        ("brotli.header_compressor_overshadowed", 2),
        ("brotli.total_uncompressed_bytes", 2 * text.len() as u64),
    ] {
        let name = format!("http.in.compressor.l.{cell}");
        assert_eq!(proxy.stat(&name).await, value, "{name}");
    }
    let out = proxy.stat("http.in.compressor.l.gzip.response.total_compressed_bytes").await;
    assert!(out > 0 && out < text.len() as u64 / 2, "{out}");
    let prometheus = proxy.admin_text("/stats/prometheus").await;
    let line = r#"envoy_http_compressor_l_gzip_response_compressed{envoy_http_conn_manager_prefix="in"} 1"#;
    assert!(prometheus.lines().any(|l| l == line), "{prometheus}");
}

#[tokio::test]
async fn compressors_say_what_they_did_if_they_are_told_to() {
    let origin = Origin::http1("one").await;
    let says = |more: Value| {
        let response = with(json!({ "status_header_enabled": true }), more);
        json!({ "response_direction_config": response })
    };
    let common = json!({ "common_config": { "content_type": ["text/css"] } });
    let codes = json!({ "uncompressible_response_codes": [404], "disable_on_etag_header": true,
        "common_config": { "min_content_length": 100 } });
    let filters = [compressor("br", BROTLI, says(codes)), compressor("gzip", GZIP, says(common))];
    let (_proxy, address) = proxied(&origin, &filters).await;
    let text = lines(500);
    let cases = [
        (
            page(&text),
            format!("gzip;ContentTypeNotAllowed,br;Compressed;OriginalLength={}", text.len()),
        ),
        (
            Script { status: 404, ..page(&text) },
            "gzip;ContentTypeNotAllowed,br;StatusCodeNotAllowed".into(),
        ),
        (
            page(&text).header("etag", "\"1\""),
            "gzip;ContentTypeNotAllowed,br;EtagNotAllowed".into(),
        ),
        (
            page("some that is short, yet not so short"),
            "gzip;ContentTypeNotAllowed,br;ContentLengthTooSmall".into(),
        ),
    ];
    for (script, expected) in cases {
        origin.script(script);
        let answer = ask(address, "/", "gzip, br;q=0.5").await;
        assert_eq!(answer.header("x-envoy-compression-status"), expected);
    }
}

#[tokio::test]
async fn a_route_may_switch_a_compressor_off_and_on_and_give_it_a_library() {
    let origin = Origin::http1("one").await;
    let own = |prefix: &str, config: Value| {
        let kind = "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute";
        let own = json!({ "typed_per_filter_config": { "c": typed(kind, config) } });
        with(route(prefix, json!({ "cluster": "one" })), own)
    };
    let other = library("other", BROTLI, json!({ "quality": 1 }));
    let on = json!({ "response_direction_config": { "remove_accept_encoding_header": true } });
    let routes = [
        own("/off", json!({ "disabled": true })),
        own("/br", json!({ "overrides": { "compressor_library": other } })),
        own("/hidden", json!({ "overrides": on })),
        to("one"),
    ];
    let routes = json!({ "route_config": table("local", &routes) });
    let cluster = static_cluster("one", &[origin.address]);
    for (config, at_root) in [
        (json!({}), "gzip"),
        (
            json!({ "response_direction_config": { "common_config": { "enabled": {
            "default_value": false, "runtime_key": "off" } } } }),
            "",
        ),
    ] {
        let listener = filtered(&[compressor("c", GZIP, config)], routes.clone());
        let proxy = Proxy::with(bootstrap(&[listener], std::slice::from_ref(&cluster))).await;
        let address = proxy.listener("in").await;
        origin.script(page(&lines(500)));
        let at_br = if at_root.is_empty() { "" } else { "br" };
        for (path, coding, hidden) in [
            ("/", at_root, false),
            ("/off", "", false),
            ("/br", at_br, false),
            ("/hidden", "gzip", true),
        ] {
            let answer = ask(address, path, "gzip, br").await;
            assert_eq!(answer.header("content-encoding"), coding, "{path}");
            let was_hidden = !origin.last().headers.contains_key("accept-encoding");
            assert_eq!(was_hidden, hidden, "{path}");
        }
    }
}

#[tokio::test]
async fn requests_are_encoded_and_decoded_again() {
    let origin = Origin::http1("one").await;
    origin.script(Script::echo());
    let off =
        json!({ "common_config": { "enabled": { "default_value": false, "runtime_key": "x" } } });
    let config = json!({ "request_direction_config": {}, "response_direction_config": off });
    let (proxy, address) = proxied(&origin, &[compressor("c", GZIP, config)]).await;
    let text = lines(2_000);
    let headers = [("content-type", "application/json")];
    let echoed = request(address, "POST", "/", &headers, text.as_bytes()).await;
    assert_eq!(origin.last().headers["content-encoding"], "gzip");
    assert!(decode("gzip", &echoed.body).unwrap() == text.as_bytes());
    let cell = |name: &str| format!("http.in.compressor.l.gzip.request.{name}");
    assert_eq!(proxy.stat(&cell("compressed")).await, 1);
    proxy.until_stat(&cell("total_uncompressed_bytes"), text.len() as u64).await;
    for (headers, body) in
        [(&[("content-type", "image/png")][..], text.as_bytes()), (&headers[..], b"too short")]
    {
        assert!(request(address, "POST", "/", headers, body).await.body == body);
    }
    assert_eq!(proxy.stat(&cell("not_compressed")).await, 2);
    assert_eq!(proxy.stat(&cell("content_length_too_small")).await, 1);
}

#[tokio::test]
async fn a_decompressor_decodes_both_ways_and_tells_how_many_bytes_there_were() {
    let origin = Origin::http1("one").await;
    let (proxy, address) = proxied(&origin, &[decompressor(json!({}))]).await;
    let text = lines(2_000);
    let coded = encode("gzip", text.as_bytes());
    origin.script(
        Script { body: Some(coded.clone().into()), ..page("") }.header("content-encoding", "GZIP"),
    );
    let mut client = Http2::connect(address).await;
    let answer = client
        .send(
            Request::get("http://test/")
                .header("accept-encoding", "br, gzip;q=0.1")
                .body(bytes::Bytes::new())
                .unwrap(),
        )
        .await;
    assert!(answer.text() == text && answer.header("content-encoding").is_empty());
    let trailer =
        |name: &str| answer.trailers[format!("x-envoy-decompressor-my_lib-{name}-bytes")].clone();
    assert_eq!(trailer("compressed"), coded.len().to_string());
    assert_eq!(trailer("uncompressed"), text.len().to_string());
    assert_eq!(origin.last().headers["accept-encoding"], "br,gzip");

    origin.script(Script::echo());
    let headers = [("content-encoding", "gzip")];
    let echoed = request(address, "POST", "/", &headers, &coded).await;
    assert!(echoed.text() == text && !origin.last().headers.contains_key("content-encoding"));
    // Of several codings the last is what the bytes are.
    let twice = encode("gzip", &encode("br", text.as_bytes()));
    let echoed = request(address, "POST", "/", &[("content-encoding", "br, gzip")], &twice).await;
    assert_eq!(origin.last().headers["content-encoding"], "br");
    assert!(decode("br", &echoed.body).unwrap() == text.as_bytes());
    for headers in [
        &[("content-encoding", "gzip"), ("cache-control", "no-transform")][..],
        &[("content-encoding", "gzip, br")],
        &[],
    ] {
        assert!(request(address, "POST", "/", headers, &coded).await.body == coded, "{headers:?}");
    }
    // An answer that has begun would break off instead.
    origin.script(Script::default());
    let bomb = encode("gzip", &[0; 5_000_000]);
    assert_eq!(request(address, "POST", "/", &headers, &bomb).await.status, 413);
    assert_eq!(request(address, "POST", "/", &headers, &coded[..50]).await.status, 400);
    let cell = |name: &str| format!("http.in.decompressor.My lib.gzip.{name}");
    assert_eq!(proxy.stat(&cell("response.decompressed")).await, 1);
    assert_eq!(proxy.stat(&cell("response.total_uncompressed_bytes")).await, text.len() as u64);
    assert_eq!(proxy.stat(&cell("response.total_compressed_bytes")).await, coded.len() as u64);
    assert_eq!(proxy.stat(&cell("request.decompressed")).await, 4);
    assert_eq!(proxy.stat(&cell("request.not_decompressed")).await, 3);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_its_path() {
    let bad = [
        (
            compressor("c", "gzip.decompressor.v3.Gzip", json!({})),
            "compressor_library.typed_config: unknown extension type",
        ),
        (
            filter(
                "c",
                COMPRESSOR,
                json!({ "compressor_library": library("l", "zstd.compressor.v3.Zstd",
                json!({ "dictionary": { "inline_string": "x" } })) }),
            ),
            "compressor_library.typed_config.dictionary: not supported",
        ),
        (
            compressor("c", GZIP, json!({ "content_length": 5, "response_direction_config": {} })),
            "content_length: deprecated",
        ),
        (
            decompressor(json!({ "decompressor_library": library("l", "zstd.decompressor.v3.Zstd",
                json!({ "dictionaries": [{ "inline_string": "x" }] })) })),
            "decompressor_library.typed_config.dictionaries: not supported",
        ),
    ];
    for (filter, expected) in bad {
        let routes = json!({ "route_config": table("local", &[]) });
        let bootstrap = bootstrap(&[filtered(&[filter], routes)], &[]).to_string();
        let said = run(["--mode", "validate", "--config-yaml", &bootstrap]).await;
        assert_eq!(said.code, Some(1), "{expected}");
        assert!(said.all().contains(expected), "{expected}: {}", said.all());
    }
}
