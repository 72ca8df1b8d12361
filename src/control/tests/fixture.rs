//! A control state to play with, and short forms of resources.

use std::sync::Arc;
use std::time::Duration;

use prost::{Message, Name};
use prost_types::Any;
use tokio::time::Instant;

use crate::config::{Errors, Fault};
use crate::control::ingest::Change;
use crate::control::state::State;
use crate::control::store::Origin;
use crate::control::{Compilers, Effect, Options, Subscription};
use crate::proto::any::pack;
use crate::proto::envoy::config::cluster::v3 as cluster;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::endpoint::v3 as endpoint;
use crate::proto::envoy::config::listener::v3 as proto_listener;
use crate::proto::envoy::config::route::v3 as route;
use crate::proto::envoy::extensions::filters::http::buffer::v3::Buffer;
use crate::proto::envoy::extensions::filters::http::router::v3::Router;
use crate::proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;
use crate::telemetry::access_log::Sinks;
use crate::xds::{Rejection, Resource, ResourceType, Source, Variant};

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A state whose clock only moves when told to.
pub(super) struct Fixture {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) told: Vec<String>,
}

impl Fixture {
    /// Not started.
    pub(super) fn new() -> Self {
        let telemetry = Telemetry::default();
        let subscription =
            Subscription { source: Source::Ads, initial_fetch_timeout: Some(15 * SECOND) };
        let state = State::new(Options {
            compilers: Compilers::new(telemetry.clone(), Sinks::check_only()),
            grpc: Arc::new(|_| Err(Errors::from(Fault::unsupported("no servers in tests")))),
            ads: Some(Variant::Delta),
            cds: Some(subscription.clone()),
            lds: Some(subscription),
            workers: 1,
            telemetry,
        });
        let mut fixture = Self { state, now: Instant::now(), told: Vec::new() };
        fixture.state.follow.source(&Source::Ads);
        fixture
    }

    /// Started, with the server's first clusters and listeners taken in: none.
    pub(super) fn live() -> Self {
        let mut fixture = Self::new();
        fixture.state.start(fixture.now);
        fixture.accept(ResourceType::Cluster, &[]);
        fixture.accept(ResourceType::Listener, &[]);
        assert!(fixture.state.startup.is_live());
        fixture.told();
        fixture
    }

    /// An incremental update.
    pub(super) fn change(&self, ty: ResourceType, resources: &[Any], removed: &[&str]) -> Change {
        let source = self.state.follow.known(&Source::Ads).unwrap();
        Change {
            removed: removed.iter().map(|&n| n.to_owned()).collect(),
            ..Change::of(Origin::Dynamic, source, ty, resources.to_vec(), "1")
        }
    }

    pub(super) fn ingest(&mut self, change: Change) -> Vec<Rejection> {
        let rejected = self.state.ingest(change, self.now).rejected;
        self.note_effects();
        rejected
    }

    pub(super) fn update(&mut self, ty: ResourceType, resources: &[Any]) -> Vec<Rejection> {
        self.ingest(self.change(ty, resources, &[]))
    }

    pub(super) fn accept(&mut self, ty: ResourceType, resources: &[Any]) {
        assert_eq!(self.update(ty, resources), []);
    }

    pub(super) fn remove(&mut self, ty: ResourceType, name: &str) {
        assert_eq!(self.ingest(self.change(ty, &[], &[name])), []);
    }

    /// A complete update: what it does not name is gone.
    pub(super) fn full(&mut self, ty: ResourceType, resources: &[Any]) -> Vec<Rejection> {
        let change = Change { full: true, ..self.change(ty, resources, &[]) };
        self.ingest(change)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.state.tick(self.now);
        self.note_effects();
    }

    fn note_effects(&mut self) {
        for effect in self.state.take_effects() {
            self.told.push(match effect {
                Effect::SubscribeAll(_, ty) => format!("{ty} *"),
                Effect::Subscribe(_, ty, names) => format!("{ty} +{}", names.join(",")),
                Effect::Unsubscribe(_, ty, names) => format!("{ty} -{}", names.join(",")),
                Effect::AddGrpc(source, _) => format!("add {source}"),
                Effect::WatchDirectory(path, _) => format!("watch for {}", path.display()),
                Effect::Run(cluster, _) => format!("run {}", cluster.name()),
                Effect::Await(what, cluster, ..) => format!("{what:?} {}?", cluster.name()),
            });
        }
    }

    /// What the server has been told since last asked.
    pub(super) fn told(&mut self) -> Vec<String> {
        self.note_effects();
        std::mem::take(&mut self.told)
    }

    /// The snapshot the workers have.
    pub(super) fn snapshot(&mut self) -> Arc<Snapshot> {
        self.state.snapshot();
        self.state.publish.current.clone()
    }

    pub(super) fn serves(&mut self, cluster: &str) -> bool {
        self.snapshot().clusters.get(cluster).is_some()
    }

    pub(super) fn listens(&mut self, listener: &str) -> bool {
        self.snapshot().listeners.contains_key(listener)
    }
}

fn ads(timeout: Option<Duration>) -> core::ConfigSource {
    core::ConfigSource {
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        initial_fetch_timeout: timeout.map(|t| t.try_into().unwrap()),
        ..Default::default()
    }
}

pub(super) fn address(port: u16) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(core::SocketAddress {
            address: "127.0.0.1".into(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// An EDS cluster; `mark` tells versions of it apart. It waits 5 s for its endpoints.
pub(super) fn eds(name: &str, mark: u32) -> Any {
    eds_as(name, "", mark)
}

pub(super) fn eds_as(name: &str, service_name: &str, mark: u32) -> Any {
    use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
    pack(&cluster::Cluster {
        name: name.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            eds_config: Some(ads(Some(5 * SECOND))),
            service_name: service_name.into(),
        }),
        max_requests_per_connection: Some(mark),
        ..Default::default()
    })
}

/// A cluster that waits for nothing; a timeout of 0 s or less breaks a rule of the API.
pub(super) fn fixed(name: &str, connect_timeout: i64) -> Any {
    pack(&cluster::Cluster {
        name: name.into(),
        connect_timeout: Some(prost_types::Duration { seconds: connect_timeout, nanos: 0 }),
        ..Default::default()
    })
}

/// A cluster with a fault that spares the resources beside it.
pub(super) fn faulty(name: &str) -> Any {
    pack(&cluster::Cluster {
        name: name.into(),
        lb_policy: cluster::cluster::LbPolicy::ClusterProvided.into(),
        ..Default::default()
    })
}

pub(super) fn assignment(name: &str, port: u16) -> Any {
    let endpoint = endpoint::Endpoint { address: Some(address(port)), ..Default::default() };
    let endpoint = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
        ..Default::default()
    };
    pack(&endpoint::ClusterLoadAssignment {
        cluster_name: name.into(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// A listener on a port that the system chooses.
pub(super) fn rds_listener(name: &str, table: &str) -> Any {
    listener_at(name, table, 0, "s")
}

pub(super) fn listener_at(name: &str, table: &str, port: u16, mark: &str) -> Any {
    listener(name, table, (port, mark), Vec::new())
}

/// A listener with filters before its router that are discovered, each of one of these types.
pub(super) fn ecds_listener(name: &str, table: &str, filters: &[(&str, &[&str])]) -> Any {
    let discovered = |(name, types): &(&str, &[&str])| hcm::HttpFilter {
        name: (*name).into(),
        config_type: Some(hcm::http_filter::ConfigType::ConfigDiscovery(
            core::ExtensionConfigSource {
                config_source: Some(ads(Some(5 * SECOND))),
                type_urls: types.iter().map(|kind| format!("x/{kind}")).collect(),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    listener(name, table, (0, "s"), filters.iter().map(discovered).collect())
}

fn listener(
    name: &str,
    table: &str,
    (port, mark): (u16, &str),
    mut filters: Vec<hcm::HttpFilter>,
) -> Any {
    filters.push(hcm::HttpFilter {
        name: "router".into(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
        ..Default::default()
    });
    let rds =
        hcm::Rds { route_config_name: table.into(), config_source: Some(ads(Some(5 * SECOND))) };
    let manager = hcm::HttpConnectionManager {
        stat_prefix: mark.into(),
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(rds)),
        http_filters: filters,
        ..Default::default()
    };
    let filter = proto_listener::Filter {
        name: "hcm".into(),
        config_type: Some(proto_listener::filter::ConfigType::TypedConfig(pack(&manager))),
    };
    pack(&proto_listener::Listener {
        name: name.into(),
        address: Some(address(port)),
        filter_chains: vec![proto_listener::FilterChain {
            filters: vec![filter],
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// An extension; `most` tells versions of it apart, and 0 breaks a rule of the API.
pub(super) fn extension(name: &str, most: u32) -> Any {
    extension_of(name, &Buffer { max_request_bytes: Some(most) })
}

pub(super) fn extension_of<M: Message + Name>(name: &str, config: &M) -> Any {
    pack(&core::TypedExtensionConfig { name: name.into(), typed_config: Some(pack(config)) })
}

pub(super) fn table(name: &str, host: &str) -> Any {
    pack(&route::RouteConfiguration {
        name: name.into(),
        virtual_hosts: vec![route::VirtualHost {
            name: "v".into(),
            domains: vec![host.into()],
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// Bytes that are no message.
pub(super) fn garbage<M: Message + Name>() -> Any {
    Any { type_url: M::type_url(), value: vec![0xff; 4] }
}

/// A resource as incremental xDS sends it.
pub(super) fn named(name: &str, version: &str, body: Any) -> Resource {
    Resource { name: Some(name.into()), version: version.into(), body, ttl: None }
}
