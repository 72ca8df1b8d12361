//! `nuncio.extensions.filters.http.compression.v1.Compression`: encodes and decodes bodies (RFC 9110 section
//! 8.4); and Envoy's compressor and decompressor.
//!
//! ```text
//! request    decoded, if it is encoded and that is wanted         codecs.rs
//!            encoded, if that is wanted                           rules.rs
//! response   decoded, if the client does not take its coding
//!            encoded in the coding that the client likes best     gather.rs
//! ```
//!
//! Ours keeps to the RFC; Envoy's (`compressor.rs`, `decompressor.rs`) do what Envoy's do. All three ask the
//! same rules and send bodies through the same codecs.
//!
//! A client that rules out the plain form (`identity;q=0`) and takes none of our codings gets the plain form
//! all the same: a response that it may still use is better than none (RFC 9110 section 12.5.3 leaves both).
//! gRPC has codings of its own, and is left alone.

mod beside;
mod chain;
mod codecs;
mod coded_body;
mod compressor;
mod compressor_config;
mod config;
mod decode_body;
mod decompressor;
mod encode_body;
mod gather;
mod library;
mod meter;
mod rules;
mod source;
mod stats;
#[cfg(test)]
mod tests;
mod trailers;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body::Body as _;

use self::codecs::Codecs;
pub(super) use self::compressor::{OVERRIDE as COMPRESSOR_OVERRIDE, REGISTRATION as COMPRESSOR};
pub(super) use self::config::{OVERRIDE, REGISTRATION};
use self::config::{Policy, Responses};
pub use self::decode_body::decoded;
pub(super) use self::decompressor::REGISTRATION as DECOMPRESSOR;
pub use self::encode_body::{Flush, encoded};
use self::gather::{Gathered, gather};
pub use self::meter::{End, Outcome};
use self::rules::{Skip, Tags};
use self::stats::Direction;
use super::head;
use super::registry::FilterContext;
use super::{Filter, FilterFactory, Stage, WorkerContext, route_config};
use crate::coding::accept::{Choice, Weights};
use crate::coding::{Coding, Encoding, Limits};
use crate::exchange::{
    Body, HttpService, Request, RequestHead, Response, ResponseHead, StreamReset,
};

/// A body of so many bytes at the most is encoded in one go, if it is there at once.
const SHORT: u64 = 64 << 10;

/// The compiled filter.
#[derive(Debug)]
struct Compression {
    place: FilterContext,
    policy: Arc<Policy>,
}

impl FilterFactory for Compression {
    fn stage(&self, cx: &WorkerContext) -> Stage {
        let codecs = Codecs::new(cx, &self.place);
        self.policy.uses(|operation, direction, coding| {
            codecs.counts.of(operation, direction, coding);
        });
        Stage::layer(Coder {
            name: Arc::clone(&self.place.name),
            policy: Arc::clone(&self.policy),
            codecs,
        })
    }
}

/// The filter on one worker.
struct Coder {
    /// By which routes refer to it.
    name: Arc<str>,
    policy: Arc<Policy>,
    codecs: Codecs,
}

/// What must be known of a request once its response is there.
struct Asked {
    weights: Weights,
    is_head: bool,
    /// The entity tags that the client has.
    has: Option<HeaderValue>,
}

impl Filter for Coder {
    async fn call(
        &self,
        mut request: Request,
        next: &HttpService,
    ) -> Result<Response, StreamReset> {
        let routes = route_config::<Policy>(&request.stream, &self.name);
        let policy = routes.as_ref().unwrap_or(&self.policy);
        if request.stream.upgrade.is_some() {
            // What a tunnel carries is no content.
            return next.send(request).await;
        }
        if policy.excludes(request.head.uri.path()) {
            self.codecs.counts.skip(Direction::Response, Skip::Path);
            return next.send(request).await;
        }
        self.treat_request(policy, &mut request);
        let asked = Asked::of(&request.head);
        let response = next.send(request).await?;
        Ok(self.treat_response(policy, asked, response).await)
    }
}

impl Asked {
    fn of(head: &RequestHead) -> Self {
        Self {
            weights: Weights::of(&head.headers),
            is_head: head.method == Method::HEAD,
            has: head.headers.get(IF_NONE_MATCH).cloned(),
        }
    }

    /// Whether the client has a response under the weak form of this tag, and not under the tag itself: one
    /// that was encoded here.
    fn has_weak_form_of(&self, tag: &HeaderValue) -> bool {
        let Some(has) = &self.has else { return false };
        let (mut weak, mut strong) = (false, false);
        for item in head::tags(has.as_bytes()) {
            weak |= item.strip_prefix(b"W/").is_some_and(|item| item == tag.as_bytes());
            strong |= item == tag.as_bytes();
        }
        weak && !strong
    }
}

impl Coder {
    fn treat_request(&self, policy: &Policy, request: &mut Request) {
        let Request { head, body, .. } = request;
        let headers = &mut head.headers;
        if policy.changes_responses() && has_weak_condition(headers) {
            // The tag does not say which bytes the client has; nobody behind us shall take it for one that
            // does (RFC 9110 section 13.1.5).
            headers.remove(RANGE);
            headers.remove(IF_RANGE);
        }
        if body.is_end_stream() || head::is_grpc(headers) {
            return;
        }
        if let Some(limits) = policy.decode_request
            && !head::forbids_transforms(headers)
        {
            self.codecs.decode_all(headers, body, limits, Direction::Request);
        }
        if let Some(requests) = &policy.encode_request {
            match requests.rules.check(None, headers) {
                Ok(()) => {
                    head::forget_bytes(headers);
                    head::say_encoded(headers, requests.encoding.coding());
                    self.codecs.encode(
                        body,
                        &requests.encoding,
                        headers,
                        (Direction::Request, None),
                    );
                }
                Err(why) => self.codecs.counts.skip(Direction::Request, why),
            }
        }
    }

    async fn treat_response(
        &self,
        policy: &Policy,
        asked: Asked,
        mut response: Response,
    ) -> Response {
        let Response { head, body, .. } = &mut response;
        if head::is_grpc(&head.headers) {
            return response;
        }
        if policy.changes_responses()
            && policy.tags == Tags::Weaken
            && head.status == StatusCode::NOT_MODIFIED
            && head.headers.get(ETAG).is_some_and(|tag| asked.has_weak_form_of(tag))
        {
            // What the client has was changed here, and shall be found again by its tag.
            head::weaken_tag(&mut head.headers);
            head::vary_by_coding(&mut head.headers);
        }
        if let Some(limits) = policy.decode_response {
            self.decode_response(policy, limits, &asked, (head, body));
        }
        let Some(responses) = &policy.encode_response else { return response };
        if let Err(why) = self.encode_response(responses, &asked, (head, body)).await {
            self.codecs.counts.skip(Direction::Response, why);
        }
        response
    }

    /// Decodes a response whose coding the client does not take.
    fn decode_response(
        &self,
        policy: &Policy,
        limits: Limits,
        asked: &Asked,
        (head, body): (&mut ResponseHead, &mut Body),
    ) {
        let headers = &mut head.headers;
        let Some(codings) = codecs::codings(headers) else { return };
        if !is_whole(head.status) || head::forbids_transforms(headers) {
            return;
        }
        if policy.tags == Tags::KeepStrong && head::has_strong_tag(headers) {
            return;
        }
        head::vary_by_coding(headers);
        if codings.iter().all(|coding| asked.takes(*coding)) {
            return;
        }
        if asked.is_head || body.is_end_stream() {
            codecs::take_codings_off(headers);
        } else {
            self.codecs.decode_all(headers, body, limits, Direction::Response);
        }
        head::weaken_tag(headers);
    }

    /// Encodes a response for a client that takes it.
    ///
    /// # Errors
    /// Why it stays as it is.
    async fn encode_response(
        &self,
        responses: &Responses,
        asked: &Asked,
        (head, body): (&mut ResponseHead, &mut Body),
    ) -> Result<(), Skip> {
        let (rules, headers) = (&responses.rules, &mut head.headers);
        if !is_whole(head.status) {
            return Err(Skip::Status);
        }
        if body.is_end_stream() && !asked.is_head {
            return Err(Skip::Empty);
        }
        rules.check(Some(head.status), headers)?;
        head::vary_by_coding(headers);
        let encoding = asked.choose(responses).ok_or(Skip::NotAccepted)?;
        let length = head::length(headers).or_else(|| body.size_hint().exact());
        let is_short = length.is_some_and(|length| length <= SHORT);
        let made = if asked.is_head {
            None
        } else if is_short && !head::is_event_stream(headers) {
            // A response that stays as it is shall not carry about what this needs.
            Box::pin(self.encode_short(encoding, headers, body)).await?
        } else {
            self.codecs.encode(body, encoding, headers, (Direction::Response, None));
            None
        };
        head::forget_bytes(headers);
        head::say_encoded(headers, encoding.coding());
        rules.treat_tag(headers);
        if let Some(length) = made {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        Ok(())
    }

    /// Encodes a short body in one go, and says how long it is now; or as it passes, if it is not there at once.
    ///
    /// # Errors
    /// That it took no bytes less.
    async fn encode_short(
        &self,
        encoding: &Arc<Encoding>,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<Option<usize>, Skip> {
        match gather(std::mem::take(body), SHORT, &self.codecs.deadlines).await {
            Gathered::Whole(plain) => {
                let made = self.codecs.encode_whole(&plain, encoding, Direction::Response).await;
                let Some(made) = made else {
                    *body = plain.into();
                    return Err(Skip::NotSmaller);
                };
                let length = made.len();
                *body = made.into();
                Ok(Some(length))
            }
            Gathered::Streamed(streamed) => {
                *body = streamed;
                self.codecs.encode(body, encoding, headers, (Direction::Response, None));
                Ok(None)
            }
        }
    }
}

impl Asked {
    fn takes(&self, coding: Coding) -> bool {
        self.weights.choose(&[coding]) == Choice::Coded(coding)
    }

    /// The encoding that the client likes best; of several, the first of ours.
    fn choose<'e>(&self, of: &'e Responses) -> Option<&'e Arc<Encoding>> {
        match self.weights.choose(&of.preference) {
            Choice::Coded(best) => of.encodings.iter().find(|encoding| encoding.coding() == best),
            Choice::Identity | Choice::NotAcceptable => None,
        }
    }
}

/// Whether a response with this status has all of a body: interim ones have none, nor have 204 and 304, and a
/// part of a body is a part of the plain form.
fn is_whole(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(
            status,
            StatusCode::NO_CONTENT
                | StatusCode::RESET_CONTENT
                | StatusCode::PARTIAL_CONTENT
                | StatusCode::NOT_MODIFIED
        )
}

/// Whether a part is asked for of a response whose tag is weak.
fn has_weak_condition(headers: &HeaderMap) -> bool {
    headers.get(IF_RANGE).is_some_and(|tag| tag.as_bytes().starts_with(b"W/"))
}
