//! `config.route.v3.RouteAction.HashPolicy` to [`HashPolicies`].

use std::sync::Arc;

use http::HeaderValue;

use crate::config::matcher::{RegexSubstitution, header_name};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::headers::cookie_attributes;
use crate::proto::envoy::config::route::v3::route_action::{HashPolicy as Proto, hash_policy};
use crate::route::hash::{HashCookie, HashPolicies, HashPolicy, HashSource};
use hash_policy::PolicySpecifier;

/// The policies of a route, if it has any.
pub(super) fn compile(policies: &[Proto]) -> Result<Option<Arc<HashPolicies>>, Errors> {
    let mut errors = Errors::new();
    let mut compiled = Vec::with_capacity(policies.len());
    for (index, policy) in policies.iter().enumerate() {
        let Proto { policy_specifier, terminal } = policy;
        if let Some(source) = errors.take(source(policy_specifier.as_ref()).index(index)) {
            compiled.extend(source.map(|source| HashPolicy { source, terminal: *terminal }));
        }
    }
    errors.finish()?;
    Ok((!compiled.is_empty()).then(|| Arc::new(HashPolicies(compiled.into()))))
}

/// `None` for connection properties of which none is asked for.
fn source(specifier: Option<&PolicySpecifier>) -> Result<Option<HashSource>, Errors> {
    Ok(Some(match specifier {
        None => return Err(Errors::from(Fault::Required).at("policy_specifier")),
        Some(PolicySpecifier::Header(header)) => {
            let hash_policy::Header { header_name: name, regex_rewrite } = header;
            let rewrite = regex_rewrite.as_ref().map(RegexSubstitution::compile).transpose();
            let rewrite = rewrite.at("regex_rewrite").at("header")?.map(Box::new);
            HashSource::Header(header_name(name).at("header_name").at("header")?, rewrite)
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            HashSource::Cookie(Box::new(self::cookie(cookie).at("cookie")?))
        }
        Some(PolicySpecifier::ConnectionProperties(properties)) => {
            let hash_policy::ConnectionProperties { source_ip } = properties;
            match source_ip {
                true => HashSource::SourceIp,
                false => return Ok(None),
            }
        }
        Some(PolicySpecifier::QueryParameter(parameter)) => {
            let hash_policy::QueryParameter { name } = parameter;
            let name = fields::non_empty(name).at("name").at("query_parameter")?;
            HashSource::QueryParameter((*name).into())
        }
    }))
}

fn cookie(cookie: &hash_policy::Cookie) -> Result<HashCookie, Errors> {
    let hash_policy::Cookie { name, ttl, path, attributes } = cookie;
    let mut errors = Errors::new();
    errors.take(fields::non_empty(name).at("name"));
    let ttl = ttl.as_ref().and_then(|ttl| errors.take(fields::duration(ttl).at("ttl")));
    let Some(ttl) = ttl else {
        // Only a cookie that lives for some time, or for the session, is made for a client.
        errors.finish()?;
        return Ok(HashCookie { name: name.as_str().into(), attributes: None });
    };
    let max_age = (!ttl.is_zero()).then_some(ttl);
    let pairs = attributes
        .iter()
        .map(|hash_policy::CookieAttribute { name, value }| (name.as_str(), value.as_str()));
    let text = cookie_attributes(max_age, path, pairs);
    if HeaderValue::from_str(&format!("{name}=\"\"{text}")).is_err() {
        let fault = Fault::invalid(format!("{name}{text}"), "is not fit for a Set-Cookie header");
        return Err(fault.into());
    }
    errors.finish()?;
    Ok(HashCookie { name: name.as_str().into(), attributes: Some(text.into()) })
}
