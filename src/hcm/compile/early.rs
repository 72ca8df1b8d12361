//! What is changed of a request before its route is looked for.

use http::HeaderValue;
use prost::Name;

use crate::config::{Errors, Fault, OrFault, fields};
use crate::filter::header_mutation;
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::extensions::http::early_header_mutation::header_mutation::v3::HeaderMutation;
use crate::route::HeaderLevel;

/// `early_header_mutation_extensions`, in their order.
pub(super) fn compile(
    extensions: &[core::TypedExtensionConfig],
) -> Result<Box<[HeaderLevel]>, Errors> {
    let mut errors = Errors::new();
    let compiled = errors.each("early_header_mutation_extensions", extensions, mutations);
    errors.finish()?;
    Ok(compiled.into_iter().flatten().collect())
}

fn mutations(extension: &core::TypedExtensionConfig) -> Result<Vec<HeaderLevel>, Errors> {
    let undecodable = |error: UnpackError| Errors::from(Fault::Undecodable(error.to_string()));
    let core::TypedExtensionConfig { name: _, typed_config } = extension;
    let config = fields::required(typed_config.as_ref()).at("typed_config")?;
    let kind = effective_type(config).map_err(undecodable).at("typed_config")?;
    if kind != HeaderMutation::full_name() {
        return Err(Errors::from(Fault::UnknownExtension(kind.into_owned())).at("typed_config"));
    }
    let HeaderMutation { mutations } = unpack(config).map_err(undecodable).at("typed_config")?;
    let mut errors = Errors::new();
    let compiled = errors.each("mutations", &mutations, header_mutation::compile_one);
    if mutations.is_empty() {
        errors.push("mutations", Fault::Required);
    }
    errors.finish().at("typed_config")?;
    Ok(compiled)
}

/// The scheme that every request has, if one is given, and whether an upstream over HTTP/2 is told its own.
pub(super) fn scheme(
    transformation: core::SchemeHeaderTransformation,
) -> Result<(Option<HeaderValue>, bool), Errors> {
    use core::scheme_header_transformation::Transformation::SchemeToOverwrite;
    let core::SchemeHeaderTransformation { transformation, match_upstream } = transformation;
    let given = match transformation.map(|SchemeToOverwrite(scheme)| scheme) {
        None => None,
        Some(scheme) => match scheme.as_str() {
            "http" => Some(HeaderValue::from_static("http")),
            "https" => Some(HeaderValue::from_static("https")),
            _ => {
                let fault = Fault::out_of_range(format!("{scheme:?}"), "http or https");
                return Err(Errors::from(fault).at("scheme_to_overwrite"));
            }
        },
    };
    Ok((given, match_upstream))
}
