//! `envoy.filters.http.header_mutation`: adds and removes headers on the way in and out.
//!
//! The route's mutations come after the listener's. Values are literal text.

use std::any::Any as StdAny;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use prost_types::Any;

use super::registry::{OverrideRegistration, Registration};
use super::{FilterFactory, Flow, HeadFilter, Stage, WorkerContext, route_config};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::{Body, RequestHead, ResponseHead, StreamInfo};
use crate::proto::any::unpack;
use crate::proto::envoy::config::common::mutation_rules::v3 as rules;
use crate::proto::envoy::config::core::v3::{
    HeaderValueOption, header_value_option::HeaderAppendAction,
};
use crate::proto::envoy::extensions::filters::http::header_mutation::v3 as proto;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    terminal: false,
    compile: |config, cx| {
        let proto::HeaderMutation { mutations } = decode(config)?;
        let mutations = compile(mutations.unwrap_or_default()).at("mutations")?;
        let name = Arc::clone(&cx.name);
        Ok(Arc::new(HeaderMutation { name, mutations: Arc::new(mutations) }))
    },
};

pub(super) const OVERRIDE: OverrideRegistration = OverrideRegistration {
    config_type: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    compile: |config| {
        let proto::HeaderMutationPerRoute { mutations } = decode(config)?;
        let mutations = compile(mutations.unwrap_or_default()).at("mutations")?;
        Ok(Arc::new(mutations) as Arc<dyn StdAny + Send + Sync>)
    },
};

/// The filter, and its own factory: it has no state.
#[derive(Debug, Clone)]
struct HeaderMutation {
    /// By which routes refer to it.
    name: Arc<str>,
    mutations: Arc<Mutations>,
}

#[derive(Debug)]
struct Mutations {
    request: Vec<Mutation>,
    response: Vec<Mutation>,
}

#[derive(Debug)]
enum Mutation {
    Remove(HeaderName),
    Append { name: HeaderName, value: HeaderValue, action: HeaderAppendAction },
}

impl Mutation {
    fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Self::Remove(name) => {
                headers.remove(name);
            }
            Self::Append { name, value, action } => {
                let present = headers.contains_key(name);
                match (action, present) {
                    (HeaderAppendAction::AppendIfExistsOrAdd, _) => {
                        headers.append(name, value.clone());
                    }
                    (HeaderAppendAction::AddIfAbsent, true)
                    | (HeaderAppendAction::OverwriteIfExists, false) => {}
                    _ => {
                        headers.insert(name, value.clone());
                    }
                }
            }
        }
    }
}

impl FilterFactory for HeaderMutation {
    fn stage(&self, _: &WorkerContext) -> Stage {
        Stage::Head(Arc::new(self.clone()))
    }
}

impl HeadFilter for HeaderMutation {
    fn on_request(&self, stream: &mut StreamInfo, head: &mut RequestHead) -> Flow {
        self.mutations.request.iter().for_each(|mutation| mutation.apply(&mut head.headers));
        if let Some(route) = route_config::<Mutations>(stream, &self.name) {
            route.request.iter().for_each(|mutation| mutation.apply(&mut head.headers));
        }
        Flow::Continue
    }

    fn on_response(&self, stream: &mut StreamInfo, head: &mut ResponseHead, _: &mut Body) {
        self.mutations.response.iter().for_each(|mutation| mutation.apply(&mut head.headers));
        if let Some(route) = route_config::<Mutations>(stream, &self.name) {
            route.response.iter().for_each(|mutation| mutation.apply(&mut head.headers));
        }
    }
}

fn decode<T: prost::Message + prost::Name + Default>(config: &Any) -> Result<T, Errors> {
    unpack(config).map_err(|e| Fault::Undecodable(e.to_string()).into())
}

fn compile(mutations: proto::Mutations) -> Result<Mutations, Errors> {
    let proto::Mutations { request_mutations, response_mutations } = mutations;
    let mut errors = Errors::new();
    let request = errors.take(compile_list(&request_mutations).at("request_mutations"));
    let response = errors.take(compile_list(&response_mutations).at("response_mutations"));
    match (request, response) {
        (Some(request), Some(response)) => Ok(Mutations { request, response }),
        _ => Err(errors),
    }
}

fn compile_list(mutations: &[rules::HeaderMutation]) -> Result<Vec<Mutation>, Errors> {
    let mut errors = Errors::new();
    let compiled = mutations
        .iter()
        .enumerate()
        .filter_map(|(i, mutation)| errors.take(compile_one(mutation).index(i)))
        .collect();
    errors.finish()?;
    Ok(compiled)
}

fn compile_one(mutation: &rules::HeaderMutation) -> Result<Mutation, Errors> {
    use rules::header_mutation::Action;
    match &mutation.action {
        None => Err(Fault::Required.into()),
        Some(Action::Remove(name)) => Ok(Mutation::Remove(header_name(name).at("remove")?)),
        Some(Action::Append(option)) => compile_append(option).at("append"),
    }
}

fn compile_append(option: &HeaderValueOption) -> Result<Mutation, Errors> {
    let HeaderValueOption { header, append, append_action, keep_empty_value } = option;
    if append.is_some() {
        let fault = Fault::unsupported("deprecated; use append_action");
        return Err(Errors::from(fault).at("append"));
    }
    let header = fields::required(header.as_ref()).at("header")?;
    let name = header_name(&header.key).at("header.key")?;
    let text = match header.raw_value.is_empty() {
        true => header.value.as_bytes(),
        false => &header.raw_value,
    };
    if text.is_empty() && !keep_empty_value {
        return Err(Errors::from(Fault::invalid(
            "an empty value",
            "set keep_empty_value to add a header without a value",
        ))
        .at("header.value"));
    }
    if text.contains(&b'%') {
        return Err(Errors::from(Fault::unsupported(
            "substitutions are not supported here; values are literal text without %",
        ))
        .at("header.value"));
    }
    let value = HeaderValue::from_bytes(text)
        .map_err(|_invalid| Fault::invalid(format!("{:?}", header.value), "not a header value"))
        .at("header.value")?;
    let action = fields::enumeration(*append_action).at("append_action")?;
    Ok(Mutation::Append { name, value, action })
}

fn header_name(name: &str) -> Result<HeaderName, Errors> {
    if name.is_empty() {
        return Err(Fault::Required.into());
    }
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(Fault::invalid(
            format!("{name:?}"),
            "pseudo-headers and Host cannot be changed",
        )
        .into());
    }
    HeaderName::try_from(name)
        .map_err(|_invalid| Fault::invalid(format!("{name:?}"), "not a header name").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(value: &str, action: HeaderAppendAction) -> Mutation {
        Mutation::Append {
            name: HeaderName::from_static("x"),
            value: HeaderValue::from_str(value).unwrap(),
            action,
        }
    }

    #[test]
    fn append_actions_are_envoys() {
        use HeaderAppendAction as A;
        let cases = [
            (A::AppendIfExistsOrAdd, &["new"][..], &["old", "new"][..]),
            (A::AddIfAbsent, &["new"], &["old"]),
            (A::OverwriteIfExistsOrAdd, &["new"], &["new"]),
            (A::OverwriteIfExists, &[], &["new"]),
        ];
        for (action, absent, present) in cases {
            for (start, expected) in [(None, absent), (Some("old"), present)] {
                let mut headers = HeaderMap::new();
                if let Some(start) = start {
                    headers.insert("x", HeaderValue::from_static(start));
                }
                append("new", action).apply(&mut headers);
                let found: Vec<_> = headers.get_all("x").iter().collect();
                assert_eq!(found, expected, "{action:?}, {start:?} before");
            }
        }
    }

    #[test]
    fn faults_name_their_fields() {
        let option = |key: &str, value: &str| rules::HeaderMutation {
            action: Some(rules::header_mutation::Action::Append(HeaderValueOption {
                header: Some(crate::proto::envoy::config::core::v3::HeaderValue {
                    key: key.into(),
                    value: value.into(),
                    raw_value: Vec::new(),
                }),
                ..Default::default()
            })),
        };
        let cases = [
            (option("", "v"), "[0].append.header.key: is required"),
            (option(":path", "v"), "pseudo-headers"),
            (option("x", "%REQ(y)%"), "[0].append.header.value: substitutions"),
            (option("x", ""), "keep_empty_value"),
            (rules::HeaderMutation { action: None }, "[0]: is required"),
        ];
        for (mutation, expected) in cases {
            let text = compile_list(&[mutation]).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
