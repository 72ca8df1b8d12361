//! `config.core.v3.HeaderValueOption` to [`Mutations`].

use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use crate::config::matcher::header_name;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::common::mutation_rules::v3 as rules;
use crate::proto::envoy::config::core::v3 as core;
use crate::route::headers::{Addition, AppendAction, Level, Mutations, Value};
use crate::telemetry::access_log::format::Format;

/// The most headers that one list may add.
const MAX_ADDITIONS: usize = 1000;

/// The header mutations of one message.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) request_headers_to_add: &'a [core::HeaderValueOption],
    pub(super) request_headers_to_remove: &'a [String],
    pub(super) response_headers_to_add: &'a [core::HeaderValueOption],
    pub(super) response_headers_to_remove: &'a [String],
}

/// What holds below a level with these mutations. The least specific level is applied last, and so
/// wins, unless the table says that the most specific one does.
pub(super) fn below(
    above: Option<&Arc<Mutations>>,
    level: Fields<'_>,
    most_specific_wins: bool,
) -> Result<Option<Arc<Mutations>>, Errors> {
    let Fields {
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
    } = level;
    let mut errors = Errors::new();
    let mut added = |add, remove, add_field, remove_field| {
        let add = errors.take(additions(add).at(add_field)).unwrap_or_default();
        let remove = errors.take(removals(remove).at(remove_field)).unwrap_or_default();
        (!add.is_empty() || !remove.is_empty()).then(|| Arc::new(Level { remove, add }))
    };
    let request = added(
        request_headers_to_add,
        request_headers_to_remove,
        "request_headers_to_add",
        "request_headers_to_remove",
    );
    let response = added(
        response_headers_to_add,
        response_headers_to_remove,
        "response_headers_to_add",
        "response_headers_to_remove",
    );
    errors.finish()?;
    if request.is_none() && response.is_none() {
        return Ok(above.cloned());
    }
    let join = |above: &[Arc<Level>], own: Option<Arc<Level>>| -> Box<[Arc<Level>]> {
        let above = above.iter().cloned();
        match most_specific_wins {
            true => above.chain(own).collect(),
            false => own.into_iter().chain(above).collect(),
        }
    };
    let (above_request, above_response) =
        above.map_or((&[][..], &[][..]), |above| (&above.request[..], &above.response[..]));
    let response = join(above_response, response);
    let response_reads_request = response.iter().any(|level| level.reads_request());
    let request = join(above_request, request);
    Ok(Some(Arc::new(Mutations { request, response, response_reads_request })))
}

/// Changes of a request's headers, one after the other.
pub(super) fn mutations(list: &[rules::HeaderMutation]) -> Result<Option<Arc<Mutations>>, Errors> {
    let mut errors = Errors::new();
    let compiled = list.iter().enumerate().map(|(i, one)| mutation(one).index(i));
    let request: Box<[_]> = compiled.filter_map(|m| errors.take(m)).map(Arc::new).collect();
    errors.finish()?;
    Ok((!request.is_empty()).then(|| Arc::new(Mutations { request, ..Mutations::default() })))
}

fn mutation(mutation: &rules::HeaderMutation) -> Result<Level, Errors> {
    use rules::header_mutation::Action;
    match &mutation.action {
        None => Err(Errors::from(Fault::Required).at("action")),
        Some(Action::Remove(name)) => {
            Ok(Level { remove: [modifiable(name).at("remove")?].into(), add: [].into() })
        }
        Some(Action::Append(option)) => {
            Ok(Level { remove: [].into(), add: [addition(option).at("append")?].into() })
        }
    }
}

/// Headers that are added to responses beside those of routes.
///
/// # Errors
/// The faults of each, by its index.
pub fn response_additions(options: &[core::HeaderValueOption]) -> Result<Level, Errors> {
    Ok(Level { remove: Box::default(), add: additions(options)? })
}

/// One header that is added.
///
/// # Errors
/// The faults of its fields.
pub fn header_addition(option: &core::HeaderValueOption) -> Result<Level, Errors> {
    Ok(Level { remove: Box::default(), add: [addition(option)?].into() })
}

/// One header that is removed.
///
/// # Errors
/// If it is not one that may be.
pub fn header_removal(name: &str) -> Result<Level, Errors> {
    Ok(Level { remove: [modifiable(name)?].into(), add: Box::default() })
}

fn additions(options: &[core::HeaderValueOption]) -> Result<Box<[Addition]>, Errors> {
    let mut errors = Errors::new();
    if options.len() > MAX_ADDITIONS {
        let count = format!("{} headers", options.len());
        errors.push("", Fault::out_of_range(count, format!("at most {MAX_ADDITIONS}")));
    }
    let compile = |(i, option)| addition(option).index(i);
    let additions =
        options.iter().enumerate().map(compile).filter_map(|a| errors.take(a)).collect();
    errors.finish().map(|()| additions)
}

fn addition(option: &core::HeaderValueOption) -> Result<Addition, Errors> {
    use core::header_value_option::HeaderAppendAction;
    let core::HeaderValueOption { header, append, append_action, keep_empty_value } = option;
    let mut errors = Errors::new();
    let compiled =
        errors.take(fields::required(header.as_ref()).and_then(header_value).at("header"));
    let action = errors.take(fields::enumeration(*append_action).at("append_action"));
    let action = match (append, action) {
        (_, None) => None,
        (None, Some(HeaderAppendAction::AppendIfExistsOrAdd))
        | (Some(true), Some(HeaderAppendAction::AppendIfExistsOrAdd)) => Some(AppendAction::Append),
        // The older form of the choice.
        (Some(false), Some(HeaderAppendAction::AppendIfExistsOrAdd)) => {
            Some(AppendAction::Overwrite)
        }
        (Some(_), Some(_)) => {
            errors.push("append", Fault::Conflict("excludes append_action; set only that".into()));
            None
        }
        (None, Some(HeaderAppendAction::AddIfAbsent)) => Some(AppendAction::AddIfAbsent),
        (None, Some(HeaderAppendAction::OverwriteIfExistsOrAdd)) => Some(AppendAction::Overwrite),
        (None, Some(HeaderAppendAction::OverwriteIfExists)) => {
            Some(AppendAction::OverwriteIfPresent)
        }
    };
    match (compiled, action) {
        (Some((name, value)), Some(action)) if errors.is_empty() => {
            Ok(Addition { name, value, action, keep_empty: *keep_empty_value })
        }
        _ => Err(errors),
    }
}

fn header_value(header: &core::HeaderValue) -> Result<(HeaderName, Value), Errors> {
    let core::HeaderValue { key, value, raw_value } = header;
    let mut errors = Errors::new();
    let name = errors.take(modifiable(key).at("key"));
    let (field, text) = match (value.is_empty(), raw_value.is_empty()) {
        (_, true) => ("value", value.as_bytes()),
        (true, false) => ("raw_value", raw_value.as_slice()),
        (false, false) => {
            errors.push("raw_value", Fault::Conflict("excludes value; set only one".into()));
            ("value", value.as_bytes())
        }
    };
    let value = errors.take(value_of(text).at(field));
    match (name, value) {
        (Some(name), Some(value)) if errors.is_empty() => Ok((name, value)),
        _ => Err(errors),
    }
}

fn value_of(text: &[u8]) -> Result<Value, Errors> {
    let shown = || format!("{:?}", String::from_utf8_lossy(text));
    let literal = HeaderValue::from_bytes(text)
        .map_err(|_invalid| Fault::out_of_range(shown(), "a header value"))?;
    if !text.contains(&b'%') {
        return Ok(Value::Literal(literal));
    }
    let text = std::str::from_utf8(text)
        .map_err(|_bytes| Fault::invalid(shown(), "operators need a value in UTF-8"))?;
    Format::compile(text).map(Value::Format)
}

fn removals(names: &[String]) -> Result<Box<[HeaderName]>, Errors> {
    let mut errors = Errors::new();
    let compile = |(i, name): (usize, &String)| modifiable(name).index(i);
    let names = names.iter().enumerate().map(compile).filter_map(|n| errors.take(n)).collect();
    errors.finish().map(|()| names)
}

/// A header that is not part of the request's target, which the rewrites of a route change.
pub(super) fn modifiable(name: &str) -> Result<HeaderName, Errors> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        let reason = ":-prefixed or host headers may not be modified";
        return Err(Fault::invalid(format!("{name:?}"), reason).into());
    }
    header_name(name)
}
