//! Instances at runtime: added, changed, drained and removed through the API and its command line, kept
//! over restarts, and refused where an edit of the file would be.

use std::cmp::Reverse;
use std::process::Output;

use nuncio::proto::envoy::config::cluster::v3::Cluster;
use nuncio::proto::envoy::config::core::v3::HealthStatus;
use nuncio::proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use prost::Message;
use serde_json::{Value, json};

use crate::gateway::{GOOD, taken};
use crate::harness::*;

const TOKEN: &str = "authorization: Bearer s3cret\r\n";

/// A folder with the gateway file and the token.
fn folder() -> Folder {
    let weighted = GOOD.replace("- name: users", "- name: users\n  strategy: weighted");
    Folder::new(&[("gateway.yaml", &weighted), ("token", "s3cret\n"), ("wrong", "s3cre7")])
}

async fn serve(folder: &Folder) -> Server {
    let token = folder.path().join("token");
    let more = ["--api", "127.0.0.1:0", "--api-token-file", token.to_str().unwrap()];
    Server::start_from("--gateway", &folder.path().join("gateway.yaml"), &more).await
}

async fn call(server: &Server, line: &str, body: Value) -> (u16, Value) {
    let api = server.api.as_ref().unwrap();
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, text) = fetch(api, line, TOKEN, &body).await;
    let document = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    (status, document)
}

/// Port, weight and whether it drains, of each endpoint of the next response.
async fn endpoints_of(talk: &mut Delta) -> Vec<(u32, u32, bool)> {
    let response = talk.take(ENDPOINT).await;
    let any = response.resources[0].resource.as_ref().unwrap();
    let assignment = ClusterLoadAssignment::decode(&*any.value).unwrap();
    let all = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    all.map(|endpoint| {
        let draining = endpoint.health_status == i32::from(HealthStatus::Draining);
        (port(endpoint), endpoint.load_balancing_weight.unwrap(), draining)
    })
    .collect()
}

/// `healthy_panic_threshold` of the cluster in the next response.
async fn panics_below(talk: &mut Delta) -> Option<f64> {
    let response = talk.take(CLUSTER).await;
    let any = response.resources[0].resource.as_ref().unwrap();
    let cluster = Cluster::decode(&*any.value).unwrap();
    let threshold = cluster.common_lb_config.unwrap().healthy_panic_threshold;
    threshold.map(|percent| percent.value)
}

fn port(endpoint: &nuncio::proto::envoy::config::endpoint::v3::LbEndpoint) -> u32 {
    use nuncio::proto::envoy::config::core::v3::{address::Address, socket_address::PortSpecifier};
    use nuncio::proto::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
    let HostIdentifier::Endpoint(endpoint) = endpoint.host_identifier.as_ref().unwrap();
    let address = endpoint.address.as_ref().unwrap().address.as_ref().unwrap();
    let Address::SocketAddress(socket) = address;
    let PortSpecifier::PortValue(port) = socket.port_specifier.as_ref().unwrap();
    *port
}

#[tokio::test]
async fn each_change_reaches_proxies_as_endpoints_of_its_service() {
    let folder = folder();
    let server = serve(&folder).await;
    let mut talk = taken(&server).await;
    let instances = "/v1/services/users/instances";

    let three = json!({ "id": "three", "url": "http://127.0.0.1:3", "weight": 5, "zone": "z" });
    let (status, added) = call(&server, &format!("POST {instances}"), three).await;
    assert_eq!((status, &added["from"], &added["weight"]), (201, &json!("added"), &json!(5)));
    assert_eq!(endpoints_of(&mut talk).await, [(1, 1, false), (2, 1, false), (3, 5, false)]);

    let moved = json!({ "url": "http://127.0.0.1:4" });
    let (status, changed) = call(&server, &format!("PATCH {instances}/three"), moved).await;
    assert_eq!((status, &changed["weight"], &changed["zone"]), (200, &json!(5), &json!("z")));
    assert_eq!(endpoints_of(&mut talk).await, [(1, 1, false), (2, 1, false), (4, 5, false)]);

    let weights = json!({ "one": 7, "three": 2 });
    let (status, service) = call(&server, "PUT /v1/services/users/weights", weights).await;
    assert_eq!((status, &service["instances"][0]["from"]), (200, &json!("changed")));
    assert_eq!(endpoints_of(&mut talk).await, [(1, 7, false), (2, 1, false), (4, 2, false)]);

    let (status, one) = call(&server, &format!("POST {instances}/one/drain"), Value::Null).await;
    assert_eq!((status, &one["draining"]), (200, &json!(true)));
    // One of three that is not to be chosen is no third of a panic.
    assert_eq!(panics_below(&mut talk).await, Some(50.0 * 2.0 / 3.0));
    assert_eq!(endpoints_of(&mut talk).await, [(1, 7, true), (2, 1, false), (4, 2, false)]);
    call(&server, &format!("DELETE {instances}/one/drain"), Value::Null).await;
    assert_eq!(panics_below(&mut talk).await, None);
    assert_eq!(endpoints_of(&mut talk).await, [(1, 7, false), (2, 1, false), (4, 2, false)]);

    for (name, left) in [("two", 2), ("three", 1)] {
        let (status, nothing) =
            call(&server, &format!("DELETE {instances}/{name}"), Value::Null).await;
        assert_eq!((status, nothing), (204, Value::Null));
        assert_eq!(endpoints_of(&mut talk).await.len(), left);
    }
    // What was removed may come again.
    let two = json!({ "id": "two", "url": "http://127.0.0.1:2" });
    assert_eq!(call(&server, &format!("POST {instances}"), two).await.0, 201);
    assert_eq!(endpoints_of(&mut talk).await, [(1, 7, false), (2, 1, false)]);
}

#[tokio::test]
async fn changes_survive_restarts_and_edits_of_the_file() {
    let folder = folder();
    let mut server = serve(&folder).await;
    let added = json!({ "id": "three", "url": "http://127.0.0.1:3" });
    assert_eq!(call(&server, "POST /v1/services/users/instances", added).await.0, 201);
    let path = "/v1/services/users/instances/one";
    assert_eq!(call(&server, &format!("POST {path}/drain"), Value::Null).await.0, 200);
    assert_eq!(
        call(&server, &path.replace("/v1", "DELETE /v1").replace("one", "two"), Value::Null)
            .await
            .0,
        204
    );
    let before = call(&server, "GET /v1/services", Value::Null).await;
    assert!(server.terminate().success());

    let server = serve(&folder).await;
    assert_eq!(call(&server, "GET /v1/services", Value::Null).await, before);
    let kept = std::fs::read_to_string(folder.path().join("gateway.yaml.overlay.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!(kept["services"]["users"]["instances"]["two"]["removed"], true);
    assert!(!folder.path().join("gateway.yaml.overlay.json.partial").exists());

    // The file has another instance, and has lost one that was changed.
    let edited =
        GOOD.replace("id: one, url: 'http://127.0.0.1:1'", "id: new, url: 'http://127.0.0.1:9'");
    folder.write("gateway.yaml", &edited);
    let doubtful = |s: &Value| !s["groups"][0]["warnings"].as_array().unwrap().is_empty();
    let status = server.status_when(doubtful).await;
    let warning = status["groups"][0]["warnings"][0]["message"].as_str().unwrap();
    assert!(warning.contains("instance \"one\" of service \"users\""), "{warning}");
    let (_, service) = call(&server, "GET /v1/services/users", Value::Null).await;
    let instances = service["instances"].as_array().unwrap().iter();
    let names: Vec<_> = instances.map(|i| (i["id"].clone(), i["from"].clone())).collect();
    assert_eq!(names, [(json!("new"), json!("file")), (json!("three"), json!("added"))]);
}

#[tokio::test]
async fn what_an_edit_of_the_file_could_not_be_is_refused() {
    let folder = folder();
    let server = serve(&folder).await;
    let before = server.get("/snapshot").await;
    let instances = "/v1/services/users/instances";
    let post = format!("POST {instances}");
    let patch = format!("PATCH {instances}/one");
    for (line, body, status, part) in [
        (&*post, json!({ "id": "one", "url": "http://127.0.0.1:9" }), 409, "already"),
        (&*post, json!({ "id": "x", "url": "http://127.0.0.1:1" }), 422, "is the same as"),
        (&*post, json!({ "id": "x" }), 400, "url is required"),
        (&*post, json!({ "url": "https://x:1" }), 400, "only be plain"),
        (&*post, json!({ "url": "http://x:1", "wieght": 1 }), 400, "did you mean \\\"weight\\\"?"),
        (&*patch, json!({ "weight": 0 }), 400, "from 1 to 128"),
        (&*patch, json!({ "draining": true }), 400, "cannot be changed here"),
        (&*patch, json!([]), 400, "expected a mapping"),
        ("PUT /v1/services/users/weights", json!({ "none": 1 }), 404, "\\\"none\\\""),
        ("PUT /v1/services/none/weights", json!({}), 404, "\\\"none\\\""),
        ("DELETE /v1/services/users/instances/none", Value::Null, 404, "\\\"none\\\""),
        ("POST /v1/services/none/instances", json!({ "url": "http://x:1" }), 404, "\\\"none\\\""),
        ("GET /v1/services/none", Value::Null, 404, "\\\"none\\\""),
        ("GET /v1/none", Value::Null, 404, "no /v1/none here"),
        ("PUT /v1/services", Value::Null, 405, "only GET"),
    ] {
        let (found, document) = call(&server, line, body).await;
        assert_eq!(found, status, "{line}: {document}");
        assert!(document.to_string().contains(part), "{line}: {document}");
    }
    assert_eq!(server.get("/snapshot").await, before);

    folder.write("gateway.yaml", "listeners: []\n");
    let (status, document) = call(&server, &post, json!({ "url": "http://x:1" })).await;
    assert_eq!(status, 409, "{document}");
    assert!(document["error"].as_str().unwrap().contains("gateway file is bad"), "{document}");
}

#[tokio::test]
async fn nobody_is_heard_without_the_token() {
    let folder = folder();
    let server = serve(&folder).await;
    let api = server.api.as_ref().unwrap();
    for headers in [
        "",
        "authorization: Bearer s3cre7\r\n",
        "authorization: Bearer s3cret0\r\n",
        "authorization: Bearer \r\n",
        "authorization: Basic s3cret\r\n",
    ] {
        for line in ["GET /v1/services", "DELETE /v1/services/users/instances/one", "GET /none"] {
            let (status, text) = fetch(api, line, headers, "").await;
            assert_eq!(status, 401, "{headers}: {text}");
        }
    }
    assert_eq!(fetch(api, "GET /v1/services", "Authorization: bearer s3cret\r\n", "").await.0, 200);
    // Nor does it start with a token that is none.
    folder.write("token", "\n");
    let gateway = folder.path().join("gateway.yaml");
    let options = ["--api", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0"];
    let mut command = binary();
    command.arg("--gateway").arg(gateway).args(options);
    let output = command.arg("--api-token-file").arg(folder.path().join("token")).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("holds no token"));
}

#[tokio::test]
async fn every_operation_answers_as_its_document_says() {
    let folder = folder();
    let server = serve(&folder).await;
    let mut _talk = taken(&server).await;
    let document = binary().arg("openapi").output().unwrap().stdout;
    let document: Value = serde_json::from_slice(&document).unwrap();
    let added = json!({ "id": "new", "url": "http://127.0.0.1:9", "metadata": { "v": 1 } });
    let bodies = [("post", added), ("patch", json!({ "zone": "z" })), ("put", json!({ "one": 3 }))];
    let mut operations: Vec<(&String, &String, &Value)> = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        operations.extend(methods.as_object().unwrap().iter().map(|(m, o)| (path, m, o)));
    }
    assert_eq!(operations.len(), 9);
    // Removal comes last.
    operations.sort_by_key(|(path, method, _)| (*method == "delete", Reverse(path.len())));
    for (path, method, operation) in operations {
        let target = path.replace("{service}", "users").replace("{instance}", "one");
        let takes = operation.get("requestBody").is_some();
        let body = bodies.iter().find(|(of, _)| takes && of == method);
        let body = body.map_or(Value::Null, |(_, body)| body.clone());
        let line = format!("{} {target}", method.to_uppercase());
        let (status, answer) = call(&server, &line, body).await;
        let response = &operation["responses"][status.to_string()];
        assert!((200..300).contains(&status) && response.is_object(), "{line}: {status} {answer}");
        match response.get("content") {
            Some(content) => {
                fits(&document, &content["application/json"]["schema"], &answer, &line);
            }
            None => assert_eq!(answer, Value::Null, "{line}"),
        }
        // A failure is one of those that are told, and looks as it is told.
        let missing = line.replace("users", "missing");
        if missing != line {
            let body = if takes { json!({ "url": "http://x:1" }) } else { Value::Null };
            let (status, answer) = call(&server, &missing, body).await;
            let response = &operation["responses"][status.to_string()];
            assert!(status >= 400 && response.is_object(), "{missing}: {status} {answer}");
            fits(&document, &response["content"]["application/json"]["schema"], &answer, &missing);
        }
    }
}

/// Holds a value against the little of JSON Schema that the document uses.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').unwrap();
        return fits(document, document.pointer(pointer).unwrap(), value, at);
    }
    let is = |kind: &str| match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        other => panic!("{other}?"),
    };
    match &schema["type"] {
        Value::String(kind) => assert!(is(kind), "{at}: {value} is not {kind}"),
        Value::Array(kinds) => {
            assert!(
                kinds.iter().any(|kind| is(kind.as_str().unwrap())),
                "{at}: {value}: {kinds:?}"
            );
        }
        _ => assert!(schema["enum"].as_array().unwrap().contains(value), "{at}: {value}"),
    }
    for (key, below) in schema["properties"].as_object().into_iter().flatten() {
        fits(document, below, &value[key], &format!("{at}.{key}"));
    }
    if let (Some(properties), Some(found)) = (schema["properties"].as_object(), value.as_object()) {
        let extra: Vec<_> = found.keys().filter(|key| !properties.contains_key(*key)).collect();
        assert!(extra.is_empty(), "{at}: {extra:?} is not in the document");
    }
    for item in value.as_array().into_iter().flatten() {
        fits(document, &schema["items"], item, &format!("{at}[]"));
    }
}

fn ctl(server: &Server, folder: &Folder, args: &[&str]) -> Output {
    ctl_with(server, &folder.path().join("token"), args)
}

fn ctl_with(server: &Server, token: &std::path::Path, args: &[&str]) -> Output {
    let mut command = binary();
    command.args(["ctl", "--api", server.api.as_ref().unwrap()]).arg("--token-file").arg(token);
    command.args(args).output().unwrap()
}

fn told(output: &Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_what_the_api_does() {
    let folder = folder();
    let server = serve(&folder).await;
    let _talk = taken(&server).await;
    let url = "http://127.0.0.1:3";
    for (args, line) in [
        (
            &["add", "users", url, "--id", "a/b c", "--weight", "2", "--metadata", "v=v2"][..],
            "a/b c\thttp://127.0.0.1:3\tweight 2\tserving\tadded\n",
        ),
        (
            &["change", "users", "a/b c", "--weight", "4", "--zone", "z"],
            "a/b c\thttp://127.0.0.1:3\tweight 4\tserving\tadded\n",
        ),
        (&["drain", "users", "one"], "one\thttp://127.0.0.1:1\tweight 1\tdraining\tchanged\n"),
        (&["undrain", "users", "one"], "one\thttp://127.0.0.1:1\tweight 1\tserving\tfile\n"),
        (&["remove", "users", "a/b c"], ""),
        (
            &["weights", "users", "one=3"],
            "users\tone\thttp://127.0.0.1:1\tweight 3\tserving\tchanged\nusers\ttwo\thttp://127.0.0.1:2\tweight 1\tserving\tfile\n",
        ),
    ] {
        let output = ctl(&server, &folder, args);
        assert!(output.status.success(), "{args:?}: {}", told(&output));
        assert_eq!(told(&output), line, "{args:?}");
    }
    let services: Value =
        serde_json::from_slice(&ctl(&server, &folder, &["--json", "services"]).stdout).unwrap();
    assert_eq!(services["services"][0]["instances"][0]["weight"], 3);
    let proxies = told(&ctl(&server, &folder, &["proxies"]));
    assert!(proxies.contains("a\tlisteners\tacked\n"), "{proxies}");

    let refused = ctl(&server, &folder, &["add", "users", "ftp://x"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("\n  url: expected http://HOST:PORT"), "{}", told(&refused));
    let unknown = ctl_with(&server, &folder.path().join("wrong"), &["services"]);
    assert_eq!(told(&unknown), "a bearer token is required\n");
}
