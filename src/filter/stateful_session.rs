//! `envoy.filters.http.stateful_session`: keeps a client on the host that answered it first. The client
//! holds the host's address, in a cookie or a header, in Envoy's own form, so that either proxy
//! understands what the other gave.

use std::any::Any as StdAny;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::SET_COOKIE;
use http::{HeaderName, HeaderValue};
use prost::Message;

use super::registry::{FilterContext, OverrideRegistration, Registration};
use super::{Filter, FilterFactory, Stage, WorkerContext, route_config};
use crate::config::matcher::header_name;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::exchange::headers::{cookie, cookie_attributes};
use crate::exchange::{
    HttpService, OverrideHost, Request, RequestHead, Response, ResponseHead, StreamReset,
};
use crate::proto::any::{effective_type, unpack};
use crate::proto::envoy::extensions::filters::http::stateful_session::v3 as proto;
use crate::proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use crate::proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use crate::proto::envoy::r#type::http::v3::{Cookie, CookieAttribute};
use crate::telemetry::Scope;

pub(super) const REGISTRATION: Registration = Registration {
    config_type: "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    terminal: false,
    compile: |config, cx| {
        let message = unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        Ok(Arc::new(Factory { config: compile(&message)?.map(Arc::new), place: cx.clone() }))
    },
};

pub(super) const OVERRIDE: OverrideRegistration = OverrideRegistration {
    config_type: "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    compile: |config| {
        use proto::stateful_session_per_route::Override;
        let proto::StatefulSessionPerRoute { r#override } =
            unpack(config).map_err(|e| Fault::Undecodable(e.to_string()))?;
        let own = match r#override {
            Some(Override::Disabled(true)) => None,
            Some(Override::Disabled(false)) => {
                return Err(Errors::from(Fault::out_of_range("false", "true")).at("disabled"));
            }
            Some(Override::StatefulSession(message)) => compile(&message).at("stateful_session")?,
            None => return Err(Errors::from(Fault::Required).at("override")),
        };
        Ok(Arc::new(PerRoute(own)) as Arc<dyn StdAny + Send + Sync>)
    },
};

crate::stats! {
    /// `http.STAT_PREFIX.stateful_session.*`
    pub struct StatefulSessionStats {
        /// Requests that went to the host of their session.
        counter routed,
        /// Requests that went to another since theirs could not take them.
        counter failed_open,
        /// Requests refused since the host of their session could not take them.
        counter failed_closed,
        /// Requests without a session.
        counter no_session,
    }
}

struct PerRoute(Option<StatefulSession>);

/// Without a state it does nothing.
struct Factory {
    config: Option<Arc<StatefulSession>>,
    place: FilterContext,
}

#[derive(Debug)]
struct StatefulSession {
    state: State,
    strict: bool,
}

#[derive(Debug)]
enum State {
    Cookie(CookieState),
    Header(HeaderName),
}

#[derive(Debug)]
struct CookieState {
    name: Box<str>,
    /// Requests for other paths have no session; empty is all.
    path: Box<str>,
    /// 0 lives as long as the client.
    ttl: Duration,
    /// What follows the value in `Set-Cookie`.
    attributes: Box<str>,
}

/// What is in the cookie: Envoy's message.
#[derive(Clone, PartialEq, Message)]
struct CookieValue {
    #[prost(string, tag = "1")]
    address: String,
    /// Seconds since 1970; 0 is never.
    #[prost(uint64, tag = "2")]
    expires: u64,
}

fn compile(message: &proto::StatefulSession) -> Result<Option<StatefulSession>, Errors> {
    let proto::StatefulSession { session_state, strict } = message;
    let Some(extension) = session_state else { return Ok(None) };
    let config = fields::required(extension.typed_config.as_ref());
    let state = config.at("typed_config").and_then(|config| state(config).at("typed_config"));
    let state = state.at("session_state")?;
    Ok(Some(StatefulSession { state, strict: *strict }))
}

fn state(config: &prost_types::Any) -> Result<State, Errors> {
    let undecodable = |e: crate::proto::any::UnpackError| Fault::Undecodable(e.to_string());
    let kind = effective_type(config).map_err(undecodable)?;
    match &*kind {
        "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState" => {
            let CookieBasedSessionState { cookie } = unpack(config).map_err(undecodable)?;
            let cookie = fields::required(cookie).and_then(cookie_state).at("cookie")?;
            Ok(State::Cookie(cookie))
        }
        "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState" => {
            let HeaderBasedSessionState { name } = unpack(config).map_err(undecodable)?;
            header_name(&name).at("name").map(State::Header)
        }
        _ => Err(Fault::UnknownExtension(kind.into_owned()).into()),
    }
}

fn cookie_state(cookie: Cookie) -> Result<CookieState, Errors> {
    let Cookie { name, ttl, path, attributes } = cookie;
    let mut errors = Errors::new();
    errors.take(header_name(&name).at("name"));
    let ttl = ttl.map(|ttl| fields::duration(&ttl)).transpose().at("ttl");
    let ttl = errors.take(ttl).flatten().unwrap_or_default();
    let max_age = (ttl >= Duration::from_secs(1)).then_some(ttl);
    let pairs = attributes.iter().map(|CookieAttribute { name, value }| (&**name, &**value));
    let text = cookie_attributes(max_age, &path, pairs);
    if HeaderValue::try_from(&text).is_err() {
        errors.push("path", Fault::invalid(format!("{text:?}"), "not fit for a header"));
    }
    errors.finish()?;
    Ok(CookieState { name: name.into(), path: path.into(), ttl, attributes: text.into() })
}

impl FilterFactory for Factory {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let scope = Scope::http(&self.place.stat_prefix).part("stateful_session");
        Stage::layer(StatefulSessions {
            config: self.config.clone(),
            name: Arc::clone(&self.place.name),
            stats: cx.telemetry.group(scope),
        })
    }
}

struct StatefulSessions {
    config: Option<Arc<StatefulSession>>,
    name: Arc<str>,
    stats: Arc<StatefulSessionStats>,
}

impl Filter for StatefulSessions {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let route = route_config::<PerRoute>(&request.stream, &self.name);
        let config = match &route {
            Some(route) => route.0.as_ref(),
            None => self.config.as_deref(),
        };
        let Some(config) = config.filter(|config| config.state.takes(&request.head)) else {
            return next.send(request).await;
        };
        let wanted = config.state.read(&request.head);
        if let Some(address) = wanted {
            let addresses = [address].into_iter().collect();
            request.stream.override_host =
                Some(Box::new(OverrideHost { addresses, strict: config.strict }));
        }
        let mut response = next.send(request).await?;
        let host = response.stream.upstream_host;
        match (wanted, host) {
            (None, _) => self.stats.no_session.inc(),
            (Some(wanted), Some(host)) if wanted == host => self.stats.routed.inc(),
            (Some(_), None) if config.strict => self.stats.failed_closed.inc(),
            (Some(_), _) => self.stats.failed_open.inc(),
        }
        if let Some(host) = host.filter(|host| wanted != Some(*host)) {
            config.state.write(host, &mut response.head);
        }
        Ok(response)
    }
}

impl State {
    /// Whether a request may have a session at all.
    fn takes(&self, head: &RequestHead) -> bool {
        let Self::Cookie(CookieState { path, .. }) = self else { return true };
        match head.uri.path().strip_prefix(&**path) {
            None => false,
            Some(rest) => {
                path.is_empty() || path.ends_with('/') || rest.is_empty() || rest.starts_with('/')
            }
        }
    }

    /// The host that a request's session is on.
    fn read(&self, head: &RequestHead) -> Option<SocketAddr> {
        match self {
            Self::Header(name) => {
                let bytes = BASE64.decode(head.headers.get(name)?.as_bytes()).ok()?;
                std::str::from_utf8(&bytes).ok()?.parse().ok()
            }
            Self::Cookie(state) => {
                let bytes = BASE64.decode(cookie(&head.headers, &state.name)?).ok()?;
                let CookieValue { address, expires } = CookieValue::decode(&*bytes).ok()?;
                let is_over = !state.ttl.is_zero() && expires != 0 && seconds() > expires;
                address.parse().ok().filter(|_| !is_over)
            }
        }
    }

    /// Tells the client the host of its session.
    fn write(&self, host: SocketAddr, head: &mut ResponseHead) {
        match self {
            Self::Header(name) => {
                if let Ok(value) = HeaderValue::try_from(BASE64.encode(host.to_string())) {
                    head.headers.insert(name, value);
                }
            }
            Self::Cookie(CookieState { name, ttl, attributes, .. }) => {
                let expires = match ttl.is_zero() {
                    true => 0,
                    false => seconds().saturating_add(ttl.as_secs()),
                };
                let value = CookieValue { address: host.to_string(), expires }.encode_to_vec();
                let text = format!("{name}=\"{}\"{attributes}", BASE64.encode(value));
                if let Ok(value) = HeaderValue::try_from(text) {
                    head.headers.append(SET_COOKIE, value);
                }
            }
        }
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    fn request(path: &str, headers: &[(HeaderName, &str)]) -> RequestHead {
        let mut request = http::Request::get(path).body(()).unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name, value.parse().unwrap());
        }
        request.into_parts().0
    }

    fn by_cookie(path: &str, ttl: u64) -> State {
        let ttl = Some(prost_types::Duration { seconds: i64::try_from(ttl).unwrap(), nanos: 0 });
        let cookie = Cookie { name: "s".into(), ttl, path: path.into(), attributes: Vec::new() };
        State::Cookie(cookie_state(cookie).unwrap())
    }

    fn pinned(expires: u64) -> String {
        let value = CookieValue { address: "10.0.0.1:80".into(), expires };
        format!("a=b; s=\"{}\"", BASE64.encode(value.encode_to_vec()))
    }

    #[test]
    fn a_cookie_holds_for_its_path_and_its_time() {
        let state = by_cookie("/p", 60);
        for (path, takes) in
            [("/p", true), ("/p/x", true), ("/p?x", true), ("/px", false), ("/", false)]
        {
            assert_eq!(state.takes(&request(path, &[])), takes, "{path}");
        }
        let read = |text: &str| state.read(&request("/p", &[(COOKIE, text)]));
        let host = Some("10.0.0.1:80".parse().unwrap());
        assert_eq!(read(&pinned(0)), host);
        assert_eq!(read(&pinned(seconds() + 9)), host);
        assert_eq!(read(&pinned(seconds() - 9)), None);
        let session = by_cookie("", 0);
        assert_eq!(session.read(&request("/", &[(COOKIE, &pinned(9))])), host, "no ttl, no end");
        for rubbish in ["s=%%%", "s=", "s=AAAA", "s=CgE="] {
            assert_eq!(read(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let host = "[::1]:8080".parse().unwrap();
        let header = HeaderName::from_static("x-session");
        let mut head = http::Response::new(()).into_parts().0;
        let state = State::Header(header.clone());
        state.write(host, &mut head);
        let value = head.headers[&header].to_str().unwrap().to_owned();
        assert_eq!(state.read(&request("/", &[(header, &value)])), Some(host));
        let state = by_cookie("/", 60);
        state.write(host, &mut head);
        let cookie = head.headers[SET_COOKIE].to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{cookie}");
        assert_eq!(state.read(&request("/", &[(COOKIE, &cookie)])), Some(host));
    }
}
