//! `envoy.filters.http.compressor`: encodes responses for clients that take the coding of its library and,
//! if it is told to, requests.
//!
//! Several of them in one chain choose among themselves ([`chain`](super::chain)). What differs from our own
//! filter is kept as Envoy has it: `Vary` on whatever could have been encoded, strong entity tags dropped,
//! 206 encoded like any other status, no length for short bodies.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Body as _;

use super::chain::{self, Accepted, Chain, Choice, Member};
use super::codecs::{AlsoCount, Codecs};
use super::compressor_config::{Config, RouteCompressor};
pub(in crate::filter) use super::compressor_config::{OVERRIDE, REGISTRATION};
use super::library::stat_name;
use super::meter::Outcome;
use super::rules::Skip;
use super::stats::{Direction, Operation};
use crate::coding::{Coding, Encoding};
use crate::exchange::{HttpService, Request, Response, StreamReset};
use crate::filter::head;
use crate::filter::{Filter, FilterFactory, Stage, WorkerContext, route_config};
use crate::telemetry::Scope;

const STATUS: HeaderName = HeaderName::from_static("x-envoy-compression-status");

crate::stats! {
    /// `http.STAT_PREFIX.compressor.NAME.LIBRARY.request.*` and `.response.*`
    struct DirectionStats {
        counter compressed,
        counter not_compressed,
        /// Of bodies that were encoded.
        counter total_uncompressed_bytes,
        counter total_compressed_bytes,
        counter content_length_too_small,
    }
}

crate::stats! {
    /// `http.STAT_PREFIX.compressor.NAME.LIBRARY.*`: what clients take.
    struct AcceptStats {
        counter no_accept_header,
        counter header_identity,
        counter header_compressor_used,
        counter header_compressor_overshadowed,
        counter header_wildcard,
        counter header_not_valid,
        counter not_compressed_etag,
    }
}

impl FilterFactory for Config {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let library = stat_name(self.encoding.coding());
        let root = format!("compressor.{}.{library}", self.library_name);
        let scope = |part: String| Scope::http(&self.place.stat_prefix).part(part);
        let response = match self.response.is_rooted {
            true => format!("{root}.response"),
            false => root.clone(),
        };
        let codecs = Codecs::new(cx, &self.place);
        let coding = self.encoding.coding();
        codecs.counts.of(Operation::Encode, Direction::Response, coding);
        if self.request.is_some() {
            codecs.counts.of(Operation::Encode, Direction::Request, coding);
        }
        Stage::layer(Compressor {
            config: self.clone(),
            request: cx.telemetry.group(scope(format!("{root}.request"))),
            response: cx.telemetry.group(scope(response)),
            accept: cx.telemetry.group(scope(root)),
            codecs,
        })
    }
}

/// The filter on one worker.
struct Compressor {
    config: Config,
    request: Arc<DirectionStats>,
    response: Arc<DirectionStats>,
    accept: Arc<AcceptStats>,
    codecs: Codecs,
}

/// What holds for one exchange.
struct Exchange {
    encoding: Arc<Encoding>,
    is_enabled: bool,
    /// What the client takes, and who else may encode the response.
    asked: Option<(Accepted, Chain)>,
}

impl Filter for Compressor {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        if request.stream.upgrade.is_some() {
            // What a tunnel carries is no content.
            return next.send(request).await;
        }
        let exchange = self.begin(&mut request);
        self.encode_request(&exchange, &mut request);
        let mut response = next.send(request).await?;
        self.encode_response(&exchange, &mut response);
        Ok(response)
    }
}

impl Compressor {
    fn begin(&self, request: &mut Request) -> Exchange {
        let route = route_config::<RouteCompressor>(&request.stream, &self.config.place.name);
        let route = route.as_deref();
        let config = &self.config.response;
        let is_enabled = route.and_then(|route| route.enabled).unwrap_or(config.enabled);
        let encoding = route.and_then(|route| route.encoding.as_ref());
        let encoding = Arc::clone(encoding.unwrap_or(&self.config.encoding));
        let head = &mut request.head;
        // Those who are switched off take part in the choice as well, and those to whom the header is hidden.
        let accepted = chain::accepted(&head.headers);
        let chain = match accepted.is_some() {
            true => Some(head.extensions.get_or_insert_default::<Chain>().clone()),
            false => head.extensions.get::<Chain>().cloned(),
        };
        if let Some(chain) = &chain {
            chain.join(Member {
                coding: encoding.coding(),
                choose_first: self.config.choose_first,
                rules: Arc::clone(&config.rules),
            });
        }
        let asked = accepted.zip(chain);
        let removes = route.and_then(|route| route.remove_accept_encoding);
        if is_enabled && removes.unwrap_or(config.remove_accept_encoding) {
            head.headers.remove(ACCEPT_ENCODING);
        }
        Exchange { encoding, is_enabled, asked }
    }

    fn encode_request(&self, exchange: &Exchange, request: &mut Request) {
        let Request { head, body, .. } = request;
        let headers = &mut head.headers;
        let is_wanted = self.config.request.as_ref().is_some_and(|rules| {
            if body.is_end_stream() {
                return false;
            }
            if !rules.is_long_enough(headers) {
                self.request.content_length_too_small.inc();
                return false;
            }
            rules.has_type(headers) && !headers.contains_key(CONTENT_ENCODING)
        });
        if !is_wanted {
            self.request.not_compressed.inc();
            return;
        }
        self.request.compressed.inc();
        headers.remove(CONTENT_LENGTH);
        head::say_encoded(headers, exchange.encoding.coding());
        let count = (Direction::Request, also(&self.request));
        self.codecs.encode(body, &exchange.encoding, headers, count);
    }

    fn encode_response(&self, exchange: &Exchange, response: &mut Response) {
        let Response { head, body, .. } = response;
        let headers = &mut head.headers;
        if !exchange.is_enabled {
            self.response.not_compressed.inc();
            return;
        }
        let rules = &self.config.response.rules;
        let outcome = rules.check(Some(head.status), headers);
        match outcome {
            Err(Skip::TooSmall) => self.response.content_length_too_small.inc(),
            Err(Skip::EntityTag) => self.accept.not_compressed_etag.inc(),
            _ => {}
        }
        let is_chosen = !body.is_end_stream()
            && outcome != Err(Skip::TooSmall)
            && self.is_chosen(exchange, headers);
        let coding = exchange.encoding.coding();
        let is_encoded = is_chosen && outcome.is_ok();
        if self.config.response.says_status {
            say_status(headers, coding, outcome, is_encoded);
        }
        if is_encoded {
            self.response.compressed.inc();
            rules.treat_tag(headers);
            headers.remove(CONTENT_LENGTH);
            head::say_encoded(headers, coding);
            let count = (Direction::Response, also(&self.response));
            self.codecs.encode(body, &exchange.encoding, headers, count);
        } else {
            self.response.not_compressed.inc();
            let why = outcome.err().unwrap_or(Skip::NotAccepted);
            self.codecs.counts.skip(Direction::Response, why);
        }
        // Whoever stores it must know that there could be another form.
        if outcome.is_ok() {
            vary(headers);
        }
    }

    /// Whether the client wants this one to encode its response.
    fn is_chosen(&self, exchange: &Exchange, response: &HeaderMap) -> bool {
        let Some((accepted, chain)) = &exchange.asked else {
            self.accept.no_accept_header.inc();
            return false;
        };
        let choice = chain.choose(accepted, response);
        let is_own = choice.coding() == Some(exchange.encoding.coding());
        let counter = match choice {
            Choice::Named(_) if is_own => &self.accept.header_compressor_used,
            Choice::Named(_) => &self.accept.header_compressor_overshadowed,
            Choice::Any(_) => &self.accept.header_wildcard,
            Choice::Identity => &self.accept.header_identity,
            Choice::NotValid => &self.accept.header_not_valid,
        };
        counter.inc();
        is_own
    }
}

fn also(stats: &Arc<DirectionStats>) -> AlsoCount {
    let stats = Arc::clone(stats);
    Some(Box::new(move |outcome: &Outcome| {
        stats.total_uncompressed_bytes.add(outcome.input);
        stats.total_compressed_bytes.add(outcome.output);
    }))
}

/// Adds what became of a response to what other compressors said.
fn say_status(
    headers: &mut HeaderMap,
    coding: Coding,
    outcome: Result<(), Skip>,
    is_encoded: bool,
) {
    let status = match outcome {
        Ok(()) if is_encoded => match head::length(headers) {
            Some(length) => format!("Compressed;OriginalLength={length}"),
            None => "Compressed".to_owned(),
        },
        Err(Skip::TooSmall) => "ContentLengthTooSmall".to_owned(),
        Err(Skip::ContentType) => "ContentTypeNotAllowed".to_owned(),
        Err(Skip::EntityTag) => "EtagNotAllowed".to_owned(),
        Err(Skip::Status) => "StatusCodeNotAllowed".to_owned(),
        Ok(()) | Err(_) => return,
    };
    append(headers, STATUS, ",", &format!("{};{status}", coding.name()));
}

/// Says that a response depends on `Accept-Encoding`, unless that is said in just these letters.
fn vary(headers: &mut HeaderMap) {
    const NAME: &str = "Accept-Encoding";
    if head::items(headers, &VARY).all(|item| item != NAME.as_bytes()) {
        append(headers, VARY, ", ", NAME);
    }
}

/// Adds to the one line of a header.
fn append(headers: &mut HeaderMap, name: HeaderName, separator: &str, text: &str) {
    let lines: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    let mut all = lines.join(&b","[..]);
    if !lines.is_empty() {
        all.extend_from_slice(separator.as_bytes());
    }
    all.extend_from_slice(text.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vary_is_one_line_and_knows_its_name_by_its_letters() {
        for (before, after) in [
            (&[][..], "Accept-Encoding"),
            (&["origin"], "origin, Accept-Encoding"),
            (&["accept-encoding"], "accept-encoding, Accept-Encoding"),
            (&["a", "b"], "a,b, Accept-Encoding"),
            (&["a, Accept-Encoding"], "a, Accept-Encoding"),
        ] {
            let mut headers: HeaderMap =
                before.iter().map(|line| (VARY, HeaderValue::from_static(line))).collect();
            vary(&mut headers);
            assert_eq!(headers.get_all(VARY).iter().collect::<Vec<_>>(), [after]);
        }
    }

    #[test]
    fn compressors_say_in_turn_what_they_did() {
        let mut headers =
            [(CONTENT_LENGTH, HeaderValue::from_static("1024"))].into_iter().collect();
        say_status(&mut headers, Coding::Gzip, Err(Skip::ContentType), false);
        say_status(&mut headers, Coding::Zstd, Ok(()), false);
        say_status(&mut headers, Coding::Brotli, Ok(()), true);
        assert_eq!(headers[STATUS], "gzip;ContentTypeNotAllowed,br;Compressed;OriginalLength=1024");
    }
}
