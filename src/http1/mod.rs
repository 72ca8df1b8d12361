//! HTTP/1.1 messages: what both sides of the proxy have in common (RFC 9112).
//!
//! ```text
//! fields    what headers say about a message; header fields as text
//! chunked   the chunked coding, read
//! receive   a message's body, read to where it ends
//! send      a message, written: its head, and its body as long as it says or in chunks
//! case      how the names of headers are written
//! ```
//!
//! No sockets here: who reads and writes gives the means. The client's side is in `hcm::http1`, the
//! upstream's in `upstream::pool::http1`.

pub mod case;
pub mod chunked;
pub mod compile;
pub mod fields;
pub mod receive;
pub mod send;

pub use case::{HeaderCase, OriginalNames};
pub use receive::{BodyReader, Framing, Source};
pub use send::{Message, MessageFraming, SendError};

/// The peer broke the protocol, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);
