//! Stories of the real binary: configuration, traffic, and what an operator would look at.

#[cfg(test)]
mod harness;

#[cfg(test)]
mod access_log;
#[cfg(test)]
mod admin;
#[cfg(test)]
mod balancing;
#[cfg(test)]
mod breakers;
#[cfg(test)]
mod cache;
#[cfg(test)]
mod chaos;
#[cfg(test)]
mod clusters;
#[cfg(test)]
mod compression;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod ecds;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod grpc_web;
#[cfg(test)]
mod health;
#[cfg(test)]
mod hedging;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod http1_connections;
#[cfg(test)]
mod http2;
#[cfg(test)]
mod http_clients;
#[cfg(test)]
mod http_early;
#[cfg(test)]
mod http_faults;
#[cfg(test)]
mod http_h1;
#[cfg(test)]
mod http_h2;
#[cfg(test)]
mod http_limits;
#[cfg(test)]
mod http_paths;
#[cfg(test)]
mod http_trust;
#[cfg(test)]
mod last_good;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod local_replies;
#[cfg(test)]
mod mirror;
#[cfg(test)]
mod otlp;
mod outlier;
#[cfg(test)]
mod redirects;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod robustness;
#[cfg(test)]
mod route_matching;
#[cfg(test)]
mod route_timeouts;
#[cfg(test)]
mod routes;
#[cfg(test)]
mod sessions;
#[cfg(test)]
mod static_config;
#[cfg(test)]
mod upgrades;
#[cfg(test)]
mod vhds;
#[cfg(test)]
mod xds_connection;
mod xds_delta;
#[cfg(test)]
mod xds_edges;
#[cfg(test)]
mod xds_file;
#[cfg(test)]
mod xds_sotw;
#[cfg(test)]
mod xds_start;
#[cfg(test)]
mod xds_world;
