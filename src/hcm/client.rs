//! Who the client is, where it speaks through others: `use_remote_address`, `xff_num_trusted_hops` and
//! `original_ip_detection_extensions`.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::exchange::headers::X_FORWARDED_FOR;
use crate::exchange::{Client, LocalReply};

/// Where a client's address is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detection {
    /// In `X-Forwarded-For`, so many addresses from the right.
    ForwardedFor(u32),
    /// In a header.
    Header {
        /// Its name.
        name: HeaderName,
        /// The answer if no address is there.
        reject: Option<StatusCode>,
    },
}

/// The address that the first of these finds; none if the client is the peer of the connection.
///
/// # Errors
/// The answer of one that finds nothing and wants none to pass.
pub(super) fn detect(
    among: &[Detection],
    headers: &HeaderMap,
) -> Result<Option<Box<Client>>, LocalReply> {
    for detection in among {
        let found = match detection {
            Detection::ForwardedFor(hops) => forwarded_for(headers, *hops),
            Detection::Header { name, .. } => {
                headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse().ok())
            }
        };
        match (found, detection) {
            (Some(ip), _) => return Ok(client(ip)),
            (None, Detection::Header { reject: Some(status), .. }) => {
                let details = "rejecting_because_detection_failed";
                return Err(LocalReply::new(*status, details, ""));
            }
            (None, _) => {}
        }
    }
    Ok(None)
}

fn forwarded_for(headers: &HeaderMap, hops: u32) -> Option<IpAddr> {
    // What comes later was appended later.
    let mut lists = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let list = lists.next()?.to_str().ok()?;
    list.rsplit(',').nth(usize::try_from(hops).ok()?)?.trim().parse().ok()
}

fn client(ip: IpAddr) -> Option<Box<Client>> {
    let text = HeaderValue::try_from(ip.to_string()).ok()?;
    Some(Box::new(Client { address: SocketAddr::new(ip, 0), ip: text }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(among: &[Detection], of: &[(&'static str, &str)]) -> Result<String, StatusCode> {
        let headers: HeaderMap = of
            .iter()
            .map(|(n, v)| (n.parse::<HeaderName>().unwrap(), v.parse().unwrap()))
            .collect();
        let found = detect(among, &headers).map_err(|reply| reply.status())?;
        Ok(found.map_or_else(String::new, |client| client.address.to_string()))
    }

    #[test]
    fn the_client_is_where_the_proxies_that_are_trusted_end() {
        let list = &[("x-forwarded-for", "3.3.3.3, ::1,2.2.2.2 , 1.1.1.1")][..];
        for (hops, address) in [(0, "1.1.1.1:0"), (1, "2.2.2.2:0"), (2, "[::1]:0"), (4, "")] {
            assert_eq!(found(&[Detection::ForwardedFor(hops)], list).unwrap(), address, "{hops}");
        }
        for odd in [&[][..], &[("x-forwarded-for", "unknown")], &[("x-forwarded-for", "")]] {
            assert_eq!(found(&[Detection::ForwardedFor(0)], odd).unwrap(), "");
        }
    }

    #[test]
    fn a_header_says_it_or_the_request_is_refused() {
        let name = HeaderName::from_static("x-real-ip");
        let header = |reject| Detection::Header { name: name.clone(), reject };
        let strict = [header(Some(StatusCode::FORBIDDEN))];
        assert_eq!(found(&strict, &[("x-real-ip", "7.7.7.7")]).unwrap(), "7.7.7.7:0");
        assert_eq!(found(&strict, &[("x-real-ip", "me")]), Err(StatusCode::FORBIDDEN));
        assert_eq!(found(&strict, &[]), Err(StatusCode::FORBIDDEN));
        let lax = [header(None), Detection::ForwardedFor(0)];
        assert_eq!(found(&lax, &[("x-forwarded-for", "1.1.1.1")]).unwrap(), "1.1.1.1:0");
    }
}
