//! From configuration to lines in a file.

use std::time::Duration;

use http::{HeaderValue, StatusCode, Version};
use tokio::time::Instant;

use super::*;
use crate::config::runtime::Runtime;
use crate::exchange::{Downstream, ResponseFlag};
use crate::proto::any::pack;
use crate::proto::envoy::config::accesslog::v3 as proto;
use crate::proto::envoy::config::core::v3::RuntimeUInt32;
use crate::proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use crate::telemetry::Telemetry;
use proto::access_log_filter::FilterSpecifier as Kind;

fn filter(kind: Kind) -> proto::AccessLogFilter {
    proto::AccessLogFilter { filter_specifier: Some(kind) }
}

fn compare(op: proto::comparison_filter::Op, with: u32) -> Option<proto::ComparisonFilter> {
    let value = Some(RuntimeUInt32 { default_value: with, runtime_key: "unused".into() });
    Some(proto::ComparisonFilter { op: op.into(), value })
}

fn status(op: proto::comparison_filter::Op, with: u32) -> proto::AccessLogFilter {
    filter(Kind::StatusCodeFilter(proto::StatusCodeFilter { comparison: compare(op, with) }))
}

fn flags(letters: &[&str]) -> proto::AccessLogFilter {
    let flags = letters.iter().map(|l| (*l).to_owned()).collect();
    filter(Kind::ResponseFlagFilter(proto::ResponseFlagFilter { flags }))
}

/// The codes of the exchanges that a log with this filter takes: 200, 404 NR, 503 UF.
fn taken(filter: Option<proto::AccessLogFilter>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let config = FileAccessLog {
        path: path.to_str().unwrap().into(),
        access_log_format: Some(file_access_log::AccessLogFormat::Format(
            "%RESPONSE_CODE% %RESPONSE_FLAGS%\n".into(),
        )),
    };
    let log = proto::AccessLog {
        name: String::new(),
        filter,
        config_type: Some(proto::access_log::ConfigType::TypedConfig(pack(&config))),
    };
    let sinks = Sinks::new(1, &Telemetry::default());
    let logs = AccessLogs::compile(&[log], &sinks, &Runtime::default()).unwrap();
    let downstream = Arc::new(Downstream {
        id: 1,
        remote: "10.0.0.1:1".parse().unwrap(),
        local: "10.0.0.2:2".parse().unwrap(),
        remote_ip: HeaderValue::from_static("10.0.0.1"),
        buffer_limit: 1 << 20,
    });
    for (code, flag) in [
        (200, None),
        (404, Some(ResponseFlag::NoRouteFound)),
        (503, Some(ResponseFlag::UpstreamConnectionFailure)),
    ] {
        let mut stream = StreamInfo::new(Instant::now(), Version::HTTP_2, Arc::clone(&downstream));
        stream.status = Some(StatusCode::from_u16(code).unwrap());
        flag.into_iter().for_each(|flag| stream.flags.set(flag));
        logs.log(&stream);
    }
    assert!(sinks.shutdown(Duration::from_secs(20)));
    std::fs::read_to_string(&path).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn filters_choose_what_is_written() {
    use proto::comparison_filter::Op::{Eq, Ge, Le, Ne};
    let (ok, none, down) = ("200 -", "404 NR", "503 UF");
    let and = |filters| filter(Kind::AndFilter(proto::AndFilter { filters }));
    let or = |filters| filter(Kind::OrFilter(proto::OrFilter { filters }));
    let slow = proto::DurationFilter { comparison: compare(Ge, 3_600_000) };
    let cases: [(Option<proto::AccessLogFilter>, Vec<&str>); 10] = [
        (None, vec![ok, none, down]),
        (Some(status(Ge, 400)), vec![none, down]),
        (Some(status(Le, 404)), vec![ok, none]),
        (Some(status(Eq, 200)), vec![ok]),
        (Some(status(Ne, 200)), vec![none, down]),
        (Some(filter(Kind::DurationFilter(slow))), vec![]),
        (Some(flags(&[])), vec![none, down]),
        (Some(flags(&["UF", "UAEX"])), vec![down]),
        (Some(and(vec![status(Ge, 400), flags(&["NR"])])), vec![none]),
        (Some(or(vec![status(Eq, 200), flags(&["NR"])])), vec![ok, none]),
    ];
    for (filter, expected) in cases {
        assert_eq!(taken(filter.clone()), expected, "{filter:?}");
    }
}
