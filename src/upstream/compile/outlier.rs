//! `config.cluster.v3.OutlierDetection` to [`OutlierConfig`].

use std::time::Duration;

use crate::config::{Errors, OrFault, fields};
use crate::proto::envoy::config::cluster::v3 as proto;
use crate::upstream::outlier::{Enforcing, OutlierConfig};

pub(super) fn compile(proto: proto::OutlierDetection) -> Result<OutlierConfig, Errors> {
    let proto::OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        always_eject_one_host,
    } = proto;
    let mut errors = Errors::new();
    let default = OutlierConfig::default();
    let mut positive = |value: Option<prost_types::Duration>, field: &'static str| {
        value.and_then(|value| errors.take(fields::positive_duration(&value).at(field)))
    };
    let interval = positive(interval, "interval").unwrap_or(default.interval);
    let base = positive(base_ejection_time, "base_ejection_time");
    let base_ejection_time = base.unwrap_or(default.base_ejection_time);
    let max = positive(max_ejection_time, "max_ejection_time");
    // The base counts if it is the longer one.
    let max_ejection_time = max.unwrap_or(default.max_ejection_time).max(base_ejection_time);
    let jitter = max_ejection_time_jitter
        .and_then(|jitter| errors.take(fields::duration(&jitter).at("max_ejection_time_jitter")));
    let mut percent = |value: Option<u32>, default: u32, field: &'static str| match value {
        None => default,
        Some(value) => errors.take(fields::in_range(value, 0..=100).at(field)).unwrap_or(default),
    };
    let of = default.enforcing;
    let enforcing = Enforcing {
        consecutive_5xx: percent(
            enforcing_consecutive_5xx,
            of.consecutive_5xx,
            "enforcing_consecutive_5xx",
        ),
        consecutive_gateway_failure: percent(
            enforcing_consecutive_gateway_failure,
            of.consecutive_gateway_failure,
            "enforcing_consecutive_gateway_failure",
        ),
        consecutive_local_origin_failure: percent(
            enforcing_consecutive_local_origin_failure,
            of.consecutive_local_origin_failure,
            "enforcing_consecutive_local_origin_failure",
        ),
        success_rate: percent(enforcing_success_rate, of.success_rate, "enforcing_success_rate"),
        local_origin_success_rate: percent(
            enforcing_local_origin_success_rate,
            of.local_origin_success_rate,
            "enforcing_local_origin_success_rate",
        ),
        failure_percentage: percent(
            enforcing_failure_percentage,
            of.failure_percentage,
            "enforcing_failure_percentage",
        ),
        failure_percentage_local_origin: percent(
            enforcing_failure_percentage_local_origin,
            of.failure_percentage_local_origin,
            "enforcing_failure_percentage_local_origin",
        ),
    };
    let max_ejection_percent =
        percent(max_ejection_percent, default.max_ejection_percent, "max_ejection_percent");
    let failure_percentage_threshold = percent(
        failure_percentage_threshold,
        default.failure_percentage_threshold,
        "failure_percentage_threshold",
    );
    errors.finish()?;
    Ok(OutlierConfig {
        interval,
        base_ejection_time,
        max_ejection_time,
        max_ejection_time_jitter: jitter.unwrap_or(Duration::ZERO),
        max_ejection_percent,
        always_eject_one_host: always_eject_one_host.unwrap_or(default.always_eject_one_host),
        health_check_lets_back: successful_active_health_check_uneject_host
            .unwrap_or(default.health_check_lets_back),
        split: split_external_local_origin_errors,
        consecutive_5xx: consecutive_5xx.unwrap_or(default.consecutive_5xx),
        consecutive_gateway_failure: consecutive_gateway_failure
            .unwrap_or(default.consecutive_gateway_failure),
        consecutive_local_origin_failure: consecutive_local_origin_failure
            .unwrap_or(default.consecutive_local_origin_failure),
        success_rate_minimum_hosts: success_rate_minimum_hosts
            .unwrap_or(default.success_rate_minimum_hosts),
        success_rate_request_volume: success_rate_request_volume
            .unwrap_or(default.success_rate_request_volume),
        success_rate_stdev_factor: success_rate_stdev_factor
            .unwrap_or(default.success_rate_stdev_factor),
        failure_percentage_threshold,
        failure_percentage_minimum_hosts: failure_percentage_minimum_hosts
            .unwrap_or(default.failure_percentage_minimum_hosts),
        failure_percentage_request_volume: failure_percentage_request_volume
            .unwrap_or(default.failure_percentage_request_volume),
        enforcing,
    })
}
