//! Access logs: what a line says, where it goes, and that it is written however a request ends.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::resources::{
    bootstrap, hcm, listener_of, static_cluster, table, to, typed, with,
};
use crate::harness::{Ending, Http1, Origin, Proxy, ProxyBuilder, Script, eventually, request};

fn file_log(path: &Path, extra: Value) -> Value {
    let config = with(json!({ "path": path.to_str().unwrap() }), extra);
    json!({ "name": "file", "typed_config": typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", config) })
}

fn stdout_log() -> Value {
    json!({ "name": "out", "typed_config": typed("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", json!({})) })
}

fn logged(logs: &[Value]) -> Value {
    let routes = json!({ "route_config": table("local", &[to("one")]) });
    listener_of("in", hcm(routes, json!({ "access_log": logs })))
}

async fn lines(path: &Path, n: usize) -> Vec<String> {
    eventually("the log file has its lines", async || {
        let text = std::fs::read_to_string(path).ok()?;
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        (lines.len() >= n).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn the_default_line_goes_to_file_and_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let origin = Origin::http1("one").await;
    let listener = logged(&[file_log(&path, json!({})), stdout_log()]);
    let proxy =
        Proxy::with(bootstrap(&[listener], &[static_cluster("one", &[origin.address])])).await;
    let headers = [("user-agent", "story/1"), ("x-request-id", "id-1"), ("host", "site.test")];
    request(proxy.listener("in").await, "POST", "/a?b=c", &headers, b"12345").await;
    let line = lines(&path, 1).await.remove(0);
    let (start, rest) = line.split_once("] ").unwrap();
    assert!(start.starts_with("[20") && start.ends_with('Z'), "{line}");
    let expected = "\"POST /a?b=c HTTP/1.1\" 200 - 5 3 ";
    let rest = rest.strip_prefix(expected).unwrap_or_else(|| panic!("{line}"));
    let end = format!("\"-\" \"story/1\" \"id-1\" \"site.test\" \"{}\"", origin.address);
    assert!(rest.ends_with(&end), "{line}");
    let stdout = eventually("a line on stdout", async || {
        let out = proxy.process.stdout();
        out.lines().next().map(str::to_owned)
    });
    assert_eq!(stdout.await, line);
    assert_eq!(proxy.stat("access_log.logs_dropped").await, 0);
}

#[tokio::test]
async fn formats_say_what_they_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (text, object) = (dir.path().join("text"), dir.path().join("json"));
    let origin = Origin::http1("one").await;
    let format = "%REQ(X-A?:PATH):4%|%RESP(X-B)%|%UPSTREAM_CLUSTER%|%ROUTE_NAME%|%RESPONSE_CODE_DETAILS%|%BYTES_SENT%|%PROTOCOL%\n";
    let logs = [
        file_log(
            &text,
            json!({ "log_format": { "text_format_source": { "inline_string": format } } }),
        ),
        file_log(
            &object,
            json!({ "log_format": { "json_format": { "code": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%", "fixed": "x" } } }),
        ),
    ];
    let proxy =
        Proxy::with(bootstrap(&[logged(&logs)], &[static_cluster("one", &[origin.address])])).await;
    let address = proxy.listener("in").await;
    origin.script(Script::default().header("x-b", "bee"));
    request(address, "GET", "/path", &[], b"").await;
    assert_eq!(lines(&text, 1).await[0], "/pat|bee|one|-|via_upstream|3|HTTP/1.1");
    let object: Value = serde_json::from_str(&lines(&object, 1).await[0]).unwrap();
    assert_eq!(object, json!({ "code": 200, "path": "/path", "fixed": "x" }));
}

#[tokio::test]
async fn only_what_the_filter_wants_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("errors");
    let origin = Origin::http1("one").await;
    let errors = with(
        file_log(
            &path,
            json!({ "log_format": { "text_format_source": { "inline_string": "%RESPONSE_CODE%\n" } } }),
        ),
        json!({ "filter": { "status_code_filter": { "comparison": {
            "op": "GE", "value": { "default_value": 400, "runtime_key": "none" } } } } }),
    );
    let proxy =
        Proxy::with(bootstrap(&[logged(&[errors])], &[static_cluster("one", &[origin.address])]))
            .await;
    let mut client = Http1::connect(proxy.listener("in").await).await;
    for status in [200, 404, 301, 500] {
        origin.script(Script::status(status));
        client.get("/").await;
    }
    assert_eq!(lines(&path, 2).await, ["404", "500"]);
}

#[tokio::test]
async fn a_line_is_written_however_the_request_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let origin = Origin::http1("one").await;
    let format = json!({ "log_format": { "text_format_source": { "inline_string": "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_SENT%\n" } } });
    let listener = logged(&[file_log(&path, format)]);
    let mut proxy =
        Proxy::with(bootstrap(&[listener], &[static_cluster("one", &[origin.address])])).await;
    let address = proxy.listener("in").await;
    origin.script(Script::held());
    let mut client = Http1::connect(address).await;
    client.send("GET /left HTTP/1.1\r\nhost: t\r\n\r\n").await;
    origin.until_active(1).await;
    drop(client);
    assert_eq!(lines(&path, 1).await, ["/left 0 DC 0"]);

    origin.script(Script::ending(Ending::After(10)));
    let mut client = Http1::connect(address).await;
    client.send("GET /cut HTTP/1.1\r\nhost: t\r\n\r\n").await;
    client.rest().await;
    assert_eq!(lines(&path, 2).await[1], "/cut 200 UC 10");

    // The lines of a process that ends in order are not lost.
    origin.script(Script::default());
    assert_eq!(crate::harness::get(address, "/last").await.status, 200);
    assert!(proxy.terminate().await.success());
    assert_eq!(lines(&path, 3).await[2], "/last 200 - 3");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_an_error_of_the_listener() {
    let origin = Origin::http1("one").await;
    let listener = logged(&[file_log(Path::new("/nonexistent/dir/log"), json!({}))]);
    let builder =
        ProxyBuilder::new(bootstrap(&[listener], &[static_cluster("one", &[origin.address])]));
    let file = builder.dir().join("b.json");
    let bad = logged(&[file_log(Path::new("x"), json!({ "format": "%NOPE%" }))]);
    std::fs::write(&file, bootstrap(&[bad], &[]).to_string()).unwrap();
    let said = crate::harness::run(["-c", file.to_str().unwrap(), "--mode", "validate"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.all().contains("%NOPE%"), "{}", said.all());

    let missing = logged(&[file_log(Path::new("/nonexistent/dir/log"), json!({}))]);
    std::fs::write(&file, bootstrap(&[missing], &[]).to_string()).unwrap();
    let said = crate::harness::run(["-c", file.to_str().unwrap()]).await;
    assert_ne!(said.code, Some(0), "statics must be right: {}", said.all());
    assert!(said.all().contains("/nonexistent/dir/log"), "{}", said.all());
}
