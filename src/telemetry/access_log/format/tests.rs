//! Tests of the grammar and of both kinds of line.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};
use prost_types::{Struct, Value as ProtoValue, value::Kind};
use tokio::time::Instant;

use super::*;
use crate::exchange::stream_info::RequestRecord;
use crate::exchange::{Downstream, ResponseFlag, StreamInfo};
use crate::telemetry::access_log::json::JsonFormat;

fn stream() -> StreamInfo {
    let downstream = Downstream {
        id: 7,
        remote: "10.0.0.1:4242".parse().unwrap(),
        local: "[::1]:8080".parse().unwrap(),
        remote_ip: HeaderValue::from_static("10.0.0.1"),
        buffer_limit: 1 << 20,
    };
    let mut stream = StreamInfo::new(Instant::now(), Version::HTTP_11, Arc::new(downstream));
    stream.start_time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_455_090_165);
    stream
}

fn answered() -> StreamInfo {
    let mut stream = stream();
    let mut headers = HeaderMap::new();
    headers.insert("user-agent", HeaderValue::from_static("ag\"e\\nt"));
    headers.insert("x-long", HeaderValue::from_static("abcdef"));
    headers.insert("x-bytes", HeaderValue::from_bytes(b"a\xffb").unwrap());
    stream.request = Some(Box::new(RequestRecord {
        method: Method::GET,
        path: Some("/a?b=c".parse().unwrap()),
        authority: Some(HeaderValue::from_static("example.com")),
        headers,
    }));
    let mut response = HeaderMap::new();
    response.insert("x-envoy-upstream-service-time", HeaderValue::from_static("11"));
    stream.response_headers = Some(Box::new(response));
    stream.status = Some(StatusCode::OK);
    stream.bytes_sent = 335;
    stream.details = "via_upstream";
    stream.upstream_first_byte = Some(stream.start + Duration::from_millis(11));
    stream.upstream_host = Some("127.0.0.1:9000".parse().unwrap());
    stream.upstream_cluster = Some("users".into());
    stream.route_name = Some("r".into());
    stream
}

fn context(stream: &StreamInfo) -> Context<'_> {
    Context { now: stream.start + Duration::from_millis(12), ..Context::of_ended(stream) }
}

fn text(format: &str, stream: &StreamInfo, omit_empty: bool) -> String {
    let mut out = Vec::new();
    Format::compile(format).unwrap().write(&context(stream), omit_empty, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn default_line_is_envoys() {
    assert_eq!(
        text(DEFAULT, &answered(), false),
        "[2026-11-23T17:31:30.165Z] \"GET /a?b=c HTTP/1.1\" 200 - 0 335 12 11 \"-\" \
         \"ag\"e\\nt\" \"-\" \"example.com\" \"127.0.0.1:9000\"\n"
    );
    let mut refused = stream();
    refused.flags.set(ResponseFlag::NoRouteFound);
    refused.status = Some(StatusCode::NOT_FOUND);
    assert_eq!(
        text(DEFAULT, &refused, false),
        "[2026-11-23T17:31:30.165Z] \"- - HTTP/1.1\" 404 NR 0 0 12 - \"-\" \"-\" \"-\" \"-\" \"-\"\n"
    );
}

#[test]
fn operators_have_envoys_values() {
    let answered = answered();
    let cases = [
        ("100%% plain", "100% plain"),
        ("%REQ(x-long):3%|%REQ(X-NONE?X-Long):99%|%REQ(X-NONE?X-NONE2):4%", "abc|abcdef|-"),
        ("%REQ(host)% %REQ(:SCHEME)%", "example.com -"),
        ("%RESP(:STATUS)% %RESP(x-none)%", "200 -"),
        ("%RESPONSE_CODE_DETAILS% %RESPONSE_DURATION%", "via_upstream 11"),
        ("%ROUTE_NAME% %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%", "r users users"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT%", "10.0.0.1:4242 4242"),
        ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "10.0.0.1"),
        ("%DOWNSTREAM_LOCAL_ADDRESS%", "[::1]:8080"),
        ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%", "::1 8080"),
        ("%CONNECTION_ID%", "7"),
        ("%START_TIME(%Y/%m/%d (%s)% %PROTOCOL%", "2026/11/23 (1795455090 HTTP/1.1"),
    ];
    for (format, expected) in cases {
        assert_eq!(text(format, &answered, false), expected, "{format}");
    }
}

#[test]
fn missing_values_are_a_dash_or_nothing() {
    let format = "[%REQ(x)%] [%RESPONSE_FLAGS%] [%RESPONSE_CODE%] [%UPSTREAM_HOST%]";
    assert_eq!(text(format, &stream(), false), "[-] [-] [0] [-]");
    assert_eq!(text(format, &stream(), true), "[] [-] [0] []");
}

#[test]
fn faults_name_the_operator() {
    let cases = [
        ("%NOPE%", "%NOPE%: the operator is not supported"),
        ("%TRAILER(X)%", "%TRAILER% is not supported"),
        ("%REQ%", "%REQ%: needs header names"),
        ("%REQ(a b)%", "%REQ%: needs header names"),
        ("%REQ(a?b?c)%", "%REQ%: needs header names"),
        ("%REQ(a):99999999999999999999999%", "%REQ%: has a length out of range"),
        ("%PROTOCOL:3%", "%PROTOCOL%: takes no length"),
        ("%PROTOCOL(x)%", "%PROTOCOL%: takes no arguments"),
        ("%START_TIME(%Q)%", "%Q: not a known conversion"),
        ("%lower%", "\"%lower%\": not an operator"),
        ("x %REQ(a", "\"%REQ(a\": not an operator"),
        ("%", "\"%\": not an operator"),
        ("%A%B%", "%A%: the operator is not supported"),
    ];
    for (format, expected) in cases {
        let errors = Format::compile(format).unwrap_err().to_string();
        assert!(errors.starts_with(expected), "{format}: {errors}");
    }
    let both = Format::compile("%NOPE% %NEITHER%").unwrap_err().to_string();
    assert!(both.contains("%NOPE%") && both.contains("%NEITHER%"), "{both}");
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_panic(format in r"[%A-Z_a-z()?:0-9 ü]{0,40}") {
        if let Ok(format) = Format::compile(&format) {
            format.write(&context(&stream()), false, &mut Vec::new());
        }
    }
}

fn string(text: &str) -> ProtoValue {
    ProtoValue { kind: Some(Kind::StringValue(text.into())) }
}

fn json(members: Vec<(&str, ProtoValue)>, stream: &StreamInfo, omit_empty: bool) -> String {
    let fields = members.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    let mut out = Vec::new();
    let format = JsonFormat::compile(&Struct { fields }).unwrap();
    format.write(&context(stream), omit_empty, &mut out);
    String::from_utf8(out).unwrap()
}

fn members() -> Vec<(&'static str, ProtoValue)> {
    let nested = Struct { fields: [("n".to_owned(), string("%REQ(X-NONE)%"))].into() };
    let list = prost_types::ListValue {
        values: vec![
            string("%REQ(X-NONE)%"),
            ProtoValue { kind: Some(Kind::NumberValue(3.0)) },
            ProtoValue { kind: Some(Kind::BoolValue(true)) },
            ProtoValue { kind: Some(Kind::NumberValue(1.5)) },
        ],
    };
    vec![
        ("zz", string("%RESPONSE_CODE%")),
        ("a", string("%DURATION%")),
        ("mix", string("x\"%RESPONSE_CODE%-%REQ(X-NONE)%y")),
        ("nested", ProtoValue { kind: Some(Kind::StructValue(nested)) }),
        ("list", ProtoValue { kind: Some(Kind::ListValue(list)) }),
        ("flags", string("%RESPONSE_FLAGS%")),
        ("time", string("%START_TIME(\"%s)%")),
        ("agent", string("%REQ(USER-AGENT)%")),
        ("bytes", string("%REQ(X-BYTES)%")),
        ("host", string("%UPSTREAM_HOST%")),
        ("text", string("100%%")),
        ("empty", string("")),
    ]
}

#[test]
fn json_keeps_types_and_escapes() {
    assert_eq!(
        json(members(), &answered(), false),
        concat!(
            r#"{"a":12,"agent":"ag\"e\\nt","bytes":"a"#,
            "\u{fffd}",
            r#"b","empty":"","flags":"-","host":"127.0.0.1:9000","list":[null,3,true,1.5],"#,
            r#""mix":"x\"200--y","nested":{"n":null},"text":"100%","time":"\"1795455090","zz":200}"#,
            "\n"
        )
    );
}

#[test]
fn json_can_leave_out_what_is_missing() {
    assert_eq!(
        json(members(), &stream(), true),
        concat!(
            r#"{"a":12,"empty":"","flags":"-","list":[3,true,1.5],"mix":"x\"0-y","#,
            r#""text":"100%","time":"\"1795455090","zz":0}"#,
            "\n"
        )
    );
    assert_eq!(json(vec![("n", string("%ROUTE_NAME%"))], &stream(), true), "{}\n");
}

#[test]
fn json_faults_have_paths() {
    let fields = [("k".to_owned(), string("%NOPE%"))].into();
    let nested = ProtoValue { kind: Some(Kind::StructValue(Struct { fields })) };
    let format = Struct { fields: [("outer".to_owned(), nested)].into() };
    let errors = JsonFormat::compile(&format).unwrap_err().to_string();
    assert!(errors.starts_with(r#"["outer"]["k"]: %NOPE%"#), "{errors}");
}

#[test]
fn formats_say_what_they_read() {
    let reads = |format: &str| {
        let format = Format::compile(format).unwrap();
        (format.needs_request(), format.needs_response_headers())
    };
    assert_eq!(reads("%DURATION%"), (false, false));
    assert_eq!(reads("%REQ(a)%"), (true, false));
    assert_eq!(reads(DEFAULT), (true, true));
}
