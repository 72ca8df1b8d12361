//! `config.route.v3.RouteMatch` to [`PathPattern`] and [`Predicates`].

use std::sync::Arc;

use super::{Shared, extension};
use crate::config::matcher::{HeaderMatcher, RegexMatcher, StringMatcher};
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::route::v3 as proto;
use crate::proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use crate::proto::envoy::r#type::matcher::v3 as matcher;
use crate::route::predicate::{Predicates, QueryMatcher, QueryValue};
use crate::route::template::Template;
use crate::route::tree::{PathMatcher, PathPattern};

/// What a route matches; no predicates when the path decides alone.
pub(super) type Match = (PathPattern, Option<Box<Predicates>>);

/// Compiles a `RouteMatch`.
pub(super) fn route_match(
    route_match: proto::RouteMatch,
    shared: &mut Shared<'_>,
) -> Result<Match, Errors> {
    let proto::RouteMatch {
        case_sensitive,
        headers,
        query_parameters,
        grpc,
        runtime_fraction,
        tls_context,
        path_specifier,
    } = route_match;
    let mut errors = Errors::new();
    let path = errors.take(path_matcher(path_specifier, shared));
    let header = |(i, h)| HeaderMatcher::compile(h).index(i).at("headers");
    let header_matchers: Box<[_]> =
        headers.iter().enumerate().map(header).filter_map(|h| errors.take(h)).collect();
    let query = |(i, q)| query_matcher(q).index(i).at("query_parameters");
    let query_matchers: Box<[_]> =
        query_parameters.iter().enumerate().map(query).filter_map(|q| errors.take(q)).collect();
    let grpc = match grpc {
        None => false,
        Some(proto::route_match::GrpcRouteMatchOptions {}) => true,
    };
    let proto::route_match::TlsContextMatchOptions { presented, validated } =
        tls_context.unwrap_or_default();
    let certificate = presented == Some(true) || validated == Some(true);
    let runtime = shared.cx.runtime;
    let fraction = runtime_fraction.map(|fraction| runtime.fraction(&fraction)).transpose();
    let fraction = errors.take(fraction.at("runtime_fraction")).flatten();
    let (Some(matcher), true) = (path, errors.is_empty()) else { return Err(errors) };
    let fraction = fraction.filter(|fraction| !fraction.is_all());
    let decides_alone = header_matchers.is_empty()
        && query_matchers.is_empty()
        && !grpc
        && !certificate
        && fraction.is_none();
    let predicates =
        Predicates { headers: header_matchers, query: query_matchers, grpc, certificate, fraction };
    let pattern = PathPattern { matcher, ignore_case: case_sensitive == Some(false) };
    Ok((pattern, (!decides_alone).then(|| Box::new(predicates))))
}

fn path_matcher(
    specifier: Option<proto::route_match::PathSpecifier>,
    shared: &mut Shared<'_>,
) -> Result<PathMatcher, Errors> {
    use proto::route_match::PathSpecifier;
    match specifier {
        None => Err(Errors::from(Fault::Required).at("path_specifier")),
        Some(PathSpecifier::Prefix(prefix)) => Ok(PathMatcher::Prefix(prefix)),
        Some(PathSpecifier::Path(path)) => Ok(PathMatcher::Exact(path)),
        Some(PathSpecifier::SafeRegex(regex)) => {
            regex_matcher(regex, shared).map(PathMatcher::Regex).at("safe_regex")
        }
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            let fits = prefix.len() > 1 && !prefix.ends_with('/') && !prefix.contains(['?', '#']);
            if !fits {
                let expected = "a path without \"?\" and \"#\" that does not end with \"/\"";
                let fault = Fault::out_of_range(format!("{prefix:?}"), expected);
                return Err(Errors::from(fault).at("path_separated_prefix"));
            }
            Ok(PathMatcher::SeparatedPrefix(prefix))
        }
        Some(PathSpecifier::ConnectMatcher(proto::route_match::ConnectMatcher {})) => {
            Ok(PathMatcher::Connect)
        }
        Some(PathSpecifier::PathMatchPolicy(policy)) => {
            let UriTemplateMatchConfig { path_template } =
                extension(policy).at("path_match_policy")?;
            Template::try_new(&path_template)
                .map(|template| PathMatcher::Template(Arc::new(template)))
                .at("path_template")
                .at("typed_config")
                .at("path_match_policy")
        }
    }
}

/// Equal expressions are compiled once and share their memory.
fn regex_matcher(
    regex: matcher::RegexMatcher,
    shared: &mut Shared<'_>,
) -> Result<RegexMatcher, Errors> {
    if let Some(known) = shared.regexes.get(&regex.regex) {
        return Ok(known.clone());
    }
    let compiled = RegexMatcher::compile(&regex)?;
    shared.regexes.insert(regex.regex, compiled.clone());
    Ok(compiled)
}

fn query_matcher(matcher: &proto::QueryParameterMatcher) -> Result<QueryMatcher, Errors> {
    use proto::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
    let proto::QueryParameterMatcher { name, query_parameter_match_specifier } = matcher;
    let mut errors = Errors::new();
    errors.take(fields::non_empty(name).at("name"));
    if name.len() > 1024 {
        let length = format!("{} bytes", name.len());
        errors.push("name", Fault::out_of_range(length, "at most 1024 bytes long"));
    }
    let value = match query_parameter_match_specifier {
        None => QueryValue::Present(true),
        Some(Specifier::PresentMatch(present)) => QueryValue::Present(*present),
        Some(Specifier::StringMatch(string)) => {
            match errors.take(StringMatcher::compile(string).at("string_match")) {
                Some(string) => QueryValue::String(string),
                None => QueryValue::Present(false),
            }
        }
    };
    errors.finish()?;
    Ok(QueryMatcher { name: name.as_str().into(), value })
}

#[cfg(test)]
mod tests {
    use proto::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;

    use super::*;

    fn query(name: &str, specifier: Option<Specifier>) -> Result<QueryMatcher, Errors> {
        query_matcher(&proto::QueryParameterMatcher {
            name: name.into(),
            query_parameter_match_specifier: specifier,
        })
    }

    #[test]
    fn the_first_value_of_a_parameter_counts() {
        let exact = |text: &str| {
            Some(Specifier::StringMatch(matcher::StringMatcher {
                ignore_case: false,
                match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(text.into())),
            }))
        };
        let cases = [
            (exact("1"), "a=1", true),
            (exact("1"), "b=2&a=1", true),
            (exact("1"), "a=2&a=1", false),
            (exact("1"), "aa=1", false),
            (exact("x=y"), "a=x=y", true),
            (exact(""), "a", true),
            (exact(""), "", false),
            (exact("%31"), "a=%31", true),
            (None, "a", true),
            (None, "b", false),
            (Some(Specifier::PresentMatch(true)), "b&a=", true),
            (Some(Specifier::PresentMatch(false)), "b", true),
            (Some(Specifier::PresentMatch(false)), "a=1", false),
        ];
        for (specifier, text, expected) in cases {
            let matcher = query("a", specifier).unwrap();
            assert_eq!(matcher.matches(text), expected, "{matcher:?} on {text:?}");
        }
    }

    #[test]
    fn faults_name_their_field() {
        for (name, specifier, expected) in [
            ("", None, "name: is required"),
            ("a", Some(Specifier::StringMatch(Default::default())), "string_match: is required"),
        ] {
            assert_eq!(query(name, specifier).unwrap_err().to_string(), expected);
        }
        assert!(query(&"n".repeat(1025), None).is_err());
    }
}
