//! Who the client is, where it speaks through others.

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, hcm, listener_of, static_cluster, table, to};
use crate::harness::{Origin, Proxy, request};

const XFF: &str = "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig";
const HEADER: &str =
    "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig";

fn detection(kind: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/{kind}"));
    json!({ "name": "detection", "typed_config": config })
}

/// A proxy that tells the origin who it takes the client for.
async fn telling(origin: &Origin, options: Value) -> Proxy {
    let mut route = to("one");
    route["request_headers_to_add"] = json!([
        { "header": { "key": "x-client", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" } },
    ]);
    let manager = hcm(json!({ "route_config": table("local", &[route]) }), options);
    let cluster = static_cluster("one", &[origin.address]);
    Proxy::with(bootstrap(&[listener_of("in", manager)], &[cluster])).await
}

#[tokio::test]
async fn proxies_that_are_trusted_say_who_it_is_and_nobody_else() {
    let origin = Origin::http1("one").await;
    let xff = ("x-forwarded-for", "3.3.3.3, 2.2.2.2, 1.1.1.1");
    let local = "127.0.0.1";
    let appended = "3.3.3.3, 2.2.2.2, 1.1.1.1,127.0.0.1";
    for (options, client, list) in [
        (json!({}), "1.1.1.1", xff.1),
        (json!({ "xff_num_trusted_hops": 1 }), "2.2.2.2", xff.1),
        (json!({ "use_remote_address": true }), local, appended),
        (json!({ "use_remote_address": true, "xff_num_trusted_hops": 1 }), "1.1.1.1", appended),
        (json!({ "use_remote_address": true, "skip_xff_append": true }), local, xff.1),
        (
            json!({ "original_ip_detection_extensions": [detection(XFF, json!({ "xff_num_trusted_hops": 2, "skip_xff_append": false }))] }),
            "3.3.3.3",
            appended,
        ),
    ] {
        let proxy = telling(&origin, options.clone()).await;
        let address = proxy.listener("in").await;
        assert_eq!(request(address, "GET", "/", &[xff], b"").await.status, 200);
        let seen = origin.last().headers;
        assert_eq!(seen["x-client"], client, "{options}");
        assert_eq!(seen["x-forwarded-for"], list, "{options}");
        assert_eq!(
            request(address, "GET", "/", &[("x-forwarded-for", "unknown")], b"").await.status,
            200
        );
        assert_eq!(origin.last().headers["x-client"], local, "{options}");
    }
}

#[tokio::test]
async fn a_header_may_be_asked_for_before_anybody_is_let_in() {
    let origin = Origin::http1("one").await;
    let reject =
        json!({ "header_name": "x-real-ip", "reject_with_status": { "code": "Unauthorized" } });
    let options = json!({ "original_ip_detection_extensions": [detection(HEADER, reject)] });
    let proxy = telling(&origin, options).await;
    let address = proxy.listener("in").await;
    assert_eq!(
        request(address, "GET", "/", &[("x-real-ip", "2001:db8::7")], b"").await.status,
        200
    );
    assert_eq!(origin.last().headers["x-client"], "2001:db8::7");
    for lies in [&[][..], &[("x-real-ip", "me")]] {
        assert_eq!(request(address, "GET", "/", lies, b"").await.status, 401);
    }
    assert_eq!(origin.requests(), 1);
}
