//! Rewrites of path and host: `prefix_rewrite`, `regex_rewrite`, `path_rewrite_policy`,
//! `host_rewrite_specifier`.

use std::sync::Arc;

use http::uri::PathAndQuery;

use super::extension;
use crate::config::matcher::{HeaderField, RegexSubstitution};
use crate::config::{Errors, Fault, OrFault};
use crate::proto::envoy::config::core::v3::TypedExtensionConfig;
use crate::proto::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use crate::proto::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use crate::proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use crate::route::HostValue;
use crate::route::host_rewrite::HostRewrite;
use crate::route::rewrite::{Matched, PathRewrite, PrefixRewrite};
use crate::route::template::TemplateRewrite;
use crate::route::tree::{PathMatcher, PathPattern};

impl PathPattern {
    /// How much of a path it matches.
    fn matched(&self) -> Matched {
        match &self.matcher {
            PathMatcher::Prefix(prefix) | PathMatcher::SeparatedPrefix(prefix) => {
                Matched::Prefix(prefix.len())
            }
            PathMatcher::Exact(_)
            | PathMatcher::Regex(_)
            | PathMatcher::Template(_)
            | PathMatcher::Connect => Matched::Whole,
        }
    }
}

/// The fields of a route that rewrite its path, of which one may be set.
pub(super) struct PathFields<'a> {
    pub(super) prefix_rewrite: &'a str,
    pub(super) regex_rewrite: Option<&'a RegexMatchAndSubstitute>,
    pub(super) path_rewrite_policy: Option<TypedExtensionConfig>,
}

/// What becomes of the path of requests that match `pattern`; without one, fields are checked only.
pub(super) fn path(
    fields: PathFields<'_>,
    pattern: Option<&PathPattern>,
) -> Result<Option<PathRewrite>, Errors> {
    let PathFields { prefix_rewrite, regex_rewrite, path_rewrite_policy } = fields;
    let mut errors = Errors::new();
    let set = [!prefix_rewrite.is_empty(), regex_rewrite.is_some(), path_rewrite_policy.is_some()];
    if set.iter().filter(|set| **set).count() > 1 {
        let reason = "prefix_rewrite, regex_rewrite and path_rewrite_policy exclude each other";
        errors.push("", Fault::Conflict(reason.into()));
    }
    let prefix = errors.take(prefix(prefix_rewrite, pattern).at("prefix_rewrite")).flatten();
    let regex = regex_rewrite.and_then(|r| errors.take(regex(r).at("regex_rewrite")));
    let template = path_rewrite_policy.and_then(|policy| {
        errors.take(template(policy, pattern).at("path_rewrite_policy")).flatten()
    });
    errors.finish().map(|()| prefix.or(regex).or(template))
}

/// An empty text rewrites nothing.
pub(super) fn prefix(
    to: &str,
    pattern: Option<&PathPattern>,
) -> Result<Option<PathRewrite>, Fault> {
    if to.is_empty() {
        return Ok(None);
    }
    check_path(to)?;
    let matched = pattern.map_or(Matched::Whole, PathPattern::matched);
    Ok(Some(PathRewrite::Prefix(PrefixRewrite { matched, to: to.into() })))
}

pub(super) fn regex(substitution: &RegexMatchAndSubstitute) -> Result<PathRewrite, Errors> {
    Ok(PathRewrite::Regex(Box::new(RegexSubstitution::compile(substitution)?)))
}

fn template(
    policy: TypedExtensionConfig,
    pattern: Option<&PathPattern>,
) -> Result<Option<PathRewrite>, Errors> {
    let UriTemplateRewriteConfig { path_template_rewrite } = extension(policy)?;
    let Some(pattern) = pattern else { return Ok(None) };
    let PathMatcher::Template(template) = &pattern.matcher else {
        let reason = "needs a path_match_policy whose variables it can use";
        return Err(Fault::Conflict(reason.into()).into());
    };
    let rewrite = TemplateRewrite::try_new(&path_template_rewrite, template)
        .at("path_template_rewrite")
        .at("typed_config")?;
    Ok(Some(PathRewrite::Template(Arc::clone(template), Arc::new(rewrite))))
}

/// What a path may be that stands in the configuration.
pub(super) fn check_path(path: &str) -> Result<(), Fault> {
    if !path.starts_with('/') || path.contains('#') || PathAndQuery::try_from(path).is_err() {
        return Err(Fault::invalid(format!("{path:?}"), "not a path; one begins with \"/\""));
    }
    Ok(())
}

/// What becomes of a request's host.
pub(super) fn host(specifier: Option<HostRewriteSpecifier>) -> Result<HostRewrite, Errors> {
    match specifier {
        None | Some(HostRewriteSpecifier::AutoHostRewrite(false)) => Ok(HostRewrite::Keep),
        Some(HostRewriteSpecifier::AutoHostRewrite(true)) => Ok(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            literal_host(&host).at("host_rewrite_literal")
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) if name.is_empty() => {
            Ok(HostRewrite::Keep)
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => HeaderField::compile(&name)
            .map(|field| HostRewrite::Header(Box::new(field)))
            .at("host_rewrite_header"),
        Some(HostRewriteSpecifier::HostRewritePathRegex(substitution)) => {
            RegexSubstitution::compile(&substitution)
                .map(|substitution| HostRewrite::Path(Box::new(substitution)))
                .at("host_rewrite_path_regex")
        }
    }
}

pub(super) fn literal_host(host: &str) -> Result<HostRewrite, Fault> {
    if host.is_empty() {
        return Ok(HostRewrite::Keep);
    }
    HostValue::try_new(host).map(|host| HostRewrite::Literal(Box::new(host)))
}
