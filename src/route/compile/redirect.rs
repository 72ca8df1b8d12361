//! `config.route.v3.RedirectAction` to [`Redirect`].

use http::uri::Scheme;
use http::{HeaderValue, StatusCode};

use super::rewrite;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::route::v3 as proto;
use crate::route::HostValue;
use crate::route::redirect::{Redirect, RedirectPath};
use crate::route::tree::PathPattern;

/// Compiles a redirect of requests that match `pattern`.
pub(super) fn compile(
    action: proto::RedirectAction,
    pattern: Option<&PathPattern>,
) -> Result<Redirect, Errors> {
    use proto::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
    };
    let proto::RedirectAction {
        host_redirect,
        response_code,
        strip_query,
        port_redirect,
        path_rewrite_specifier,
        scheme_rewrite_specifier,
    } = action;
    let mut errors = Errors::new();
    let status = match errors.take(fields::enumeration(response_code).at("response_code")) {
        Some(RedirectResponseCode::MovedPermanently) | None => StatusCode::MOVED_PERMANENTLY,
        Some(RedirectResponseCode::Found) => StatusCode::FOUND,
        Some(RedirectResponseCode::SeeOther) => StatusCode::SEE_OTHER,
        Some(RedirectResponseCode::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Some(RedirectResponseCode::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Scheme::HTTPS),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if scheme.is_empty() => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(text)) => {
            let scheme = Scheme::try_from(text.as_str())
                .map_err(|_invalid| Fault::invalid(format!("{text:?}"), "not a URI's scheme"));
            errors.take(scheme.at("scheme_redirect"))
        }
    };
    let port = errors.take(fields::port(port_redirect).at("port_redirect"));
    if !host_redirect.is_empty() {
        errors.take(HostValue::try_new(&host_redirect).at("host_redirect"));
    }
    let path = match path_rewrite_specifier {
        None => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => RedirectPath::Keep,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            errors.take(redirect_path(&path).at("path_redirect"));
            RedirectPath::Replace(path.into())
        }
        Some(PathRewriteSpecifier::PrefixRewrite(to)) => {
            let rewrite = errors.take(rewrite::prefix(&to, pattern).at("prefix_rewrite"));
            rewrite.flatten().map_or(RedirectPath::Keep, RedirectPath::Rewrite)
        }
        Some(PathRewriteSpecifier::RegexRewrite(substitution)) => {
            let rewrite = errors.take(rewrite::regex(&substitution).at("regex_rewrite"));
            rewrite.map_or(RedirectPath::Keep, RedirectPath::Rewrite)
        }
    };
    errors.finish()?;
    Ok(Redirect {
        status,
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.into()),
        port: port.filter(|port| *port != 0),
        path,
        strip_query,
        keep_default_port: false,
    })
}

/// A place in a `Location`, which may end in a fragment.
fn redirect_path(path: &str) -> Result<(), Fault> {
    rewrite::check_path(path.split_once('#').map_or(path, |(path, _)| path))?;
    HeaderValue::from_str(path)
        .map(drop)
        .map_err(|_invalid| Fault::out_of_range(format!("{path:?}"), "a header value"))
}
