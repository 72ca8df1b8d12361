//! Stub.
pub mod bootstrap;
mod management;
pub mod options;
