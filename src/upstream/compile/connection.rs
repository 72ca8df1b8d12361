//! What else is said of connections: `ConnectionPool`, `PreconnectPolicy`,
//! `UpstreamConnectionOptions`.

use std::time::Duration;

use prost_types::Any;

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any;
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::config::core::v3::TcpKeepalive as ProtoKeepalive;
use crate::proto::nuncio::extensions::upstreams::http::v1::ConnectionPool;
use crate::upstream::pool::{ConnectionSettings, TcpKeepalive};

/// The extension's name, by which `typed_extension_protocol_options` is keyed.
pub(super) const EXTENSION: &str = "nuncio.extensions.upstreams.http.v1.ConnectionPool";

pub(super) fn pool(options: &Any, settings: &mut ConnectionSettings) -> Result<(), Errors> {
    let ConnectionPool {
        max_idle,
        response_header_timeout,
        expect_continue_timeout,
        disable_compression,
    } = any::unpack(options).map_err(|e| Fault::Undecodable(e.to_string()))?;
    let mut errors = Errors::new();
    settings.max_idle = max_idle;
    if let Some(timeout) = response_header_timeout {
        let timeout = fields::positive_duration(&timeout).at("response_header_timeout");
        settings.response_header_timeout = errors.take(timeout);
    }
    if let Some(timeout) = expect_continue_timeout {
        let timeout = fields::duration(&timeout).at("expect_continue_timeout");
        settings.expect_continue_timeout = errors.take(timeout).unwrap_or_default();
    }
    settings.disable_compression = disable_compression;
    errors.finish()
}

/// The connections wanted for each hundred requests under way.
pub(super) fn preconnect(policy: &proto::cluster::PreconnectPolicy) -> Result<u32, Errors> {
    let proto::cluster::PreconnectPolicy { per_upstream_preconnect_ratio } = policy;
    let ratio = per_upstream_preconnect_ratio.unwrap_or(1.0);
    if !(1.0..=3.0).contains(&ratio) {
        let fault = Fault::out_of_range(ratio, "in 1.0..=3.0");
        return Err(Errors::from(fault).at("per_upstream_preconnect_ratio"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "100 to 300")]
    Ok((ratio * 100.0).round() as u32)
}

pub(super) fn tcp_keepalive(
    options: &proto::UpstreamConnectionOptions,
) -> Result<Option<TcpKeepalive>, Errors> {
    let proto::UpstreamConnectionOptions { tcp_keepalive } = options;
    let Some(ProtoKeepalive { keepalive_probes, keepalive_time, keepalive_interval }) =
        tcp_keepalive
    else {
        return Ok(None);
    };
    let mut errors = Errors::new();
    // The system's own limits.
    let mut take = |value: &Option<u32>, most: u32, field: &'static str| {
        value.and_then(|value| errors.take(fields::in_range(value, 1..=most).at(field)))
    };
    let keepalive = TcpKeepalive {
        probes: take(keepalive_probes, 127, "keepalive_probes"),
        time: take(keepalive_time, 32_767, "keepalive_time")
            .map(u64::from)
            .map(Duration::from_secs),
        interval: take(keepalive_interval, 32_767, "keepalive_interval")
            .map(u64::from)
            .map(Duration::from_secs),
    };
    errors.finish().at("tcp_keepalive")?;
    Ok(Some(keepalive))
}
