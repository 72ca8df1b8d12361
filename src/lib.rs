//! nuncio: an Envoy-compatible, xDS-configured gateway proxy.

pub mod proto;
