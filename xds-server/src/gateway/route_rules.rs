//! What must hold between the values of a route.

use std::collections::BTreeMap;

use super::model::{Redirect, Route};
use super::reader::Reader;
use super::rules::unknown_service;

/// Tells what is wrong with a route; `services` says of each whether it keeps sessions.
pub(super) fn check(
    at: &str,
    route: &Route,
    services: &BTreeMap<&str, bool>,
    reader: &mut Reader<'_>,
) {
    if route.path.is_some() && route.prefix.is_some() {
        reader.fault(&format!("{at}.prefix"), "stands beside path; say one of them");
    }
    for (index, method) in route.methods.iter().enumerate() {
        if !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            let reason = format!("{method:?} is not a method; they are in upper case");
            reader.fault(&format!("{at}.methods[{index}]"), reason);
        }
    }
    if let Some(host) = &route.host {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !name.bytes().all(in_name) && host != "*" {
            let reason = "must be a name, *.NAME or *; ports do not count";
            reader.fault(&format!("{at}.host"), reason);
        }
    }
    targets(at, route, services, reader);
    match &route.redirect {
        Some(redirect) => redirected(at, route, redirect, reader),
        None => forwarded(at, route, reader),
    }
}

fn targets(at: &str, route: &Route, services: &BTreeMap<&str, bool>, reader: &mut Reader<'_>) {
    let said = [
        ("service", route.service.is_some()),
        ("services", !route.services.is_empty()),
        ("redirect", route.redirect.is_some()),
    ];
    let mut said = said.iter().filter(|(_, is_said)| *is_said).map(|(key, _)| key);
    match (said.next(), said.next()) {
        (None, _) => reader.fault(at, "one of service, services and redirect is required"),
        (Some(one), Some(other)) => {
            reader.fault(&format!("{at}.{other}"), format!("stands beside {one}; say one of them"));
        }
        (Some(_), None) => {}
    }
    let one = route.service.iter().map(|name| (format!("{at}.service"), name));
    let shares = route.services.iter().enumerate();
    let shares = shares.map(|(i, share)| (format!("{at}.services[{i}].name"), &share.name));
    let mut keeps = None;
    for (at, name) in one.chain(shares) {
        match services.get(name.as_str()) {
            None => reader.fault(&at, unknown_service(name, services)),
            Some(sticky) if *keeps.get_or_insert(*sticky) != *sticky => {
                let reason =
                    "keeps sessions and others of the route do not, or the other way round";
                reader.fault(&at, reason);
            }
            Some(_) => {}
        }
    }
    if !route.services.is_empty() && route.services.iter().all(|share| share.weight.0 == 0) {
        reader.fault(&format!("{at}.services"), "no service has a weight above 0");
    }
}

fn redirected(at: &str, route: &Route, redirect: &Redirect, reader: &mut Reader<'_>) {
    let beside = [
        ("rewrite", route.rewrite.is_some()),
        ("timeout", route.timeout.is_some()),
        ("retries", route.retries.is_some()),
    ];
    for (key, _) in beside.iter().filter(|(_, is_said)| *is_said) {
        let reason = "has no effect beside redirect, which forwards nothing; leave it out";
        reader.fault(&format!("{at}.{key}"), reason);
    }
    let Redirect { scheme, host, port, path, prefix, status: _ } = redirect;
    let at = format!("{at}.redirect");
    if path.is_some() && prefix.is_some() {
        reader.fault(&format!("{at}.prefix"), "stands beside path; say one of them");
    }
    let somewhere = scheme.is_some() || host.is_some() || port.is_some();
    if !somewhere && path.is_none() && prefix.is_none() {
        reader.fault(&at, "one of scheme, host, port, path and prefix is required");
    }
}

fn forwarded(at: &str, route: &Route, reader: &mut Reader<'_>) {
    let replaced = route.rewrite.as_ref().is_some_and(|rewrite| rewrite.path.is_some());
    if replaced && route.path.is_none() && route.prefix.is_none() {
        let reason = "takes the place of the route's path or prefix, and there is none";
        reader.fault(&format!("{at}.rewrite.path"), reason);
    }
    let per_try = route.retries.as_ref().and_then(|retries| retries.per_try_timeout);
    if let (Some(whole), Some(per_try)) = (route.timeout, per_try)
        && !whole.0.is_zero()
        && per_try.0 > whole.0
    {
        let reason = format!("is longer than {at}.timeout, which ends all tries");
        reader.fault(&format!("{at}.retries.per_try_timeout"), reason);
    }
}
