//! Headers that configuration adds to requests and responses, or takes from them.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::exchange::stream_info::RequestRecord;
use crate::exchange::{RequestHead, ResponseHead, StreamInfo};
use crate::telemetry::access_log::format::{Context, Format, RequestSource};

/// Every header mutation that reaches a route, from its own to its table's.
#[derive(Debug, Default)]
pub(super) struct Mutations {
    /// In the order they are applied.
    pub(super) request: Box<[Arc<Level>]>,
    pub(super) response: Box<[Arc<Level>]>,
    /// A response's header is made of the request's.
    pub(super) response_reads_request: bool,
}

/// The header mutations that one message holds. What it removes goes before what it adds comes.
#[derive(Debug)]
pub struct Level {
    pub(super) remove: Box<[HeaderName]>,
    pub(super) add: Box<[Addition]>,
}

/// `config.core.v3.HeaderValueOption`
#[derive(Debug)]
pub(super) struct Addition {
    pub(super) name: HeaderName,
    pub(super) value: Value,
    pub(super) action: AppendAction,
    /// A header whose value turns out empty is added all the same.
    pub(super) keep_empty: bool,
}

/// What a header's value is made of.
#[derive(Debug)]
pub(super) enum Value {
    /// Text alone.
    Literal(HeaderValue),
    /// Text and operators; one whose value is not known gives nothing.
    Format(Format),
}

impl Value {
    /// The value in an exchange. `None` if something that came in makes it unfit for a header.
    fn render<'c>(&self, cx: impl FnOnce() -> Context<'c>) -> Option<HeaderValue> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Format(format) => {
                let mut text = Vec::with_capacity(64);
                format.write(&cx(), true, &mut text);
                HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
            }
        }
    }

    /// Whether it reads the request's head.
    pub(super) fn reads_request(&self) -> bool {
        matches!(self, Self::Format(format) if format.needs_request())
    }
}

/// `config.core.v3.HeaderValueOption.HeaderAppendAction`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AppendAction {
    Append,
    AddIfAbsent,
    Overwrite,
    OverwriteIfPresent,
}

impl Addition {
    fn apply(&self, headers: &mut HeaderMap, value: Option<HeaderValue>) {
        let Some(value) = value.filter(|value| self.keep_empty || !value.is_empty()) else {
            return;
        };
        match self.action {
            AppendAction::Append => {
                // Fails at 32,768 headers only, which no codec lets through.
                let _full = headers.try_append(self.name.clone(), value);
            }
            AppendAction::AddIfAbsent if headers.contains_key(&self.name) => {}
            AppendAction::OverwriteIfPresent if !headers.contains_key(&self.name) => {}
            AppendAction::AddIfAbsent
            | AppendAction::Overwrite
            | AppendAction::OverwriteIfPresent => {
                let _full = headers.try_insert(self.name.clone(), value);
            }
        }
    }
}

impl Level {
    /// Changes the headers of a request.
    pub fn apply_to_request(&self, head: &mut RequestHead, stream: &StreamInfo) {
        for name in &self.remove {
            head.headers.remove(name);
        }
        for addition in &self.add {
            let value = addition.value.render(|| Context {
                stream,
                request: Some(RequestSource::Head(head)),
                response_headers: None,
                now: Instant::now(),
            });
            addition.apply(&mut head.headers, value);
        }
    }

    /// Changes the headers of a response.
    pub fn apply_to_response(&self, head: &mut ResponseHead, stream: &StreamInfo) {
        for name in &self.remove {
            head.headers.remove(name);
        }
        for addition in &self.add {
            let value = addition.value.render(|| Context {
                stream,
                request: stream.request.as_deref().map(RequestSource::Record),
                response_headers: Some(&head.headers),
                now: Instant::now(),
            });
            addition.apply(&mut head.headers, value);
        }
    }

    /// Whether something that is said of a response is read from its request.
    pub fn reads_request(&self) -> bool {
        self.add.iter().any(|addition| addition.value.reads_request())
    }
}

impl Mutations {
    pub(super) fn apply_to_request(&self, head: &mut RequestHead, stream: &mut StreamInfo) {
        self.request.iter().for_each(|level| level.apply_to_request(head, stream));
        if self.response_reads_request {
            record_request(head, stream);
        }
    }

    pub(super) fn apply_to_response(&self, head: &mut ResponseHead, stream: &mut StreamInfo) {
        // Operators read the status there; whether it is sent is not known yet.
        let sent = stream.status.replace(head.status);
        self.response.iter().for_each(|level| level.apply_to_response(head, stream));
        stream.status = sent;
    }
}

/// Keeps the request for what is said of it after it has gone upstream.
pub fn record_request(head: &RequestHead, stream: &mut StreamInfo) {
    if stream.request.is_some() {
        return;
    }
    stream.request = Some(Box::new(RequestRecord {
        method: head.method.clone(),
        path: head.uri.path_and_query().cloned(),
        authority: head
            .headers
            .get(http::header::HOST)
            .cloned()
            .or_else(|| HeaderValue::from_str(head.uri.authority()?.as_str()).ok()),
        headers: head.headers.clone(),
    }));
}
