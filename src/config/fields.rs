//! Value forms that many messages share: durations, ports, addresses, required fields.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Errors, Fault, OrFault};
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::r#type::v3::FractionalPercent;

/// A message that must be present.
pub fn required<T>(value: Option<T>) -> Result<T, Errors> {
    value.ok_or_else(|| Fault::Required.into())
}

/// A string that must not be empty.
pub fn non_empty(value: &str) -> Result<Arc<str>, Errors> {
    if value.is_empty() { Err(Fault::Required.into()) } else { Ok(value.into()) }
}

/// A duration that must not be negative. A proto duration may be as long as 10,000 years.
pub fn duration(value: &prost_types::Duration) -> Result<Duration, Errors> {
    let fault = || Fault::out_of_range(format_duration(value), "a duration of 0 s or more");
    let seconds = u64::try_from(value.seconds).map_err(|_negative| fault())?;
    let nanos = u32::try_from(value.nanos).map_err(|_negative| fault())?;
    if nanos > 999_999_999 {
        return Err(fault().into());
    }
    // Timers add durations to clocks; three hundred years is for ever and cannot overflow one.
    Ok(Duration::new(seconds, nanos).min(Duration::from_secs(300 * 365 * 86_400)))
}

/// A duration that must be longer than zero.
pub fn positive_duration(value: &prost_types::Duration) -> Result<Duration, Errors> {
    match duration(value)? {
        Duration::ZERO => Err(Fault::out_of_range("0s", "a duration longer than 0 s").into()),
        duration => Ok(duration),
    }
}

fn format_duration(value: &prost_types::Duration) -> String {
    if value.nanos == 0 {
        format!("{}s", value.seconds)
    } else {
        format!("{} s and {} ns", value.seconds, value.nanos)
    }
}

/// A number that must lie in `range`.
pub fn in_range(value: u32, range: std::ops::RangeInclusive<u32>) -> Result<u32, Errors> {
    if range.contains(&value) {
        return Ok(value);
    }
    Err(Fault::out_of_range(value, format!("in {}..={}", range.start(), range.end())).into())
}

/// A fraction's numerator and denominator. The first may be the larger.
pub fn fraction(fraction: &FractionalPercent) -> Result<(u32, u32), Errors> {
    use crate::proto::envoy::r#type::v3::fractional_percent::DenominatorType;
    let FractionalPercent { numerator, denominator } = *fraction;
    let denominator = match enumeration::<DenominatorType>(denominator).at("denominator")? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok((numerator, denominator))
}

/// A fraction in parts of a million, at most all of them.
pub fn per_million(message: &FractionalPercent) -> Result<u32, Errors> {
    let (numerator, denominator) = fraction(message)?;
    Ok(numerator.saturating_mul(1_000_000 / denominator).min(1_000_000))
}

/// A port; 0 lets the system choose where that makes sense.
pub fn port(value: u32) -> Result<u16, Errors> {
    u16::try_from(value)
        .map_err(|_wide| Fault::out_of_range(format!("port {value}"), "in 0..=65535").into())
}

/// An enum value that the API declares.
pub fn enumeration<E: TryFrom<i32>>(value: i32) -> Result<E, Errors> {
    E::try_from(value)
        .map_err(|_unknown| Fault::out_of_range(value, "a value that the API declares").into())
}

/// The host and port of an address; the host may be a name.
pub fn host_port(address: &core::Address) -> Result<(Arc<str>, u16), Errors> {
    use core::address::Address as Kind;
    let core::Address { address } = address;
    match address {
        None => Err(Fault::Required.into()),
        Some(Kind::SocketAddress(socket)) => socket_host_port(socket).at("socket_address"),
    }
}

fn socket_host_port(socket: &core::SocketAddress) -> Result<(Arc<str>, u16), Errors> {
    let core::SocketAddress { protocol, address, port_specifier } = socket;
    let mut errors = Errors::new();
    if errors.take(enumeration::<core::socket_address::Protocol>(*protocol).at("protocol"))
        == Some(core::socket_address::Protocol::Udp)
    {
        errors.push("protocol", Fault::unsupported("UDP is not supported"));
    }
    let host = errors.take(non_empty(address).at("address"));
    let port = match port_specifier {
        Some(core::socket_address::PortSpecifier::PortValue(value)) => {
            errors.take(port(*value).at("port_value"))
        }
        None => {
            errors.push("port_value", Fault::Required);
            None
        }
    };
    match (host, port) {
        (Some(host), Some(port)) if errors.is_empty() => Ok((host, port)),
        _ => Err(errors),
    }
}

/// An address whose host is an IP address.
pub fn socket_addr(address: &core::Address) -> Result<SocketAddr, Errors> {
    let (host, port) = host_port(address)?;
    let ip: IpAddr = host.parse().map_err(|_name| {
        Errors::from(Fault::invalid(format!("{host:?}"), "malformed IP address"))
            .at("socket_address.address")
    })?;
    Ok(SocketAddr::new(ip, port))
}

/// The bytes of a data source; a file is read now.
pub fn data_source(source: &core::DataSource) -> Result<Vec<u8>, Errors> {
    use core::data_source::Specifier;
    let core::DataSource { specifier } = source;
    match specifier {
        None => Err(Fault::Required.into()),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::Filename(name)) => std::fs::read(PathBuf::from(name)).map_err(|e| {
            let action = format!("reading {name:?}");
            Errors::from(Fault::System { action, reason: e.to_string() }).at("filename")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_durations_are_out_of_range() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, 1_000_000_000)] {
            let fault = duration(&prost_types::Duration { seconds, nanos }).unwrap_err();
            assert!(fault.to_string().ends_with("is not a duration of 0 s or more"), "{fault}");
        }
        let long = prost_types::Duration { seconds: i64::MAX, nanos: 0 };
        assert!(duration(&long).unwrap() < Duration::from_secs(u64::MAX / 2));
    }

    #[test]
    fn host_names_are_not_socket_addresses() {
        let address = core::Address {
            address: Some(core::address::Address::SocketAddress(core::SocketAddress {
                address: "not-an-ip".into(),
                port_specifier: Some(core::socket_address::PortSpecifier::PortValue(80)),
                ..Default::default()
            })),
        };
        assert_eq!(
            socket_addr(&address).unwrap_err().to_string(),
            "socket_address.address: \"not-an-ip\": malformed IP address"
        );
        assert_eq!(host_port(&address).unwrap(), ("not-an-ip".into(), 80));
    }
}
