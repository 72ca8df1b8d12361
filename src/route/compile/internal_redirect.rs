//! `config.route.v3.InternalRedirectPolicy` to [`InternalRedirectPolicy`].

use http::StatusCode;

use super::{extension, headers};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any::effective_type;
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::config::route::v3 as proto;
use crate::proto::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use crate::proto::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use crate::proto::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use crate::route::internal_redirect::{InternalRedirectPolicy, Predicate};

const PREFIX: &str = "envoy.extensions.internal_redirect.";

/// Compiles a policy.
pub(super) fn compile(
    policy: proto::InternalRedirectPolicy,
) -> Result<InternalRedirectPolicy, Errors> {
    let proto::InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = policy;
    let mut errors = Errors::new();
    let mut codes = Vec::with_capacity(redirect_response_codes.len().max(1));
    for (i, code) in redirect_response_codes.iter().enumerate() {
        match code {
            301 | 302 | 303 | 307 | 308 => {
                codes.extend(u16::try_from(*code).ok().and_then(|c| StatusCode::from_u16(c).ok()));
            }
            other => {
                let fault = Fault::out_of_range(other, "one of 301, 302, 303, 307, 308");
                errors.take::<()>(Err(Errors::from(fault)).index(i).at("redirect_response_codes"));
            }
        }
    }
    if codes.is_empty() {
        codes.push(StatusCode::FOUND);
    }
    let compile = |(i, config)| predicate(config).index(i).at("predicates");
    let compiled = predicates.into_iter().enumerate().map(compile);
    let predicates = compiled.filter_map(|predicate| errors.take(predicate)).collect();
    let name = |(i, name): (usize, &String)| {
        headers::modifiable(name).index(i).at("response_headers_to_copy")
    };
    let copied = response_headers_to_copy.iter().enumerate().map(name);
    let copied = copied.filter_map(|name| errors.take(name)).collect();
    errors.finish()?;
    Ok(InternalRedirectPolicy {
        most: max_internal_redirects.unwrap_or(1),
        codes: codes.into(),
        predicates,
        cross_scheme: allow_cross_scheme_redirect,
        copied,
    })
}

fn predicate(config: TypedExtensionConfig) -> Result<Predicate, Errors> {
    let any = fields::required(config.typed_config.as_ref()).at("typed_config")?;
    let kind = effective_type(any).map_err(|e| Fault::Undecodable(e.to_string()));
    let kind = kind.at("typed_config")?.into_owned();
    match kind.strip_prefix(PREFIX) {
        Some("previous_routes.v3.PreviousRoutesConfig") => {
            let PreviousRoutesConfig {} = extension(config)?;
            Ok(Predicate::NotBefore)
        }
        Some("allow_listed_routes.v3.AllowListedRoutesConfig") => {
            let AllowListedRoutesConfig { allowed_route_names } = extension(config)?;
            let names = allowed_route_names.into_iter().map(Into::into);
            Ok(Predicate::OneOf(names.collect()))
        }
        Some("safe_cross_scheme.v3.SafeCrossSchemeConfig") => {
            let SafeCrossSchemeConfig {} = extension(config)?;
            Ok(Predicate::SafeScheme)
        }
        _ => Err(Fault::UnknownExtension(kind)).at("typed_config"),
    }
}
