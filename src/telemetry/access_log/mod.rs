//! Access logs: a line for each exchange, when it is over.
//!
//! An [`AccessLogs`] belongs to whatever ends exchanges, such as a connection manager. It is
//! compiled with its resource; [`Sinks`] opens the files and is owned by the server. `log` filters,
//! formats and leaves: writing is another thread's work.

pub mod compile;
mod filter;
pub mod format;
pub mod json;
mod operator;
mod output;
pub mod sink;
mod time;

use std::sync::Arc;

use http::HeaderValue;

use crate::exchange::StreamInfo;
pub use filter::Filter;
use format::{Context, Format};
use json::JsonFormat;
pub use sink::{Sink, Sinks, Target};
pub use time::TimeFormat;

/// The access logs of one connection manager or listener.
#[derive(Debug, Default)]
pub struct AccessLogs {
    logs: Box<[AccessLog]>,
}

/// One access log: which exchanges, in which form, to where.
#[derive(Debug)]
struct AccessLog {
    filter: Option<Filter>,
    line: Line,
    sink: Arc<Sink>,
}

/// A compiled `SubstitutionFormatString`.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    body: LineBody,
    omit_empty: bool,
}

/// The form of a body, and what the body is said to be.
#[derive(Debug)]
pub struct BodyForm {
    /// Its text.
    pub line: Line,
    /// The value of `Content-Type`.
    pub content_type: HeaderValue,
}

#[derive(Debug, Clone, PartialEq)]
enum LineBody {
    Text(Format),
    Json(JsonFormat),
}

impl Line {
    /// Appends the line. A text ends as its format does, JSON with a line end.
    pub fn write(&self, cx: &Context<'_>, out: &mut Vec<u8>) {
        match &self.body {
            LineBody::Text(format) => format.write(cx, self.omit_empty, out),
            LineBody::Json(format) => format.write(cx, self.omit_empty, out),
        }
    }

    /// Whether [`StreamInfo::request`] must be kept.
    pub fn needs_request(&self) -> bool {
        match &self.body {
            LineBody::Text(format) => format.needs_request(),
            LineBody::Json(format) => format.needs_request(),
        }
    }

    /// Whether it is JSON.
    pub fn is_json(&self) -> bool {
        matches!(self.body, LineBody::Json(_))
    }

    fn needs_response_headers(&self) -> bool {
        match &self.body {
            LineBody::Text(format) => format.needs_response_headers(),
            LineBody::Json(format) => format.needs_response_headers(),
        }
    }
}

impl AccessLogs {
    /// True if nothing is logged.
    pub fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Whether [`StreamInfo::request`] must be kept.
    pub fn needs_request(&self) -> bool {
        self.logs.iter().any(|log| log.line.needs_request())
    }

    /// Whether [`StreamInfo::response_headers`] must be kept.
    pub fn needs_response_headers(&self) -> bool {
        self.logs.iter().any(|log| log.line.needs_response_headers())
    }

    /// Logs an exchange that is over. Does not block.
    pub fn log(&self, stream: &StreamInfo) {
        if self.is_empty() {
            return;
        }
        let cx = Context::of_ended(stream);
        for AccessLog { filter, line, sink } in &self.logs {
            if filter.as_ref().is_none_or(|filter| filter.takes(&cx)) {
                sink.add(|out| line.write(&cx, out));
            }
        }
    }
}

#[cfg(test)]
mod tests;
