//! The real binary over real sockets, against a bare client.

#![expect(clippy::unwrap_used, reason = "a helper of a test that cannot go on fails it there")]

mod ads;
mod api;
mod docs;
mod edits;
mod embedded;
mod extensions;
mod gateway;
mod groups;
mod harness;
mod hosts;
mod status;
