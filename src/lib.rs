//! nuncio: an Envoy-compatible, xDS-configured gateway proxy.

pub mod admin;
pub mod config;
pub mod control;
pub mod exchange;
pub mod filter;
pub mod hcm;
pub mod listener;
pub mod net;
pub mod proto;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod upstream;
pub mod xds;
