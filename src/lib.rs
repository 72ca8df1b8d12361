//! nuncio: an Envoy-compatible, xDS-configured gateway proxy.
//!
//! A management server streams listeners, routes, clusters and endpoints; nuncio checks each
//! resource, answers ACK or NACK, and carries HTTP traffic by what it accepted. This page is the
//! map: where things live, who may know whom, and what travels where. [`server::Server`] is the
//! way to run a proxy inside another program, [`upstream::LoadBalancer`] the way to use its balancing,
//! pools and health checks without one.
//!
//! # The map
//!
//! | module | what it is |
//! |---|---|
//! | [`server`] | a whole proxy: command line, bootstrap, workers, start and stop |
//! | [`admin`] | the HTTP interface for operators |
//! | [`control`] | turns resources into snapshots; the only writer |
//! | [`snapshot`] | all configuration at one version |
//! | [`listener`] | bound sockets, accepted connections, filter chain match, draining |
//! | [`hcm`] | HTTP connection manager: a connection in, requests through the filters, answers out |
//! | [`filter`] | the HTTP filters and the chain they are folded into; the last is the router |
//! | [`route`] | request head in, decision out; knows no cluster |
//! | [`cache`] | stored responses: what may be kept, for how long, and where; no transport inside |
//! | [`upstream`] | clusters: hosts, balancing, circuit breakers, connection pools; knows no route |
//! | [`xds`] | the protocol of discovery, both variants; knows type URLs and not their meaning |
//! | [`telemetry`] | metrics, read by scrapers or pushed; access logs |
//! | [`http1`] | messages of HTTP/1.1, for both sides: heads, chunks, bodies; knows no socket |
//! | [`exchange`] | one request and its answer: heads, bodies, local replies, what is known of it |
//! | [`net`] | addresses, streams, socket options |
//! | [`coding`] | content codings, both ways; knows bytes and no message |
//! | [`config`] | what every compile step speaks: errors with paths, common fields |
//! | [`proto`] | the wire types of our subset of the Envoy API, JSON and YAML forms, the audit |
//!
//! # The floors
//!
//! A module uses those on lower floors, never a neighbour on its own and never one above.
//!
//! ```text
//!  12  main
//!  11  server
//!  10  admin
//!   9  control
//!   8  snapshot
//!   7  listener
//!   6  hcm
//!   5  filter
//!   4  route   cache   upstream   xds
//!   2  telemetry   http1
//!   1  exchange   net
//!   0  proto   config   coding      (config may use proto)
//! ```
//!
//! What that buys: the router filter, not the route table, joins a route to a cluster; `upstream`
//! can be tested without a request, `route` without a socket, and `xds` without a resource.
//!
//! # Three things travel
//!
//! **A resource** runs through the control task, which alone writes configuration.
//!
//! ```text
//! xds       bytes -> update: what is new, what is gone      one state machine a variant, no I/O
//! control   Any -> message -> compile -> Arc<T> or errors   each resource alone, all of them tried
//!           good replaces last good; bad keeps it, and its errors go into the NACK
//!           names now referred to are subscribed BEFORE the ACK leaves
//!           a cluster waits for its endpoints, a listener for its routes and its filters'
//!           discovered configurations
//! snapshot  a burst becomes one Snapshot {version + 1}, published to every worker
//! worker    opens what is new, then drains what is old; requests keep what they started with
//! ```
//!
//! What the bootstrap holds itself takes the same road. Endpoints take a short one: they are swapped
//! in place inside their cluster, and each worker sees them at its next pick. Discovered
//! configurations of filters change a listener in service: its chain is folded anew, its connections
//! stay.
//!
//! **A request** stays on one worker, from accept to access log.
//!
//! ```text
//! listener   accept, choose the filter chain
//! hcm        read the head, make it sane, find the route; pin both
//! filter     outermost to innermost: each answers, changes, or calls the next
//! router     action, deadline, cluster
//! upstream   permit, host, connection; the answer's head comes back
//!            out through the same filters in reverse; the end of the body, however it ends,
//!            counts the request and writes the access log, once
//! ```
//!
//! A refusal is an answer: a [`exchange::local_reply::LocalReply`] with Envoy's status, response flag
//! and details passes outward through the filters like any other.
//!
//! **A number** is a cell, bound to its names when the resource it belongs to is compiled. The path
//! of a request does one relaxed add; whoever asks for metrics pays for names and text.
//! What is counted on hosts is read through [`telemetry::services::Services`], since `telemetry` knows no
//! cluster.
//!
//! # Architecture invariants
//!
//! - **Protobuf stops at the door.** Wire types are seen in `proto`, `config`, `xds`, `control`,
//!   `admin`, the bootstrap, files named `compile`, and filters, each of which holds its own compile
//!   step. There is one step, from message to runtime type, and no form between.
//! - **Nothing is accepted and ignored in silence.** Messages are taken apart whole, so a field that
//!   is declared in `proto/` forces a decision. What is not declared is found in the bytes and
//!   reported with its path. What must not be lost is refused by name.
//! - **Configuration is replaced whole.** A `Snapshot` is immutable behind an `Arc`. What changes by
//!   the second lives in the object it belongs to and never republishes configuration.
//! - **One writer.** Only the control task makes snapshots.
//! - **Workers share nothing on the path of a request** but the snapshot, hosts' and breakers'
//!   atomics, session tables, response caches and metric cells. Each has its own thread, sockets, pools
//!   and balancers.
//! - **No statics hold state.** A `Server` owns everything; two run in one process, and dropping one
//!   frees what it had.
//! - **Make before break.** Clusters, endpoints, listeners, extensions, routes, then removals.
//!   Established connections of a replaced listener drain; requests in flight end on what they began with.
//! - **No panic comes from bytes.** Every input, from a socket, a file or a resource, is an error with
//!   a place in it, or is served.
//! - **Every queue is bounded and every wait ends.** No lock is held across an `.await`.
//!
//! `tests/tidy` checks the floors and the door, and fails with the lines at fault.

pub mod admin;
pub mod cache;
pub mod coding;
pub mod config;
pub mod control;
pub mod exchange;
pub mod filter;
pub mod hcm;
pub mod http1;
pub mod listener;
pub mod net;
pub mod proto;
pub mod route;
pub mod server;
pub mod snapshot;
pub mod telemetry;
pub mod upstream;
pub mod xds;
