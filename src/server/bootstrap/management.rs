//! From `ApiConfigSource` to the servers of a subscription.
//!
//! `envoy_grpc` names a cluster of the bootstrap. Of that only what makes a connection is used (the
//! addresses, `connect_timeout`, the pings of HTTP/2): the streams of xDS are not requests, and must
//! work before any cluster does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::Endpoint;

use crate::config::{Errors, Fault, OrFault, fields, source};
use crate::control::GrpcResolver;
use crate::proto::any::unpack;
use crate::proto::envoy::config::cluster::v3 as cluster;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::config::endpoint::v3 as endpoint;
use crate::proto::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions, http_protocol_options,
};
use crate::xds::{BackoffOptions, GrpcOptions, RateLimit, Variant};
use core::grpc_service::{EnvoyGrpc, GoogleGrpc, TargetSpecifier};

/// The addresses of a static cluster and how to connect to them.
#[derive(Debug, Clone, Default)]
pub(super) struct Addresses {
    targets: Vec<(Arc<str>, u16)>,
    connect_timeout: Option<Duration>,
    /// Interval and timeout of pings.
    keep_alive: Option<(Duration, Duration)>,
    is_discovered: bool,
}

/// The clusters that `envoy_grpc` can name.
pub(super) type StaticClusters = BTreeMap<String, Addresses>;

/// What can be known of a static cluster as a place to call.
pub(super) fn addresses(cluster: &cluster::Cluster) -> Addresses {
    use endpoint::lb_endpoint::HostIdentifier;
    let mut targets = Vec::new();
    let localities = cluster.load_assignment.iter().flat_map(|a| &a.endpoints);
    for lb_endpoint in localities.flat_map(|l| &l.lb_endpoints) {
        if let Some(HostIdentifier::Endpoint(endpoint)) = &lb_endpoint.host_identifier
            && let Some(address) = &endpoint.address
            // What is wrong with it is said where the cluster is compiled.
            && let Ok(target) = fields::host_port(address)
        {
            targets.push(target);
        }
    }
    let connect_timeout =
        cluster.connect_timeout.as_ref().and_then(|t| fields::positive_duration(t).ok());
    Addresses {
        targets,
        connect_timeout,
        keep_alive: keep_alive(cluster),
        is_discovered: cluster.eds_cluster_config.is_some(),
    }
}

/// Pings of a connection, from either place where HTTP/2 is configured.
fn keep_alive(cluster: &cluster::Cluster) -> Option<(Duration, Duration)> {
    use explicit_http_config::ProtocolConfig::Http2ProtocolOptions;
    use http_protocol_options::UpstreamProtocolOptions::ExplicitHttpConfig;
    use http_protocol_options::explicit_http_config;
    let typed =
        cluster.typed_extension_protocol_options.values().find_map(|options| {
            match unpack::<HttpProtocolOptions>(options).ok()?.upstream_protocol_options? {
                ExplicitHttpConfig(explicit) => match explicit.protocol_config? {
                    Http2ProtocolOptions(http2) => Some(http2),
                    _ => None,
                },
                _ => None,
            }
        });
    let http2 = typed.as_ref().or(cluster.http2_protocol_options.as_ref())?;
    let core::KeepaliveSettings { interval, timeout, connection_idle_interval: _ } =
        http2.connection_keepalive.as_ref()?;
    let positive = |d: &Option<prost_types::Duration>| fields::positive_duration(d.as_ref()?).ok();
    positive(interval).zip(positive(timeout))
}

/// Resolves sources by the static clusters.
pub(super) fn resolver(clusters: StaticClusters) -> GrpcResolver {
    Arc::new(move |api| {
        source::grpc(api)?;
        options(api, &clusters)
    })
}

/// The servers of a source whose form has been checked.
fn options(api: &core::ApiConfigSource, clusters: &StaticClusters) -> Result<GrpcOptions, Errors> {
    use core::api_config_source::ApiType;
    let core::ApiConfigSource {
        api_type,
        grpc_services,
        // For REST only.
        request_timeout: _,
        rate_limit_settings,
        set_node_on_first_message_only,
        transport_api_version: _,
    } = api;
    let variant = match fields::enumeration::<ApiType>(*api_type).at("api_type")? {
        ApiType::DeltaGrpc => Variant::Delta,
        _ => Variant::Sotw,
    };
    let mut errors = Errors::new();
    let mut options = GrpcOptions::new(Vec::new(), variant);
    options.set_node_on_first_message_only = *set_node_on_first_message_only;
    if let Some(core::RateLimitSettings { max_tokens, fill_rate }) = rate_limit_settings {
        let limit = RateLimit::try_new(*max_tokens, *fill_rate)
            .map_err(|error| Fault::Conflict(error.to_string().into()))
            .at("rate_limit_settings");
        options.rate_limit = errors.take(limit);
    }
    for (index, service) in grpc_services.iter().enumerate() {
        let taken = add_service(service, clusters, &mut options);
        errors.take(taken.index(index).at("grpc_services"));
    }
    errors.finish()?;
    Ok(options)
}

fn add_service(
    service: &core::GrpcService,
    clusters: &StaticClusters,
    options: &mut GrpcOptions,
) -> Result<(), Errors> {
    let core::GrpcService {
        target_specifier,
        // Streams have no end of their own.
        timeout: _,
        initial_metadata,
        retry_policy,
    } = service;
    let mut errors = Errors::new();
    errors.take(add_metadata(initial_metadata, &mut options.initial_metadata));
    errors.take(set_backoff(retry_policy.as_ref(), options).at("retry_policy"));
    match target_specifier {
        None => errors.push("target_specifier", Fault::Required),
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => {
            errors.take(add_envoy(envoy, clusters, options).at("envoy_grpc"));
        }
        Some(TargetSpecifier::GoogleGrpc(google)) => {
            let GoogleGrpc { target_uri, stat_prefix: _ } = google;
            let endpoint = google_endpoint(target_uri).at("target_uri").at("google_grpc");
            options.endpoints.extend(errors.take(endpoint));
        }
    }
    errors.finish()
}

fn add_envoy(
    envoy: &EnvoyGrpc,
    clusters: &StaticClusters,
    options: &mut GrpcOptions,
) -> Result<(), Errors> {
    let EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        // No such headers are sent.
        skip_envoy_headers: _,
    } = envoy;
    let mut errors = Errors::new();
    if !authority.is_empty() {
        let parsed = Authority::try_from(authority.as_str())
            .map_err(|error| Fault::invalid(format!("{authority:?}"), error.to_string()));
        options.authority = errors.take(parsed.at("authority"));
    }
    if let Some(bytes) = max_receive_message_length.filter(|bytes| *bytes > 0) {
        options.max_receive_bytes = bytes as usize;
    }
    errors.take(set_backoff(retry_policy.as_ref(), options).at("retry_policy"));
    errors.take(add_cluster(cluster_name, clusters, options).at("cluster_name"));
    errors.finish()
}

fn add_cluster(
    name: &str,
    clusters: &StaticClusters,
    options: &mut GrpcOptions,
) -> Result<(), Errors> {
    fields::non_empty(name)?;
    let fault = |reason: &'static str| Errors::from(Fault::invalid(format!("{name:?}"), reason));
    let addresses = clusters
        .get(name)
        .ok_or_else(|| fault("no such cluster in static_resources.clusters of the bootstrap"))?;
    if addresses.is_discovered {
        return Err(fault("a cluster of type EDS cannot be the way to its own management server"));
    }
    if addresses.targets.is_empty() {
        return Err(fault("the cluster has no endpoints"));
    }
    if let Some(timeout) = addresses.connect_timeout {
        options.connect_timeout = timeout;
    }
    if let Some((interval, timeout)) = addresses.keep_alive {
        (options.keep_alive_interval, options.keep_alive_timeout) = (interval, timeout);
    }
    for (host, port) in &addresses.targets {
        options.endpoints.push(endpoint(host, *port)?);
    }
    Ok(())
}

/// `HOST:PORT`, with one of gRPC's schemes for such names before it or not.
fn google_endpoint(target: &str) -> Result<Endpoint, Errors> {
    let schemes = ["dns:///", "dns:", "ipv4:", "ipv6:"];
    let bare = schemes.iter().find_map(|scheme| target.strip_prefix(scheme)).unwrap_or(target);
    fields::non_empty(bare)?;
    let expected = "expected HOST:PORT or dns:///HOST:PORT";
    let fault = || Errors::from(Fault::invalid(format!("{target:?}"), expected));
    let (host, port) = bare.rsplit_once(':').ok_or_else(fault)?;
    let port = port.parse().map_err(|_not_a_port| fault())?;
    endpoint(host.trim_start_matches('[').trim_end_matches(']'), port)
}

fn endpoint(host: &str, port: u16) -> Result<Endpoint, Errors> {
    let uri = match host.contains(':') {
        true => format!("http://[{host}]:{port}"),
        false => format!("http://{host}:{port}"),
    };
    Endpoint::from_shared(uri.clone())
        .map_err(|error| Fault::invalid(format!("{uri:?}"), error.to_string()).into())
}

fn set_backoff(
    policy: Option<&core::RetryPolicy>,
    options: &mut GrpcOptions,
) -> Result<(), Errors> {
    // A stream is tried for ever, however many tries are asked for.
    let Some(core::RetryPolicy { retry_back_off, num_retries: _ }) = policy else { return Ok(()) };
    let Some(core::BackoffStrategy { base_interval, max_interval }) = retry_back_off else {
        return Ok(());
    };
    let compiled = || {
        let base = fields::required(base_interval.as_ref())
            .and_then(fields::positive_duration)
            .at("base_interval")?;
        let max = max_interval.as_ref().map(fields::positive_duration).transpose();
        BackoffOptions::try_new(base, max.at("max_interval")?)
            .map_err(|error| Errors::from(Fault::Conflict(error.to_string().into())))
    };
    options.backoff = compiled().at("retry_back_off")?;
    Ok(())
}

fn add_metadata(headers: &[core::HeaderValue], into: &mut MetadataMap) -> Result<(), Errors> {
    let mut errors = Errors::new();
    for (index, core::HeaderValue { key, value, raw_value }) in headers.iter().enumerate() {
        let fault = |error: String| Errors::from(Fault::invalid(format!("{key:?}"), error));
        let added = match key.ends_with("-bin") {
            true => MetadataKey::from_bytes(key.as_bytes())
                .map_err(|error| fault(error.to_string()))
                .map(|name| {
                    into.append_bin(name, MetadataValue::from_bytes(raw_value));
                }),
            false => MetadataKey::from_bytes(key.as_bytes())
                .map_err(|error| fault(error.to_string()))
                .and_then(|name| {
                    let value = MetadataValue::try_from(value.as_str())
                        .map_err(|error| fault(error.to_string()))?;
                    into.append(name, value);
                    Ok(())
                }),
        };
        errors.take(added.index(index).at("initial_metadata"));
    }
    errors.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(services: Vec<TargetSpecifier>) -> core::ApiConfigSource {
        let service = |t| core::GrpcService { target_specifier: Some(t), ..Default::default() };
        core::ApiConfigSource {
            api_type: core::api_config_source::ApiType::DeltaGrpc.into(),
            grpc_services: services.into_iter().map(service).collect(),
            ..Default::default()
        }
    }

    fn envoy(cluster_name: &str) -> TargetSpecifier {
        TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: cluster_name.into(),
            ..Default::default()
        })
    }

    #[test]
    fn all_servers_of_all_services_are_tried_in_turn() {
        let two = Addresses {
            targets: vec![("127.0.0.1".into(), 1), ("::1".into(), 2)],
            ..Default::default()
        };
        let google = GoogleGrpc { target_uri: "dns:///xds.test:3".into(), ..Default::default() };
        let api = api(vec![envoy("two"), TargetSpecifier::GoogleGrpc(google)]);
        let options = resolver([("two".to_owned(), two)].into())(&api).unwrap();
        let uris: Vec<_> = options.endpoints.iter().map(|e| e.uri().to_string()).collect();
        assert_eq!(uris, ["http://127.0.0.1:1/", "http://[::1]:2/", "http://xds.test:3/"]);
        assert_eq!(options.variant, Variant::Delta);
    }

    #[test]
    fn what_cannot_be_reached_is_said_with_its_path() {
        let eds = Addresses { is_discovered: true, ..Default::default() };
        let resolve = resolver([("eds".to_owned(), eds)].into());
        for (name, expected) in [
            ("none", "grpc_services[0].envoy_grpc.cluster_name: \"none\": no such cluster"),
            ("eds", "grpc_services[0].envoy_grpc.cluster_name: \"eds\": a cluster of type EDS"),
            ("", "grpc_services[0].envoy_grpc.cluster_name: is required"),
        ] {
            let error = resolve(&api(vec![envoy(name)])).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
