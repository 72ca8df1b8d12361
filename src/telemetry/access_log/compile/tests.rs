//! Tests of compiling.

use prost_types::Any;

use super::*;
use crate::config::runtime::Runtime;
use crate::proto::any::pack;
use loggers::file::v3::{FileAccessLog, file_access_log};
use loggers::stream::v3::StdoutAccessLog;

fn log(config: Any, filter: Option<proto::AccessLogFilter>) -> proto::AccessLog {
    proto::AccessLog {
        name: "log".into(),
        filter,
        config_type: Some(proto::access_log::ConfigType::TypedConfig(config)),
    }
}

fn stdout(filter: proto::access_log_filter::FilterSpecifier) -> proto::AccessLog {
    let filter = proto::AccessLogFilter { filter_specifier: Some(filter) };
    log(pack(&StdoutAccessLog::default()), Some(filter))
}

fn compile(logs: &[proto::AccessLog]) -> Result<AccessLogs, String> {
    AccessLogs::compile(logs, &Sinks::check_only(), &Runtime::default()).map_err(|e| e.to_string())
}

fn file(format: file_access_log::AccessLogFormat) -> Any {
    pack(&FileAccessLog { path: "/a.log".into(), access_log_format: Some(format) })
}

fn text_format(text: &str) -> file_access_log::AccessLogFormat {
    let source = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString(text.into())),
    };
    file_access_log::AccessLogFormat::LogFormat(core::SubstitutionFormatString {
        format: Some(core::substitution_format_string::Format::TextFormatSource(source)),
        ..Default::default()
    })
}

#[test]
fn faults_have_the_path_of_their_field() {
    use proto::access_log_filter::FilterSpecifier as Kind;
    let comparison = |op| {
        let value = Some(core::RuntimeUInt32 { default_value: 400, runtime_key: "key".into() });
        Some(proto::ComparisonFilter { op, value })
    };
    let good = proto::StatusCodeFilter { comparison: comparison(1) };
    let flags = proto::ResponseFlagFilter { flags: vec!["UH".into(), "XX".into()] };
    let one = proto::OrFilter { filters: vec![proto::AccessLogFilter::default()] };
    let cases = [
        (
            log(file(text_format("%NOPE%")), None),
            "[0].typed_config.log_format.text_format_source: %NOPE%",
        ),
        (log(pack(&FileAccessLog::default()), None), "[0].typed_config.path: is required"),
        (log(pack(&core::Address::default()), None), "[0].typed_config: unknown extension type"),
        (
            log(Any { value: vec![1], ..file(text_format("")) }, None),
            "[0].typed_config: cannot be decoded",
        ),
        (proto::AccessLog::default(), "[0].typed_config: is required"),
        (
            stdout(Kind::DurationFilter(proto::DurationFilter { comparison: comparison(9) })),
            "[0].filter.duration_filter.comparison.op: 9 is not",
        ),
        (
            stdout(Kind::StatusCodeFilter(proto::StatusCodeFilter::default())),
            "[0].filter.status_code_filter.comparison: is required",
        ),
        (
            stdout(Kind::ResponseFlagFilter(flags)),
            "[0].filter.response_flag_filter.flags[1]: \"XX\" is not a response flag",
        ),
        (stdout(Kind::OrFilter(one)), "[0].filter.or_filter.filters: a list of 1 is not"),
    ];
    for (log, expected) in cases {
        let errors = compile(&[log]).unwrap_err();
        assert!(errors.starts_with(expected), "{errors} is not {expected}");
    }
    assert!(!compile(&[stdout(Kind::StatusCodeFilter(good))]).unwrap().is_empty());
    assert!(compile(&[]).unwrap().is_empty());
}

#[test]
fn what_must_be_kept_follows_from_the_formats() {
    let plain = log(file(text_format("%DURATION%\n")), None);
    let logs = compile(std::slice::from_ref(&plain)).unwrap();
    assert!(!logs.needs_request() && !logs.needs_response_headers());
    let default = log(pack(&StdoutAccessLog::default()), None);
    let logs = compile(&[plain, default]).unwrap();
    assert!(logs.needs_request() && logs.needs_response_headers());
}
