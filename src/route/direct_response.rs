//! Answering a request without an upstream.

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use tokio::time::Instant;

use crate::exchange::{LocalReply, RequestHead, StreamInfo};
use crate::telemetry::access_log::BodyForm;
use crate::telemetry::access_log::format::{Context, RequestSource};

/// `config.route.v3.DirectResponseAction`
#[derive(Debug)]
pub struct DirectResponse {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    /// What the body is made of instead, and said to be.
    pub(super) form: Option<Box<BodyForm>>,
}

impl DirectResponse {
    /// The answer.
    pub fn reply(&self, head: &RequestHead, stream: &mut StreamInfo) -> LocalReply {
        let Some(form) = &self.form else {
            return LocalReply::new(self.status, "direct_response", self.body.clone());
        };
        let BodyForm { line, content_type } = &**form;
        // Operators read status and body there; what is sent is not known yet.
        let sent = stream.status.replace(self.status);
        let said = std::mem::replace(
            &mut stream.local_reply_body,
            Some(self.body.clone()).filter(|body| !body.is_empty()),
        );
        let mut text = Vec::with_capacity(256);
        let cx = Context {
            stream,
            request: Some(RequestSource::Head(head)),
            response_headers: None,
            now: Instant::now(),
        };
        line.write(&cx, &mut text);
        stream.status = sent;
        stream.local_reply_body = said;
        LocalReply::new(self.status, "direct_response", text)
            .with_header(CONTENT_TYPE, content_type.clone())
    }
}
