//! Which virtual host a request's authority belongs to.
//!
//! A domain is a whole name, a suffix (`*.foo`), a prefix (`foo.*`) or `*`; they are preferred in
//! that order, the longest first, and a `*` stands for one character at least. Case does not count.

use std::borrow::Borrow;
use std::collections::HashMap;

use http::header::HOST;
use smallvec::SmallVec;

use crate::config::Fault;
use crate::exchange::RequestHead;

type Names = HashMap<Box<[u8]>, u32, foldhash::fast::RandomState>;

/// Domains and the virtual hosts they lead to, known by position.
#[derive(Debug, Clone, Default)]
pub(super) struct Domains {
    exact: Names,
    suffixes: Wildcards,
    prefixes: Wildcards,
    any: Option<u32>,
}

/// The fixed parts of wildcard domains.
#[derive(Debug, Clone, Default)]
struct Wildcards {
    names: Names,
    /// The lengths that occur, the longest first.
    lengths: Vec<usize>,
}

impl Wildcards {
    fn insert(&mut self, fixed: &str, host: u32) -> bool {
        if let Err(place) = self.lengths.binary_search_by(|length| fixed.len().cmp(length)) {
            self.lengths.insert(place, fixed.len());
        }
        insert(&mut self.names, fixed, host)
    }

    /// The host of the longest domain whose fixed part is what `part` cuts off the name.
    fn find<'n>(&self, name: &'n [u8], part: impl Fn(usize) -> &'n [u8]) -> Option<u32> {
        let fitting = self.lengths.iter().filter(|length| **length < name.len());
        fitting.map(|length| part(*length)).find_map(|part| self.names.get(part)).copied()
    }
}

fn insert(names: &mut Names, name: &str, host: u32) -> bool {
    names.insert(name.as_bytes().into(), host).is_none()
}

impl Domains {
    /// Adds a domain of the virtual host `host`.
    ///
    /// # Errors
    /// [`Fault::Duplicate`] when the domain is there already, for whichever virtual host.
    pub(super) fn add(&mut self, domain: &str, host: u32) -> Result<(), Fault> {
        let name = domain.to_ascii_lowercase();
        let is_new = if name == "*" {
            self.any.replace(host).is_none()
        } else if let Some(suffix) = name.strip_prefix('*') {
            self.suffixes.insert(suffix, host)
        } else if let Some(prefix) = name.strip_suffix('*') {
            self.prefixes.insert(prefix, host)
        } else {
            insert(&mut self.exact, &name, host)
        };
        if is_new { Ok(()) } else { Err(Fault::Duplicate(domain.to_owned())) }
    }

    /// Whether a domain, in lower case, is there already.
    pub(super) fn has(&self, domain: &str) -> bool {
        if domain == "*" {
            self.any.is_some()
        } else if let Some(suffix) = domain.strip_prefix('*') {
            self.suffixes.names.contains_key(suffix.as_bytes())
        } else if let Some(prefix) = domain.strip_suffix('*') {
            self.prefixes.names.contains_key(prefix.as_bytes())
        } else {
            self.exact.contains_key(domain.as_bytes())
        }
    }

    /// The virtual host of an authority, as the client wrote it.
    pub(super) fn find(&self, authority: &[u8]) -> Option<u32> {
        if self.exact.is_empty() && self.suffixes.names.is_empty() && self.prefixes.names.is_empty()
        {
            return self.any;
        }
        let mut lower = SmallVec::<[u8; 256]>::new();
        let name = if authority.iter().any(u8::is_ascii_uppercase) {
            lower.extend(authority.iter().map(u8::to_ascii_lowercase));
            lower.borrow()
        } else {
            authority
        };
        let exact = self.exact.get(name).copied();
        exact
            .or_else(|| self.suffixes.find(name, |length| &name[name.len() - length..]))
            .or_else(|| self.prefixes.find(name, |length| &name[..length]))
            .or(self.any)
    }
}

/// The authority that a request asks for: its target's if it has one, else its `Host`, else empty.
pub(super) fn authority(head: &RequestHead) -> &[u8] {
    match head.uri.authority() {
        Some(authority) => authority.as_str().as_bytes(),
        None => head.headers.get(HOST).map_or(b"", |host| host.as_bytes()),
    }
}

/// Where the port of an authority begins, at its colon; `None` if it has none.
pub(super) fn port_start(authority: &[u8]) -> Option<usize> {
    let colon = authority.iter().rposition(|byte| *byte == b':')?;
    let port = &authority[colon + 1..];
    let is_port = !port.is_empty() && port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    // A colon within brackets belongs to an IPv6 address.
    is_port.then_some(colon)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domains(names: &[&str]) -> Domains {
        let mut domains = Domains::default();
        for (i, name) in names.iter().enumerate() {
            domains.add(name, u32::try_from(i).unwrap()).unwrap();
        }
        domains
    }

    #[test]
    fn the_most_specific_domain_wins() {
        let domains = domains(&[
            "*",
            "foo.*",
            "foo.bar.*",
            "*.example.com",
            "*.api.example.com",
            "foo.example.com",
            "*-x.example.com",
            "[::1]:80",
        ]);
        let cases = [
            ("foo.example.com", 5),
            ("FOO.Example.COM", 5),
            ("bar.example.com", 3),
            ("x.api.example.com", 4),
            (".example.com", 0),
            ("example.com", 0),
            ("foo.com", 1),
            ("foo.bar.com", 2),
            ("foo.org.example.com", 3),
            ("foo.", 0),
            ("elsewhere", 0),
            ("a-x.example.com", 6),
            ("-x.example.com", 3),
            ("[::1]:80", 7),
            ("", 0),
            ("foo.example.com:80", 1),
        ];
        for (name, expected) in cases {
            assert_eq!(domains.find(name.as_bytes()), Some(expected), "{name}");
        }
    }

    #[test]
    fn without_a_wildcard_other_names_have_no_host() {
        let domains = domains(&["a.test"]);
        assert_eq!(domains.find(b"b.test"), None);
        let long = "A".repeat(1000);
        assert_eq!(domains.find(long.as_bytes()), None);
    }

    #[test]
    fn a_domain_is_used_once() {
        let mut domains = domains(&["a.test", "*", "*.b", "c.*"]);
        for name in ["A.test", "*", "*.B", "c.*"] {
            assert_eq!(domains.add(name, 9), Err(Fault::Duplicate(name.into())));
        }
        assert_eq!(domains.add("b.test", 9), Ok(()));
    }

    #[test]
    fn ports_are_found_after_names_and_addresses() {
        let cases = [
            ("a:80", Some(1)),
            ("a", None),
            ("[::1]", None),
            ("[::1]:80", Some(5)),
            ("a:", None),
            ("a:x", None),
            ("", None),
        ];
        for (authority, expected) in cases {
            assert_eq!(port_start(authority.as_bytes()), expected, "{authority}");
        }
    }
}
