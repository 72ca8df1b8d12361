//! `config.route.v3.RetryPolicy` to [`RetryPolicy`].

use std::sync::Arc;
use std::time::Duration;

use crate::config::matcher::{HeaderMatcher, header_name};
use crate::config::metadata::LB;
use crate::config::{Errors, Fault, OrFault, fields};
use crate::proto::any::{UnpackError, effective_type, unpack};
use crate::proto::envoy::config::core::v3::Metadata;
use crate::proto::envoy::config::route::v3 as proto;
use crate::proto::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use crate::proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use crate::route::policy::{
    Avoid, BackOff, BodyLimit, RateLimited, ResetHeader, RetryOn, RetryPolicy,
};

const PREVIOUS_HOSTS: &str = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
const OMIT_CANARY_HOSTS: &str =
    "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate";
const PREVIOUS_PRIORITIES: &str =
    "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig";
const OMIT_HOST_METADATA: &str =
    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig";

/// The limit that a level sets, if it does.
pub(super) fn body_limit(per_request: Option<u32>, body: Option<u64>) -> Option<BodyLimit> {
    body.map(BodyLimit::Own).or(per_request.map(BodyLimit::AtMost))
}

/// Compiles a policy.
pub(super) fn compile(policy: proto::RetryPolicy) -> Result<Arc<RetryPolicy>, Errors> {
    let proto::RetryPolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        retry_host_predicate,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        retriable_headers,
        retriable_request_headers,
        rate_limited_retry_back_off,
        retry_priority,
        per_try_idle_timeout,
    } = policy;
    let mut errors = Errors::new();
    let on = errors.take(conditions(&retry_on).at("retry_on")).unwrap_or_default();
    let per_try = per_try_timeout.as_ref().map(fields::duration).transpose().at("per_try_timeout");
    let per_try_timeout = errors.take(per_try).flatten().filter(|timeout| !timeout.is_zero());
    let idle = per_try_idle_timeout.as_ref().map(fields::duration).transpose();
    let idle = errors.take(idle.at("per_try_idle_timeout")).flatten();
    let previous_priorities = retry_priority.map(priority).transpose().at("retry_priority");
    let previous_priorities = errors.take(previous_priorities).flatten();
    let mut avoid = Avoid::default();
    for (i, predicate) in retry_host_predicate.iter().enumerate() {
        let added = host_predicate(predicate, &mut avoid);
        errors.take(added.index(i).at("retry_host_predicate"));
    }
    let attempts = host_selection_retry_max_attempts;
    let host_selection_attempts = match u32::try_from(attempts) {
        Ok(0) => 1,
        Ok(attempts) => attempts,
        Err(_out) => {
            let fault = Fault::out_of_range(attempts, format!("in 0..={}", u32::MAX));
            errors.push("host_selection_retry_max_attempts", fault);
            1
        }
    };
    let code = |(i, code): (usize, &u32)| {
        fields::in_range(*code, 100..=599)
            .map(|code| u16::try_from(code).unwrap_or(u16::MAX))
            .index(i)
            .at("retriable_status_codes")
    };
    let status_codes = retriable_status_codes.iter().enumerate().map(code);
    let status_codes = status_codes.filter_map(|code| errors.take(code)).collect();
    let headers = errors.take(matchers(&retriable_headers).at("retriable_headers"));
    let request_headers = matchers(&retriable_request_headers).at("retriable_request_headers");
    let request_headers = errors.take(request_headers);
    let back_off = retry_back_off.map(back_off).transpose().at("retry_back_off");
    let back_off = errors.take(back_off).flatten().unwrap_or_default();
    let rate_limited = rate_limited_retry_back_off.map(rate_limited).transpose();
    let rate_limited = errors.take(rate_limited.at("rate_limited_retry_back_off")).flatten();
    errors.finish()?;
    Ok(Arc::new(RetryPolicy {
        on,
        num_retries: num_retries.unwrap_or(1),
        per_try_timeout,
        per_try_idle_timeout: idle.filter(|timeout| !timeout.is_zero()),
        previous_priorities,
        avoid,
        host_selection_attempts,
        status_codes,
        headers: headers.unwrap_or_default(),
        request_headers: request_headers.unwrap_or_default(),
        back_off,
        rate_limited,
    }))
}

fn conditions(list: &str) -> Result<RetryOn, Errors> {
    let mut errors = Errors::new();
    let mut on = RetryOn::default();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match RetryOn::http(name).or_else(|| RetryOn::grpc(name)) {
            Some(condition) => on |= condition,
            None => {
                errors.push("", Fault::invalid(format!("{name:?}"), "not a condition to retry on"));
            }
        }
    }
    errors.finish().map(|()| on)
}

fn matchers(matchers: &[proto::HeaderMatcher]) -> Result<Box<[HeaderMatcher]>, Errors> {
    let mut errors = Errors::new();
    let compiled = matchers.iter().enumerate().map(|(i, m)| HeaderMatcher::compile(m).index(i));
    let compiled = compiled.filter_map(|matcher| errors.take(matcher)).collect();
    errors.finish().map(|()| compiled)
}

fn undecodable(error: UnpackError) -> Fault {
    Fault::Undecodable(error.to_string())
}

fn host_predicate(
    predicate: &proto::retry_policy::RetryHostPredicate,
    avoid: &mut Avoid,
) -> Result<(), Errors> {
    let proto::retry_policy::RetryHostPredicate { name: _, config_type } = predicate;
    let Some(proto::retry_policy::retry_host_predicate::ConfigType::TypedConfig(config)) =
        config_type
    else {
        return Err(Errors::from(Fault::Required).at("typed_config"));
    };
    match &*effective_type(config).map_err(undecodable).at("typed_config")? {
        PREVIOUS_HOSTS => avoid.previous = true,
        OMIT_CANARY_HOSTS => avoid.canaries = true,
        OMIT_HOST_METADATA => {
            let OmitHostMetadataConfig { metadata_match } =
                unpack(config).map_err(undecodable).at("typed_config")?;
            // Typed metadata is for extensions that read it; there is none.
            let Metadata { mut filter_metadata, typed_filter_metadata: _ } =
                metadata_match.unwrap_or_default();
            // Without anything to look for no host is like it.
            if let Some(fields) = filter_metadata.remove(LB).map(|of| of.fields)
                && !fields.is_empty()
            {
                avoid.metadata.push(fields);
            }
        }
        other => return Err(Fault::UnknownExtension(other.to_owned())).at("typed_config"),
    }
    Ok(())
}

/// How often the priorities that were tried are left out anew.
fn priority(proto: proto::retry_policy::RetryPriority) -> Result<u32, Errors> {
    let proto::retry_policy::RetryPriority { name: _, config_type } = proto;
    let Some(proto::retry_policy::retry_priority::ConfigType::TypedConfig(config)) = config_type
    else {
        return Err(Errors::from(Fault::Required).at("typed_config"));
    };
    let kind = effective_type(&config).map_err(undecodable).at("typed_config")?;
    if kind != PREVIOUS_PRIORITIES {
        return Err(Fault::UnknownExtension(kind.into_owned())).at("typed_config");
    }
    let PreviousPrioritiesConfig { update_frequency } =
        unpack(&config).map_err(undecodable).at("typed_config")?;
    match u32::try_from(update_frequency) {
        Ok(frequency) if frequency > 0 => Ok(frequency),
        _ => {
            let fault = Fault::out_of_range(update_frequency, "1 or more");
            Err(Errors::from(fault).at("update_frequency").at("typed_config"))
        }
    }
}

fn back_off(proto: proto::retry_policy::RetryBackOff) -> Result<BackOff, Errors> {
    let proto::retry_policy::RetryBackOff { base_interval, max_interval } = proto;
    let least = |interval: Duration| interval.max(Duration::from_millis(1));
    let base = fields::required(base_interval)
        .and_then(|base| fields::positive_duration(&base))
        .map(least)
        .at("base_interval")?;
    let max = max_interval.as_ref().map(fields::positive_duration).transpose();
    let max = max.at("max_interval")?.map_or(base.saturating_mul(10), least);
    if max < base {
        let fault = Fault::Conflict("must not be less than base_interval".into());
        return Err(Errors::from(fault).at("max_interval"));
    }
    Ok(BackOff { base, max })
}

fn rate_limited(
    proto: proto::retry_policy::RateLimitedRetryBackOff,
) -> Result<RateLimited, Errors> {
    use proto::retry_policy::ResetHeaderFormat;
    let proto::retry_policy::RateLimitedRetryBackOff { reset_headers, max_interval } = proto;
    let mut errors = Errors::new();
    if reset_headers.is_empty() {
        errors.push("reset_headers", Fault::Required);
    }
    let mut headers = Vec::with_capacity(reset_headers.len());
    for (i, header) in reset_headers.iter().enumerate() {
        let proto::retry_policy::ResetHeader { name, format } = header;
        let name = errors.take(header_name(name).at("name").index(i).at("reset_headers"));
        let format = fields::enumeration::<ResetHeaderFormat>(*format);
        let format = errors.take(format.at("format").index(i).at("reset_headers"));
        if let (Some(name), Some(format)) = (name, format) {
            let timestamp = format == ResetHeaderFormat::UnixTimestamp;
            headers.push(ResetHeader { name, timestamp });
        }
    }
    let max = max_interval.as_ref().map(fields::positive_duration).transpose().at("max_interval");
    let max = errors.take(max).flatten().unwrap_or(Duration::from_secs(300));
    errors.finish()?;
    Ok(RateLimited { headers: headers.into(), max })
}
