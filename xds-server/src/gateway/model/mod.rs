//! What a gateway file says, as types: each block is a table of its keys.

mod blocks;
mod routes;
mod services;

pub(crate) use blocks::*;
pub(crate) use routes::*;
pub(crate) use services::*;

use super::block::block;

block! {
    /// A gateway: where it listens, what it serves, and which request goes where. A block that is not
    /// in the file is off; a key that is not in its block has its default.
    Gateway {
        /// Where clients are served. All listeners have the same routes, cache and sessions.
        listeners: Vec<ListenAt> => "Listener",
        /// What requests are forwarded to.
        services: Vec<Service> = Vec::new() => "Cluster, ClusterLoadAssignment",
        /// Which request goes where. The first route that matches decides.
        routes: Vec<Route> = Vec::new() => "RouteConfiguration",
        /// Which instance of a service a request goes to. Without it: `round_robin`, and nobody asks
        /// instances whether they are well.
        load_balancer: Option<LoadBalancer> => "Cluster.lb_policy",
        /// Responses are stored and given again.
        cache: Option<Cache> => "the filter cache",
        /// How connections to instances are kept. Without it: the proxy's own defaults.
        connection_pool: Option<ConnectionPool> => "Cluster",
        /// Bodies are compressed.
        compression: Option<Compression> => "the filter compression",
    }
}
