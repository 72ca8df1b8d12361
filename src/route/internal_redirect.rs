//! Redirects of an upstream that are followed here, as if the client had followed them:
//! `RouteAction.internal_redirect_policy`.

use std::sync::Arc;

use http::{HeaderName, StatusCode};

/// Which redirects are followed, and how often.
#[derive(Debug)]
pub struct InternalRedirectPolicy {
    pub(super) most: u32,
    pub(super) codes: Box<[StatusCode]>,
    pub(super) predicates: Box<[Predicate]>,
    pub(super) cross_scheme: bool,
    pub(super) copied: Box<[HeaderName]>,
}

/// What a redirect's target must be beside.
#[derive(Debug)]
pub(super) enum Predicate {
    /// Not one that an earlier redirect of the same route led to.
    NotBefore,
    /// A route of one of these names.
    OneOf(Box<[Box<str>]>),
    /// Not `https` for a request that came by `http`.
    SafeScheme,
}

/// A redirect on its way to be followed.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// The name of the route whose upstream redirects, empty if it has none.
    pub from: &'a str,
    /// The same of the route it leads to.
    pub to: &'a str,
    /// Whether the request came by `https`, and whether it would go on so.
    pub https: (bool, bool),
}

impl InternalRedirectPolicy {
    /// Redirects that one request may take.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// Whether answers of this status are followed.
    pub fn follows(&self, status: StatusCode) -> bool {
        self.codes.contains(&status)
    }

    /// Whether a redirect may change the scheme.
    pub fn allows_cross_scheme(&self) -> bool {
        self.cross_scheme
    }

    /// Headers of the answer that the request takes along.
    pub fn copied_headers(&self) -> &[HeaderName] {
        &self.copied
    }

    /// Whether a redirect may be followed after those that were `taken`: from route to route, by name.
    pub fn accepts(&self, step: Step<'_>, taken: &[(Arc<str>, Arc<str>)]) -> bool {
        let Step { from, to, https: (came, goes_on) } = step;
        self.predicates.iter().all(|predicate| match predicate {
            Predicate::NotBefore => !taken.iter().any(|(f, t)| **f == *from && **t == *to),
            Predicate::OneOf(names) => names.iter().any(|name| **name == *to),
            Predicate::SafeScheme => came || !goes_on,
        })
    }
}
