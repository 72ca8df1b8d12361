//! Ranges of IP addresses: `config.core.v3.CidrRange`.

use std::net::{IpAddr, Ipv6Addr};

use super::{Errors, Fault, OrFault, fields};
use crate::proto::envoy::config::core::v3 as core;

/// A range of IP addresses. IPv4 addresses are those that are mapped into IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    network: u128,
    mask: u128,
}

impl AddressRange {
    /// Compiles one; its prefix length is 0 to 32 for IPv4, 0 to 128 for IPv6, and 0 unless set.
    ///
    /// # Errors
    /// What is no address, or longer than an address.
    pub fn compile(range: &core::CidrRange) -> Result<Self, Errors> {
        let core::CidrRange { address_prefix, prefix_len } = range;
        let address: IpAddr = address_prefix.parse().map_err(|_not_one| {
            let fault = Fault::out_of_range(format!("{address_prefix:?}"), "an IP address");
            Errors::from(fault).at("address_prefix")
        })?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let length = fields::in_range(prefix_len.unwrap_or_default(), 0..=longest);
        let length = length.at("prefix_len")? + (128 - longest);
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or_default();
        Ok(Self { network: number(address) & mask, mask })
    }

    /// Whether an address is one of them.
    pub fn holds(self, address: IpAddr) -> bool {
        number(address) & self.mask == self.network
    }
}

fn number(address: IpAddr) -> u128 {
    let mapped: Ipv6Addr = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    mapped.to_bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(address: &str, length: u32) -> Result<AddressRange, Errors> {
        let (address_prefix, prefix_len) = (address.to_owned(), Some(length));
        AddressRange::compile(&core::CidrRange { address_prefix, prefix_len })
    }

    #[test]
    fn addresses_are_in_a_range_by_their_first_bits() {
        let holds = |address: &str, length: u32, other: &str| {
            range(address, length).unwrap().holds(other.parse().unwrap())
        };
        assert!(holds("10.1.2.3", 8, "10.200.0.1") && !holds("10.0.0.0", 8, "11.0.0.1"));
        assert!(holds("10.0.0.0", 8, "::ffff:10.0.0.1"));
        assert!(holds("0.0.0.0", 0, "1.2.3.4") && !holds("0.0.0.0", 0, "::1"));
        assert!(holds("::", 0, "::1") && holds("::1", 128, "::1") && !holds("::1", 128, "::2"));
        assert!(range("10.0.0.0", 33).is_err() && range("x", 8).is_err());
    }
}
