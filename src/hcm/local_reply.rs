//! How answers of our own look: `LocalReplyConfig`. The first mapper that takes an answer may give it
//! another status, text and headers; then its text takes the form of that mapper, or the usual one.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

use crate::exchange::{LocalReplyForm, ResponseHead, StreamInfo};
use crate::route::HeaderLevel;
use crate::telemetry::access_log::format::{Context, RequestSource};
use crate::telemetry::access_log::{BodyForm, Filter};

/// A compiled `LocalReplyConfig`.
#[derive(Debug)]
pub struct LocalReplies {
    pub(super) mappers: Box<[Mapper]>,
    pub(super) body: Option<BodyForm>,
}

/// `ResponseMapper`
#[derive(Debug)]
pub(super) struct Mapper {
    pub(super) filter: Filter,
    pub(super) status: Option<StatusCode>,
    pub(super) text: Option<Bytes>,
    pub(super) body: Option<BodyForm>,
    pub(super) headers: HeaderLevel,
}

impl LocalReplies {
    /// Whether [`StreamInfo::request`] must be kept.
    pub(super) fn needs_request(&self) -> bool {
        let mut forms = self.mappers.iter().filter_map(|mapper| mapper.body.as_ref());
        self.body.as_ref().is_some_and(|form| form.line.needs_request())
            || forms.any(|form| form.line.needs_request())
            || self.mappers.iter().any(|mapper| mapper.headers.reads_request())
    }
}

fn context<'a>(stream: &'a StreamInfo, head: &'a ResponseHead) -> Context<'a> {
    Context {
        stream,
        request: stream.request.as_deref().map(RequestSource::Record),
        response_headers: Some(&head.headers),
        now: Instant::now(),
    }
}

impl LocalReplyForm for LocalReplies {
    fn apply(&self, head: &mut ResponseHead, body: &mut Bytes, stream: &mut StreamInfo) {
        // Operators and filters read the status there; whether it is sent is not known yet.
        let sent = stream.status.replace(head.status);
        let mapper = self.mappers.iter().find(|mapper| mapper.filter.takes(&context(stream, head)));
        if let Some(mapper) = mapper {
            if let Some(status) = mapper.status {
                head.status = status;
                stream.status = Some(status);
            }
            if let Some(text) = &mapper.text {
                *body = text.clone();
            }
            mapper.headers.apply_to_response(head, stream);
        }
        stream.local_reply_body = Some(body.clone()).filter(|body| !body.is_empty());
        if let Some(form) = mapper.and_then(|mapper| mapper.body.as_ref()).or(self.body.as_ref()) {
            let mut text = Vec::with_capacity(256);
            form.line.write(&context(stream, head), &mut text);
            *body = text.into();
            head.headers.insert(CONTENT_TYPE, form.content_type.clone());
        }
        stream.status = sent;
    }
}
