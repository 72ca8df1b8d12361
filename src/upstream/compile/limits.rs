//! `config.cluster.v3.CircuitBreakers` to [`Limits`].

use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::proto::envoy::config::core::v3 as core;
use crate::upstream::breaker::{Limits, RetryBudget};

/// Limits of the default and the high priority.
pub(super) fn compile(proto: Option<proto::CircuitBreakers>) -> Result<[Limits; 2], Errors> {
    let proto::CircuitBreakers { thresholds, per_host_thresholds } = proto.unwrap_or_default();
    let mut errors = Errors::new();
    let mut limits = [None; 2];
    for (index, threshold) in thresholds.into_iter().enumerate() {
        let proto::circuit_breakers::Thresholds {
            priority,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            track_remaining,
            max_connection_pools,
            retry_budget,
        } = threshold;
        let priority = fields::enumeration::<core::RoutingPriority>(priority);
        let Some(priority) = errors.take(priority.at("priority").index(index).at("thresholds"))
        else {
            continue;
        };
        let budget = retry_budget.map(budget).transpose().at("retry_budget");
        let retry_budget = errors.take(budget.index(index).at("thresholds")).flatten();
        let default = Limits::default();
        // The first of a priority counts, as in Envoy.
        limits[priority as usize].get_or_insert(Limits {
            max_connections: max_connections.unwrap_or(default.max_connections),
            max_pending_requests: max_pending_requests.unwrap_or(default.max_pending_requests),
            max_requests: max_requests.unwrap_or(default.max_requests),
            max_connection_pools: max_connection_pools.unwrap_or(default.max_connection_pools),
            max_retries: max_retries.unwrap_or(default.max_retries),
            retry_budget,
            track_remaining,
            ..default
        });
    }
    let mut limits = limits.map(Option::unwrap_or_default);
    for (index, threshold) in per_host_thresholds.into_iter().enumerate() {
        let per_host = per_host(threshold).index(index).at("per_host_thresholds");
        if let Some((priority, most)) = errors.take(per_host) {
            limits[priority as usize].max_connections_per_host = most;
        }
    }
    errors.finish()?;
    Ok(limits)
}

/// The connections that one host may have: the only limit that Envoy knows there.
fn per_host(
    threshold: proto::circuit_breakers::Thresholds,
) -> Result<(core::RoutingPriority, u32), Errors> {
    let proto::circuit_breakers::Thresholds {
        priority,
        max_connections,
        max_pending_requests,
        max_requests,
        max_retries,
        track_remaining,
        max_connection_pools,
        retry_budget,
    } = threshold;
    let mut errors = Errors::new();
    let priority = fields::enumeration::<core::RoutingPriority>(priority).at("priority");
    let priority = errors.take(priority);
    for (field, is_set) in [
        ("max_pending_requests", max_pending_requests.is_some()),
        ("max_requests", max_requests.is_some()),
        ("max_retries", max_retries.is_some()),
        ("track_remaining", track_remaining),
        ("max_connection_pools", max_connection_pools.is_some()),
        ("retry_budget", retry_budget.is_some()),
    ] {
        if is_set {
            let text = "a host has a limit of its own for max_connections only";
            errors.push(field, Fault::unsupported(text));
        }
    }
    errors.finish()?;
    Ok((priority.unwrap_or_default(), max_connections.unwrap_or(u32::MAX)))
}

fn budget(proto: proto::circuit_breakers::thresholds::RetryBudget) -> Result<RetryBudget, Errors> {
    let proto::circuit_breakers::thresholds::RetryBudget { budget_percent, min_retry_concurrency } =
        proto;
    let default = RetryBudget::default();
    let percent = budget_percent.map_or(default.percent, |percent| percent.value);
    if !(0.0..=100.0).contains(&percent) {
        let fault = Fault::out_of_range(percent, "in 0..=100");
        return Err(Errors::from(fault).at("budget_percent"));
    }
    let min_concurrency = min_retry_concurrency.unwrap_or(default.min_concurrency);
    Ok(RetryBudget { percent, min_concurrency })
}
