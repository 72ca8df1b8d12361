//! `nuncio.extensions.filters.http.session.v1.Session`: keeps the requests of a session on one host of
//! each cluster.
//!
//! Unlike Envoy's stateful sessions the client does not hold the host's address but a session's id, by a
//! header of its choice or a cookie of ours; the hosts are in a table. If a session's host is gone or
//! cannot take the request, the balancer chooses another, and the session stays there.

mod table;

use std::sync::Arc;
use std::time::Duration;

use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue};

use self::table::Bounds;
pub use self::table::SessionTable;
use super::registry::{FilterContext, Registration};
use super::{Filter, FilterFactory, Stage, WorkerContext};
use crate::config::matcher::header_name;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::headers::cookie;
use crate::exchange::{HttpService, OverrideHost, Request, RequestHead, Response, StreamReset};
use crate::proto::any::unpack;
use crate::proto::nuncio::extensions::filters::http::session::v1 as proto;
use crate::telemetry::Scope;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "nuncio.extensions.filters.http.session.v1.Session",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(compile(message, cx)?))
    },
};

const DEFAULT_DURATION: Duration = Duration::from_secs(30 * 60);
const DEFAULT_MAX_SESSIONS: u32 = 10_000;
/// A client's id of more bytes is none.
const LONGEST_ID: usize = 256;

#[derive(Debug, Clone)]
struct Names {
    cookie: Option<Arc<str>>,
    header: Option<HeaderName>,
}

#[derive(Debug)]
struct SessionConfig {
    names: Names,
    bounds: Bounds,
    place: FilterContext,
}

fn compile(message: proto::Session, cx: &FilterContext) -> Result<SessionConfig, Errors> {
    let proto::Session { cookie_name, header_name: header, duration, max_sessions } = message;
    let mut errors = Errors::new();
    let header = match header.is_empty() {
        true => None,
        false => errors.take(header_name(&header).at("header_name")),
    };
    let cookie = match cookie_name.is_empty() {
        true => None,
        // The names of cookies are made of the same characters.
        false => errors
            .take(header_name(&cookie_name).at("cookie_name"))
            .map(|_checked| Arc::from(cookie_name)),
    };
    let idle = duration.map(|duration| fields::duration(&duration)).transpose().at("duration");
    let idle = errors.take(idle).flatten().unwrap_or(DEFAULT_DURATION);
    if idle < Duration::from_millis(1) {
        errors.push("duration", Fault::out_of_range(format!("{idle:?}"), "at least 1 ms"));
    }
    let most = max_sessions.map(|most| fields::in_range(most, 1..=u32::MAX)).transpose();
    let most = errors.take(most.at("max_sessions")).flatten().unwrap_or(DEFAULT_MAX_SESSIONS);
    if errors.is_empty() && header.is_none() && cookie.is_none() {
        errors.push("cookie_name", Fault::Conflict("or header_name must be set".into()));
    }
    errors.finish()?;
    let names = Names { cookie, header };
    Ok(SessionConfig { names, bounds: Bounds { idle, most }, place: cx.clone() })
}

impl FilterFactory for SessionConfig {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let scope = Scope::http(&self.place.stat_prefix).part("session");
        let make = || SessionTable::new(self.bounds, cx.telemetry.group(scope));
        let table = cx.sessions.get(&self.place, make);
        table.bound(self.bounds);
        Stage::layer(Session { names: self.names.clone(), table })
    }
}

struct Session {
    names: Names,
    table: Arc<SessionTable>,
}

/// The id of a request's session.
struct SessionId {
    text: Box<str>,
    /// It was made just now, so the client is to be told.
    new: bool,
}

impl Session {
    fn id(&self, head: &RequestHead) -> Option<SessionId> {
        let header = self.names.header.as_ref().and_then(|name| head.headers.get(name));
        let name = self.names.cookie.as_deref();
        let value = match header.map(HeaderValue::as_bytes).filter(|value| !value.is_empty()) {
            Some(value) => Some(value),
            None => name.and_then(|name| cookie(&head.headers, name)),
        };
        let text = value.filter(|value| (1..=LONGEST_ID).contains(&value.len()));
        match text.and_then(|text| std::str::from_utf8(text).ok()) {
            Some(text) => Some(SessionId { text: text.into(), new: false }),
            None => name.map(|_| {
                let text = format!("{:032x}", rand::random::<u128>()).into();
                SessionId { text, new: true }
            }),
        }
    }
}

impl Filter for Session {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let Some(id) = self.id(&request.head) else { return next.send(request).await };
        if !id.new {
            let pins = self.table.find(&id.text);
            if !pins.is_empty() {
                let addresses = pins.into_iter().map(|(_, host)| host).collect();
                request.stream.override_host =
                    Some(Box::new(OverrideHost { addresses, strict: false }));
            }
        }
        let mut response = next.send(request).await?;
        let stream = &response.stream;
        if let (Some(cluster), Some(host)) = (&stream.upstream_cluster, stream.upstream_host) {
            self.table.pin(&id.text, cluster, host);
            if let (true, Some(name)) = (id.new, &self.names.cookie)
                && let Ok(value) =
                    HeaderValue::try_from(format!("{name}={}; Path=/; HttpOnly", id.text))
            {
                response.head.headers.append(SET_COOKIE, value);
            }
        }
        Ok(response)
    }
}
