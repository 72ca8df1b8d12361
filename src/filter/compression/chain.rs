//! Envoy's compressors of one chain choose among themselves which of them encodes a response.
//!
//! Names of codings are compared with case there, and the weights are any numbers.

use std::sync::Arc;

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::rules::Rules;
use crate::coding::Coding;
use crate::filter::head;

/// The compressors that a request came by, outermost first. Clones are of the same request.
#[derive(Clone, Default)]
pub(super) struct Chain(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    members: SmallVec<[Member; 2]>,
    choice: Option<Choice>,
}

/// A compressor, as far as the others must know it.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) coding: Coding,
    pub(super) choose_first: bool,
    pub(super) rules: Arc<Rules>,
}

/// What `Accept-Encoding` comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// The client names this coding.
    Named(Coding),
    /// It takes any.
    Any(Coding),
    /// It wants the plain form.
    Identity,
    /// It takes none of the codings that there are.
    NotValid,
}

impl Choice {
    pub(super) fn coding(self) -> Option<Coding> {
        match self {
            Self::Named(coding) | Self::Any(coding) => Some(coding),
            Self::Identity | Self::NotValid => None,
        }
    }
}

impl Chain {
    pub(super) fn join(&self, member: Member) {
        self.0.lock().members.push(member);
    }

    /// The choice for a response, which the first that asks makes for all.
    pub(super) fn choose(&self, accepted: &[http::HeaderValue], response: &HeaderMap) -> Choice {
        let State { members, choice } = &mut *self.0.lock();
        *choice.get_or_insert_with(|| choose(members, accepted, response))
    }
}

fn choose(members: &[Member], accepted: &[http::HeaderValue], response: &HeaderMap) -> Choice {
    // Of two that make the same coding the first counts.
    let mut allowed: SmallVec<[&Member; 4]> = SmallVec::new();
    for member in members {
        let is_new = allowed.iter().all(|other| other.coding != member.coding);
        if is_new && (head::essence(response).is_empty() || member.rules.has_type(response)) {
            allowed.push(member);
        }
    }
    let lines = accepted.iter().filter_map(|line| line.to_str().ok());
    let items = lines.flat_map(|line| line.split(',')).filter_map(weighted);
    let items: SmallVec<[(&str, f32); 8]> = items.collect();
    allowed.retain(|member| {
        !items.iter().any(|(name, weight)| *name == member.coding.name() && *weight == 0.0)
    });
    if allowed.is_empty() {
        return Choice::NotValid;
    }
    let (mut best, mut chosen) = (0.0, Choice::NotValid);
    for (name, weight) in items {
        let member = allowed.iter().find(|member| member.coding.name() == name);
        let choice = match (name, member) {
            (_, Some(member)) => Choice::Named(member.coding),
            ("identity", None) => Choice::Identity,
            ("*", None) => Choice::Any(allowed[0].coding),
            _ => continue,
        };
        let goes_first = member.is_some_and(|member| member.choose_first);
        if weight > best || weight == best && weight != 0.0 && goes_first {
            (best, chosen) = (weight, choice);
        }
    }
    chosen
}

/// An item's name and weight; none if the weight is no number. Only a first parameter is a weight.
fn weighted(item: &str) -> Option<(&str, f32)> {
    let Some((name, parameter)) = item.split_once(';') else {
        return Some((item.trim(), 1.0)).filter(|(name, _)| !name.is_empty());
    };
    let weight = match parameter.split_once('=') {
        Some((key, value)) if key.trim().eq_ignore_ascii_case("q") => value.trim().parse().ok()?,
        _ => 1.0,
    };
    Some((name.trim(), weight))
}

pub(super) type Accepted = SmallVec<[http::HeaderValue; 1]>;

/// What a request says it takes; none if it says nothing.
pub(super) fn accepted(request: &HeaderMap) -> Option<Accepted> {
    let lines: Accepted = request.get_all(ACCEPT_ENCODING).iter().cloned().collect();
    (!lines.is_empty()).then_some(lines)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::super::rules::Tags;
    use super::*;
    use crate::cache::MediaRange;

    fn member(coding: Coding, choose_first: bool, kind: &str) -> Member {
        let rules = Rules {
            min_size: 30,
            types: vec![MediaRange::parse(kind).unwrap()],
            untyped: true,
            grpc: true,
            excluded_statuses: Vec::new(),
            tags: Tags::Drop,
        };
        Member { coding, choose_first, rules: Arc::new(rules) }
    }

    fn chosen(members: &[Member], accepted: &'static str) -> Choice {
        let response = [(http::header::CONTENT_TYPE, HeaderValue::from_static("text/html"))]
            .into_iter()
            .collect();
        choose(members, &[HeaderValue::from_static(accepted)], &response)
    }

    #[test]
    fn weights_decide_and_then_the_clients_order() {
        use Choice::{Any, Identity, Named, NotValid};
        use Coding::{Brotli, Gzip, Zstd};
        let members = [Brotli, Zstd, Gzip].map(|coding| member(coding, false, "text/html"));
        for (accepted, expected) in [
            ("gzip, br, zstd", Named(Gzip)),
            ("gzip;q=1.0, br;q=0.2, zstd;q=0.5", Named(Gzip)),
            ("br;q=0.1, zstd;q=0.9", Named(Zstd)),
            ("GZIP", NotValid),
            ("deflate", NotValid),
            ("", NotValid),
            ("*", Any(Brotli)),
            ("br;q=0, *", Any(Zstd)),
            ("*;q=0, gzip", Named(Gzip)),
            ("identity, gzip", Identity),
            ("identity;q=0.5, gzip", Named(Gzip)),
            ("gzip;q=x, br;q=0.1", Named(Brotli)),
            ("gzip;level=1;q=0", Named(Gzip)),
            ("gzip;q=0, br;q=0, zstd;q=0, *", NotValid),
            ("gzip;q=0", NotValid),
        ] {
            assert_eq!(chosen(&members, accepted), expected, "{accepted}");
        }
    }

    #[test]
    fn one_that_is_to_be_chosen_first_is_and_one_of_another_type_is_not() {
        let members =
            [member(Coding::Gzip, false, "text/html"), member(Coding::Brotli, true, "text/html")];
        assert_eq!(chosen(&members, "gzip, br"), Choice::Named(Coding::Brotli));
        assert_eq!(chosen(&members, "gzip, br;q=0.9"), Choice::Named(Coding::Gzip));
        let members =
            [member(Coding::Gzip, false, "text/css"), member(Coding::Brotli, false, "text/html")];
        assert_eq!(chosen(&members, "gzip, br;q=0.1"), Choice::Named(Coding::Brotli));
        assert_eq!(chosen(&members, "gzip"), Choice::NotValid);
    }
}
