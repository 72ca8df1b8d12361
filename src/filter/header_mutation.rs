//! `envoy.filters.http.header_mutation`: adds and removes headers on the way in and out.
//!
//! The route's mutations come after the listener's. Values are text with the operators of access logs.

use std::any::Any as StdAny;
use std::sync::Arc;

use prost_types::Any;

use super::registry::{OverrideRegistration, Registration};
use super::{FilterFactory, Flow, HeadFilter, Stage, WorkerContext, route_config};
use crate::config::{Errors, Fault, OrFault};
use crate::exchange::{Body, RequestHead, ResponseHead, StreamInfo};
use crate::proto::any::unpack;
use crate::proto::envoy::config::common::mutation_rules::v3 as rules;
use crate::proto::envoy::extensions::filters::http::header_mutation::v3 as proto;
use crate::route::{HeaderLevel, header_addition, header_removal, record_request};

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
    /// One header each, in the order in which they were given.
    request: Vec<HeaderLevel>,
    response: Vec<HeaderLevel>,
    /// A response's header is made of the request's.
    response_reads_request: bool,
}

impl Mutations {
    fn change_request(&self, stream: &mut StreamInfo, head: &mut RequestHead) {
        self.request.iter().for_each(|mutation| mutation.apply_to_request(head, stream));
        if self.response_reads_request {
            record_request(head, stream);
        }
    }

    fn change_response(&self, stream: &mut StreamInfo, head: &mut ResponseHead) {
        // Operators read the status there; whether it is sent is not known yet.
        let sent = stream.status.replace(head.status);
        self.response.iter().for_each(|mutation| mutation.apply_to_response(head, stream));
        stream.status = sent;
    }
}

impl FilterFactory for HeaderMutation {
    fn stage(&self, _: &WorkerContext) -> Stage {
        Stage::Head(Arc::new(self.clone()))
    }
}

impl HeadFilter for HeaderMutation {
    fn on_request(&self, stream: &mut StreamInfo, head: &mut RequestHead) -> Flow {
        self.mutations.change_request(stream, head);
        if let Some(route) = route_config::<Mutations>(stream, &self.name) {
            route.change_request(stream, head);
        }
        Flow::Continue
    }

    fn on_response(&self, stream: &mut StreamInfo, head: &mut ResponseHead, _: &mut Body) {
        self.mutations.change_response(stream, head);
        if let Some(route) = route_config::<Mutations>(stream, &self.name) {
            route.change_response(stream, head);
        }
    }
}

fn decode<T: prost::Message + prost::Name + Default>(config: &Any) -> Result<T, Errors> {
    unpack(config).map_err(|e| Fault::Undecodable(e.to_string()).into())
}

fn compile(mutations: proto::Mutations) -> Result<Mutations, Errors> {
    let proto::Mutations { request_mutations, response_mutations } = mutations;
    let mut errors = Errors::new();
    let request = errors.each("request_mutations", &request_mutations, compile_one);
    let response = errors.each("response_mutations", &response_mutations, compile_one);
    errors.finish()?;
    let response_reads_request = response.iter().any(HeaderLevel::reads_request);
    Ok(Mutations { request, response, response_reads_request })
}

/// One change of one header.
pub(crate) fn compile_one(mutation: &rules::HeaderMutation) -> Result<HeaderLevel, Errors> {
    use rules::header_mutation::Action;
    let rules::HeaderMutation { action } = mutation;
    match action {
        None => Err(Fault::Required.into()),
        Some(Action::Remove(name)) => header_removal(name).at("remove"),
        Some(Action::Append(option)) => header_addition(option).at("append"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::envoy::config::core::v3::HeaderValueOption;

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
            (option("", "v"), "request_mutations[0].append.header.key: "),
            (option(":path", "v"), "host headers may not be modified"),
            (option("x", "%NOTHING%"), "[0].append.header.value: "),
            (rules::HeaderMutation { action: None }, "[0]: is required"),
        ];
        for (mutation, expected) in cases {
            let mutations =
                proto::Mutations { request_mutations: vec![mutation], ..Default::default() };
            let text = compile(mutations).unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
