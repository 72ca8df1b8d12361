//! nuncio: an Envoy-compatible, xDS-configured gateway proxy.

pub mod config;
pub mod exchange;
pub mod net;
pub mod proto;
pub mod route;
pub mod telemetry;
pub mod xds;
