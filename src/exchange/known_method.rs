//! A request's method as metrics name it: one of a few, whatever clients send.

use http::Method;

/// A method that everybody knows, or [`KnownMethod::Other`]. OpenTelemetry's HTTP conventions,
/// `http.request.method`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum KnownMethod {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
    /// `CONNECT`.
    Connect,
    /// `OPTIONS`.
    Options,
    /// `TRACE`.
    Trace,
    /// `PATCH`.
    Patch,
    /// Any other, or none that could be read.
    #[default]
    Other,
}

impl KnownMethod {
    /// Each, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
        Self::Other,
    ];

    /// As the conventions write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "_OTHER",
        }
    }
}

impl From<&Method> for KnownMethod {
    fn from(method: &Method) -> Self {
        match *method {
            Method::GET => Self::Get,
            Method::HEAD => Self::Head,
            Method::POST => Self::Post,
            Method::PUT => Self::Put,
            Method::DELETE => Self::Delete,
            Method::CONNECT => Self::Connect,
            Method::OPTIONS => Self::Options,
            Method::TRACE => Self::Trace,
            Method::PATCH => Self::Patch,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_as_it_is_written_or_is_another() {
        for (number, known) in KnownMethod::ALL.into_iter().enumerate() {
            assert_eq!(known as usize, number);
            let method = Method::from_bytes(known.as_str().as_bytes()).unwrap();
            assert_eq!(KnownMethod::from(&method), known);
        }
        for name in ["PURGE", "get"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(KnownMethod::from(&method).as_str(), "_OTHER");
        }
    }
}
