//! Compiles `config.accesslog.v3.AccessLog` and the formats it uses.

use std::sync::Arc;

use http::HeaderValue;
use prost::Name;
use prost_types::Any;

use super::filter::{Comparison, Filter, Op};
use super::format::{self, Format};
use super::json::JsonFormat;
use super::sink::{Sink, Sinks, Target};
use super::{AccessLog, AccessLogs, BodyForm, Line, LineBody};
use crate::config::runtime::Runtime;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::ResponseFlags;
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::accesslog::v3 as proto;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::extensions::access_loggers as loggers;

impl AccessLogs {
    /// Compiles the access logs of a connection manager or listener and opens their targets.
    ///
    /// # Errors
    /// Every fault, by index of the log; files that cannot be opened among them.
    pub fn compile(
        logs: &[proto::AccessLog],
        sinks: &Sinks,
        runtime: &Runtime,
    ) -> Result<Self, Errors> {
        let mut errors = Errors::new();
        let compiled: Vec<_> = logs
            .iter()
            .enumerate()
            .filter_map(|(i, log)| errors.take(access_log(log, sinks, runtime).index(i)))
            .collect();
        errors.finish()?;
        Ok(Self { logs: compiled.into() })
    }
}

fn access_log(
    log: &proto::AccessLog,
    sinks: &Sinks,
    runtime: &Runtime,
) -> Result<AccessLog, Errors> {
    // The name was once how the kind of log was chosen; the type of the config does that now.
    let proto::AccessLog { name: _, filter, config_type } = log;
    let mut errors = Errors::new();
    let filter = match filter {
        None => Some(None),
        Some(filter) => errors.take(compile_filter(filter, runtime).at("filter")).map(Some),
    };
    let target = match config_type {
        None => {
            errors.push("typed_config", Fault::Required);
            None
        }
        Some(proto::access_log::ConfigType::TypedConfig(any)) => {
            errors.take(logger(any, sinks).at("typed_config"))
        }
    };
    match (filter, target) {
        (Some(filter), Some((line, sink))) => Ok(AccessLog { filter, line, sink }),
        _ => Err(errors),
    }
}

/// The target and the form of an access log.
fn logger(any: &Any, sinks: &Sinks) -> Result<(Line, Arc<Sink>), Errors> {
    use loggers::file::v3::FileAccessLog;
    use loggers::stream::v3::{
        StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
    };
    let type_name = effective_type(any).map_err(undecodable)?;
    let (line, target) = if type_name == FileAccessLog::full_name() {
        file(&unpack(any).map_err(undecodable)?)?
    } else if type_name == StdoutAccessLog::full_name() {
        let StdoutAccessLog { access_log_format } = unpack(any).map_err(undecodable)?;
        let format =
            access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
        (optional_line(format.as_ref())?, Target::Stdout)
    } else if type_name == StderrAccessLog::full_name() {
        let StderrAccessLog { access_log_format } = unpack(any).map_err(undecodable)?;
        let format =
            access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
        (optional_line(format.as_ref())?, Target::Stderr)
    } else {
        return Err(Fault::UnknownExtension(type_name.into_owned()).into());
    };
    let sink = sinks.open(&target)?;
    Ok((line, sink))
}

fn undecodable(error: UnpackError) -> Errors {
    Fault::Undecodable(error.to_string()).into()
}

fn file(log: &loggers::file::v3::FileAccessLog) -> Result<(Line, Target), Errors> {
    use loggers::file::v3::file_access_log::AccessLogFormat as Kind;
    let loggers::file::v3::FileAccessLog { path, access_log_format } = log;
    let mut errors = Errors::new();
    let path = errors.take(fields::non_empty(path).at("path"));
    let line = errors.take(match access_log_format {
        None => Ok(Line::default()),
        Some(Kind::Format(text)) if text.is_empty() => Ok(Line::default()),
        Some(Kind::Format(text)) => Format::compile(text).map(Line::from).at("format"),
        Some(Kind::JsonFormat(json)) => JsonFormat::compile(json).map(Line::from).at("json_format"),
        Some(Kind::LogFormat(format)) => compile_line(format).at("log_format"),
    });
    match (path, line) {
        (Some(path), Some(line)) => Ok((line, Target::of_path(&path))),
        _ => Err(errors),
    }
}

fn optional_line(format: Option<&core::SubstitutionFormatString>) -> Result<Line, Errors> {
    match format {
        None => Ok(Line::default()),
        Some(format) => compile_line(format).at("log_format"),
    }
}

/// Compiles a `SubstitutionFormatString`.
///
/// # Errors
/// The faults of the format, each at its field.
pub fn compile_line(format: &core::SubstitutionFormatString) -> Result<Line, Errors> {
    use core::substitution_format_string::Format as Kind;
    // The content type is for bodies; a log has none.
    let core::SubstitutionFormatString { format, omit_empty_values, content_type: _ } = format;
    let line = match format {
        None => return Err(Errors::from(Fault::Required).at("text_format_source")),
        Some(Kind::TextFormat(text)) => Format::compile(text).map(Line::from).at("text_format"),
        Some(Kind::TextFormatSource(source)) => text_of(source)
            .and_then(|text| Format::compile(&text))
            .map(Line::from)
            .at("text_format_source"),
        Some(Kind::JsonFormat(json)) => JsonFormat::compile(json).map(Line::from).at("json_format"),
    }?;
    Ok(Line { omit_empty: *omit_empty_values, ..line })
}

/// Compiles a `SubstitutionFormatString` for the body of an answer, with what the body is said to be.
///
/// # Errors
/// The faults of the format, each at its field.
pub fn compile_body(format: &core::SubstitutionFormatString) -> Result<BodyForm, Errors> {
    let line = compile_line(format)?;
    let content_type = match (format.content_type.as_str(), line.is_json()) {
        ("", true) => HeaderValue::from_static("application/json"),
        ("", false) => HeaderValue::from_static("text/plain"),
        (given, _) => HeaderValue::from_str(given)
            .map_err(|_invalid| Fault::invalid(format!("{given:?}"), "not a header value"))
            .at("content_type")?,
    };
    Ok(BodyForm { line, content_type })
}

fn text_of(source: &core::DataSource) -> Result<String, Errors> {
    String::from_utf8(fields::data_source(source)?)
        .map_err(|e| Fault::invalid(e.utf8_error(), "a format must be UTF-8").into())
}

impl Default for Line {
    /// Envoy's default format.
    fn default() -> Self {
        Format::compile(format::DEFAULT).expect("every operator of it is known").into()
    }
}

impl From<Format> for Line {
    fn from(format: Format) -> Self {
        Self { body: LineBody::Text(format), omit_empty: false }
    }
}

impl From<JsonFormat> for Line {
    fn from(format: JsonFormat) -> Self {
        Self { body: LineBody::Json(format), omit_empty: false }
    }
}

/// Compiles an `AccessLogFilter`.
///
/// # Errors
/// The faults of the filter, each at its field.
pub fn compile_filter(
    filter: &proto::AccessLogFilter,
    runtime: &Runtime,
) -> Result<Filter, Errors> {
    use proto::access_log_filter::FilterSpecifier as Kind;
    let proto::AccessLogFilter { filter_specifier } = filter;
    match filter_specifier {
        None => Err(Fault::Required.into()),
        Some(Kind::StatusCodeFilter(proto::StatusCodeFilter { comparison })) => {
            required_comparison(comparison.as_ref(), runtime)
                .map(Filter::StatusCode)
                .at("status_code_filter.comparison")
        }
        Some(Kind::DurationFilter(proto::DurationFilter { comparison })) => {
            required_comparison(comparison.as_ref(), runtime)
                .map(Filter::Duration)
                .at("duration_filter.comparison")
        }
        Some(Kind::AndFilter(proto::AndFilter { filters })) => {
            compile_filters(filters, runtime).map(Filter::All).at("and_filter.filters")
        }
        Some(Kind::OrFilter(proto::OrFilter { filters })) => {
            compile_filters(filters, runtime).map(Filter::Any).at("or_filter.filters")
        }
        Some(Kind::ResponseFlagFilter(proto::ResponseFlagFilter { flags })) => {
            flag_filter(flags).at("response_flag_filter.flags")
        }
    }
}

fn compile_filters(
    filters: &[proto::AccessLogFilter],
    runtime: &Runtime,
) -> Result<Box<[Filter]>, Errors> {
    if filters.len() < 2 {
        let expected = "a list of two filters or more";
        return Err(Fault::out_of_range(format!("a list of {}", filters.len()), expected).into());
    }
    let mut errors = Errors::new();
    let compiled: Vec<_> = filters
        .iter()
        .enumerate()
        .filter_map(|(i, filter)| errors.take(compile_filter(filter, runtime).index(i)))
        .collect();
    errors.finish()?;
    Ok(compiled.into())
}

fn required_comparison(
    comparison: Option<&proto::ComparisonFilter>,
    runtime: &Runtime,
) -> Result<Comparison, Errors> {
    use proto::comparison_filter::Op as ProtoOp;
    let proto::ComparisonFilter { op, value } =
        comparison.ok_or_else(|| Errors::from(Fault::Required))?;
    let op = match fields::enumeration::<ProtoOp>(*op).at("op")? {
        ProtoOp::Eq => Op::Equal,
        ProtoOp::Ge => Op::AtLeast,
        ProtoOp::Le => Op::AtMost,
        ProtoOp::Ne => Op::NotEqual,
    };
    let with = value.as_ref().map_or(0, |value| runtime.number(value));
    Ok(Comparison { op, with })
}

/// Letters the API knows of flags that are never set here: such a filter never takes a request.
const FOREIGN_FLAGS: [&str; 12] =
    ["LH", "UAEX", "RLSE", "IH", "UMSDR", "RFCF", "DT", "OM", "DF", "DO", "DR", "UDO"];

fn flag_filter(flags: &[String]) -> Result<Filter, Errors> {
    if flags.is_empty() {
        return Ok(Filter::AnyFlag);
    }
    let mut errors = Errors::new();
    let mut wanted = ResponseFlags::default();
    for (i, letters) in flags.iter().enumerate() {
        match ResponseFlags::ALL.iter().find(|(_, known)| known == letters) {
            Some((flag, _)) => wanted.set(*flag),
            None if FOREIGN_FLAGS.contains(&letters.as_str()) => {}
            None => {
                let fault = Fault::out_of_range(format!("{letters:?}"), "a response flag");
                errors.take::<()>(Err(fault).index(i));
            }
        }
    }
    errors.finish()?;
    Ok(Filter::FlagOf(wanted))
}

#[cfg(test)]
mod tests;
