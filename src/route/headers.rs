//! Headers that configuration adds to requests and responses, or takes from them.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::Route;
use super::format::{Format, RequestView, Values};
use crate::exchange::stream_info::RequestRecord;
use crate::exchange::{RequestHead, ResponseHead, StreamInfo};

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
pub(super) struct Level {
    pub(super) remove: Box<[HeaderName]>,
    pub(super) add: Box<[Addition]>,
}

/// `config.core.v3.HeaderValueOption`
#[derive(Debug)]
pub(super) struct Addition {
    pub(super) name: HeaderName,
    pub(super) value: Format,
    pub(super) action: AppendAction,
    /// A header whose value turns out empty is added all the same.
    pub(super) keep_empty: bool,
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

impl Mutations {
    pub(super) fn apply_to_request(
        &self,
        route: &Route,
        head: &mut RequestHead,
        stream: &mut StreamInfo,
    ) {
        for level in &self.request {
            for name in &level.remove {
                head.headers.remove(name);
            }
            for addition in &level.add {
                let request = RequestView::Head(head);
                let values = Values { request, status: None, stream, route };
                let value = addition.value.render(values);
                addition.apply(&mut head.headers, value);
            }
        }
        if self.response_reads_request {
            record_request(head, stream);
        }
    }

    pub(super) fn apply_to_response(
        &self,
        route: &Route,
        head: &mut ResponseHead,
        stream: &StreamInfo,
    ) {
        for level in &self.response {
            for name in &level.remove {
                head.headers.remove(name);
            }
            for addition in &level.add {
                let request = RequestView::Record(stream.request.as_deref());
                let values = Values { request, status: Some(head.status), stream, route };
                let value = addition.value.render(values);
                addition.apply(&mut head.headers, value);
            }
        }
    }
}

/// Keeps the request for what is said of it after it has gone upstream.
pub(super) fn record_request(head: &RequestHead, stream: &mut StreamInfo) {
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
