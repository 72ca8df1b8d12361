//! Answers of the proxy's own: the form that operators give them, and the form that gRPC wants.

use serde_json::{Value, json};

use crate::harness::resources::{bootstrap, hcm, listener_of, static_cluster, table, to};
use crate::harness::{Http2, Origin, Proxy, Script, get, request};

async fn answering(origin: &Origin, form: Value) -> Proxy {
    let direct = json!({
        "match": { "prefix": "/direct" },
        "direct_response": { "status": 503, "body": { "inline_string": "boom" } },
    });
    let dead = json!({ "match": { "prefix": "/dead" }, "route": { "cluster": "dead" } });
    let routes = json!({ "route_config": table("local", &[direct, dead, to("one")]) });
    let options = match form {
        Value::Null => json!({}),
        form => json!({ "local_reply_config": form }),
    };
    let clusters = [static_cluster("one", &[origin.address]), static_cluster("dead", &[])];
    Proxy::with(bootstrap(&[listener_of("in", hcm(routes, options))], &clusters)).await
}

fn code_is(code: u32) -> Value {
    let value = json!({ "default_value": code, "runtime_key": "none" });
    json!({ "status_code_filter": { "comparison": { "op": "EQ", "value": value } } })
}

#[tokio::test]
async fn the_first_mapper_that_takes_an_answer_says_how_it_looks() {
    let origin = Origin::http1("one").await;
    let header = |name: &str, value: &str| json!({ "header": { "key": name, "value": value } });
    let proxy = answering(&origin, json!({
        "mappers": [
            {
                "filter": { "and_filter": { "filters": [
                    code_is(503), { "response_flag_filter": { "flags": ["UH"] } },
                ] } },
                "status_code": 502,
                "body": { "inline_string": "nobody is there" },
                "headers_to_add": [header("x-flags", "%RESPONSE_FLAGS%"), header("x-path", "%REQ(:PATH)%")],
                "body_format_override": { "json_format": {
                    "code": "%RESPONSE_CODE%", "text": "%LOCAL_REPLY_BODY%", "path": "%REQ(:path)%",
                } },
            },
            { "filter": code_is(503), "headers_to_add": [header("x-second", "yes")] },
        ],
        "body_format": { "text_format": "%RESPONSE_CODE%: %LOCAL_REPLY_BODY%\n", "content_type": "text/x-error" },
    }))
    .await;
    let address = proxy.listener("in").await;
    let dead = get(address, "/dead/x?y").await;
    assert_eq!((dead.status, dead.header("content-type")), (502, "application/json"));
    assert_eq!((dead.header("x-flags"), dead.header("x-path")), ("UH", "/dead/x?y"));
    let body: Value = serde_json::from_str(&dead.text()).unwrap();
    assert_eq!(body, json!({ "code": 502, "text": "nobody is there", "path": "/dead/x?y" }));
    assert_eq!(proxy.stat("http.in.downstream_rq_5xx").await, 1);
    let direct = Http2::connect(address).await.get("/direct").await;
    assert_eq!((direct.status, direct.text().as_str()), (503, "503: boom\n"));
    assert_eq!((direct.header("x-second"), direct.header("content-type")), ("yes", "text/x-error"));
    // What an origin says is its own, even if it looks the same.
    origin.script(Script::status(503));
    let upstreams = get(address, "/").await;
    assert_eq!((upstreams.status, upstreams.text().as_str()), (503, "one"));
    assert!(!upstreams.headers.contains_key("x-second"));
    let bad = request(address, "GET", "/", &[("host", "a/b")], b"").await;
    assert_eq!((bad.status, bad.text().as_str()), (400, "400: Bad Request\n"));
}

#[tokio::test]
async fn clients_of_grpc_are_told_in_its_own_words() {
    let origin = Origin::http2("one").await;
    let proxy = answering(&origin, Value::Null).await;
    let address = proxy.listener("in").await;
    for (path, kind, status, message) in [
        ("/dead/M", "application/grpc", "14", "no healthy upstream"),
        ("/direct/M", "application/grpc+proto", "14", "boom"),
    ] {
        let mut client = Http2::connect(address).await;
        let call = http::Request::post(format!("http://t{path}")).header("content-type", kind);
        let answer = client.send(call.body(bytes::Bytes::new()).unwrap()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/grpc"));
        assert_eq!(
            (answer.header("grpc-status"), answer.header("grpc-message")),
            (status, message)
        );
        assert!(answer.body.is_empty() && !answer.headers.contains_key("content-length"));
    }
    let plain =
        request(address, "POST", "/direct", &[("content-type", "application/grpc-web")], b"").await;
    assert_eq!((plain.status, plain.text().as_str()), (503, "boom"));
}
