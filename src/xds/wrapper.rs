//! Takes resources out of the `Any` and `Resource` they travel in.
//!
//! Every delta resource is in a `Resource`; a state-of-the-world one may be, since we advertise
//! that we unwrap it. What does not fit is a [`Rejection`] and spares the resources beside it.

use std::time::Duration;

use prost::Message;
use prost_types::Any;

use super::types::{Rejection, ResourceType};
use crate::proto::envoy::service::discovery::v3 as discovery;

const WRAPPER_URL: &str = "type.googleapis.com/envoy.service.discovery.v3.Resource";

/// A resource out of its wrapper.
#[derive(Debug, PartialEq)]
pub(super) struct Unwrapped {
    /// Empty for a bare state-of-the-world resource, and where the server left it out.
    pub(super) name: String,
    pub(super) version: String,
    /// None in a heartbeat.
    pub(super) body: Option<Any>,
    pub(super) ttl: Option<Duration>,
    /// Other names under which it may have been subscribed to.
    pub(super) aliases: Vec<String>,
    pub(super) wrapped: bool,
}

/// A resource of a state-of-the-world response, the one at `index`.
pub(super) fn open_any(ty: ResourceType, index: usize, any: Any) -> Result<Unwrapped, Rejection> {
    if any.type_url == WRAPPER_URL {
        return match discovery::Resource::decode(any.value.as_slice()) {
            Ok(wrapper) => open(ty, index, wrapper),
            Err(error) => {
                Err(refuse("", index, format_args!("the Resource wrapper is damaged: {error}")))
            }
        };
    }
    expect_type(ty, "", index, &any)?;
    Ok(Unwrapped {
        name: String::new(),
        version: String::new(),
        body: Some(any),
        ttl: None,
        aliases: Vec::new(),
        wrapped: false,
    })
}

/// A resource in its wrapper, the one at `index` of a response.
pub(super) fn open(
    ty: ResourceType,
    index: usize,
    wrapper: discovery::Resource,
) -> Result<Unwrapped, Rejection> {
    let discovery::Resource {
        version,
        resource,
        name,
        aliases,
        ttl,
        // Advice to caches between server and client; a client keeps what it was given.
        cache_control: _,
        resource_name,
    } = wrapper;
    let name = match resource_name {
        Some(discovery::ResourceName { name: long, dynamic_parameter_constraints: _ })
            if name.is_empty() =>
        {
            long
        }
        _ => name,
    };
    if let Some(body) = &resource {
        expect_type(ty, &name, index, body)?;
    }
    let ttl = match ttl.map(Duration::try_from) {
        None => None,
        Some(Ok(ttl)) if !ttl.is_zero() => Some(ttl),
        Some(_) => {
            return Err(refuse(&name, index, format_args!("ttl must be longer than zero")));
        }
    };
    if ttl.is_some() && name.is_empty() {
        return Err(refuse("", index, format_args!("a resource with a ttl needs a name")));
    }
    Ok(Unwrapped { name, version, body: resource, ttl, aliases, wrapped: true })
}

/// A rejection that says where in the response the resource stood.
pub(super) fn refuse(name: &str, index: usize, reason: std::fmt::Arguments<'_>) -> Rejection {
    Rejection { name: name.to_owned(), error: format!("resources[{index}]: {reason}") }
}

fn expect_type(ty: ResourceType, name: &str, index: usize, any: &Any) -> Result<(), Rejection> {
    if any.type_url == ty.type_url() {
        return Ok(());
    }
    let (found, expected) = (&any.type_url, ty.type_url());
    Err(refuse(name, index, format_args!("type URL is {found:?}, expected {expected:?}")))
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn cluster(value: &[u8]) -> Any {
        Any { type_url: ResourceType::Cluster.type_url().into(), value: value.to_vec() }
    }

    fn wrap(resource: discovery::Resource) -> Any {
        Any { type_url: WRAPPER_URL.into(), value: resource.encode_to_vec() }
    }

    #[test]
    fn bare_and_wrapped_resources_are_opened() {
        let bare = open_any(ResourceType::Cluster, 0, cluster(b"x")).unwrap();
        assert_eq!((bare.name.as_str(), bare.body), ("", Some(cluster(b"x"))));
        let wrapped = wrap(discovery::Resource {
            name: "a".into(),
            version: "7".into(),
            resource: Some(cluster(b"x")),
            ttl: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
            ..Default::default()
        });
        let wrapped = open_any(ResourceType::Cluster, 0, wrapped).unwrap();
        assert_eq!((wrapped.name.as_str(), wrapped.version.as_str()), ("a", "7"));
        assert_eq!(wrapped.body, Some(cluster(b"x")));
        assert_eq!(wrapped.ttl, Some(Duration::from_secs(3)));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place_and_reason() {
        let other = |name: &str| discovery::Resource {
            name: name.into(),
            resource: Some(cluster(b"")),
            ttl: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            ..Default::default()
        };
        let cases = [
            (ResourceType::Listener, cluster(b""), "expected"),
            (ResourceType::Listener, wrap(other("a")), "expected"),
            (ResourceType::Cluster, wrap(other("a")), "ttl must be longer than zero"),
            (
                ResourceType::Cluster,
                Any { type_url: WRAPPER_URL.into(), value: vec![255] },
                "wrapper is damaged",
            ),
        ];
        for (ty, any, expected) in cases {
            let error = open_any(ty, 4, any).unwrap_err().error;
            assert!(error.starts_with("resources[4]: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_resource_name_message_stands_in_for_the_name() {
        let long = discovery::ResourceName { name: "long".into(), ..Default::default() };
        let wrapper = discovery::Resource { resource_name: Some(long), ..Default::default() };
        assert_eq!(open(ResourceType::Cluster, 0, wrapper).unwrap().name, "long");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut rng = SmallRng::seed_from_u64(11);
        let good = wrap(discovery::Resource {
            name: "a".into(),
            aliases: vec!["b".into()],
            resource: Some(cluster(b"x")),
            ttl: Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MIN }),
            ..Default::default()
        });
        for _ in 0..20_000 {
            let mut bad = good.clone();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bad.value.len());
                bad.value[at] = rng.random();
            }
            bad.value.truncate(rng.random_range(1..=bad.value.len()));
            drop(open_any(ResourceType::Cluster, 0, bad));
        }
    }
}
