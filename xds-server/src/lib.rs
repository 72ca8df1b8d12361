//! The management server that drives nuncio, or any Envoy.
