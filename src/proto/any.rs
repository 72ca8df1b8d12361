//! `google.protobuf.Any` to message and back.
//!
//! Wherever a message of some type is expected, its JSON form in a `TypedStruct` is accepted too,
//! so that a control plane without the type can still send it. What the JSON form says that we do
//! not declare is not looked for here: [`audit`](super::audit) reports it.

use std::borrow::Cow;

use prost::{Message, Name};
use prost_types::Any;

use super::json::{self, JsonError};
use super::xds::r#type::v3::TypedStruct;

/// Why an `Any` is not the message that was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// It holds a message of another type.
    #[error("expected {expected}, found {}", if found.is_empty() { "no type_url" } else { found })]
    WrongType {
        /// Full name of the type that was asked for.
        expected: String,
        /// Full name of the type it holds; empty when the `Any` is empty.
        found: String,
    },
    /// The bytes are not a message of the type that its URL names.
    #[error("not a valid {type_name}: {source}")]
    Undecodable {
        /// Full name of the type that could not be decoded.
        type_name: String,
        /// What is wrong with the bytes.
        #[source]
        source: prost::DecodeError,
    },
    /// A `TypedStruct` holds no JSON form of the type that its URL names.
    #[error("TypedStruct is not a valid {type_name}: {source}")]
    TypedStruct {
        /// Full name of the type in the `TypedStruct`.
        type_name: String,
        /// The fields at fault, by path.
        #[source]
        source: JsonError,
    },
}

/// The full name of the message type in a type URL: what follows the last `/`.
pub fn type_name(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Whether the name is one of the two spellings of `TypedStruct`.
pub(super) fn is_typed_struct(type_name: &str) -> bool {
    matches!(type_name, "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct")
}

/// The full name of the type that an `Any` really holds: for a `TypedStruct` the one it describes.
///
/// # Errors
/// [`UnpackError::Undecodable`] when a `TypedStruct` cannot be decoded.
pub fn effective_type(any: &Any) -> Result<Cow<'_, str>, UnpackError> {
    let name = type_name(&any.type_url);
    if !is_typed_struct(name) {
        return Ok(Cow::Borrowed(name));
    }
    let typed: TypedStruct = decode(&any.value)?;
    Ok(Cow::Owned(type_name(&typed.type_url).to_owned()))
}

/// The message in an `Any`, given as itself or as a `TypedStruct`.
///
/// # Errors
/// When it is of another type or its bytes or JSON form are not valid.
pub fn unpack<T: Message + Name + Default>(any: &Any) -> Result<T, UnpackError> {
    let found = type_name(&any.type_url);
    if found == T::full_name() {
        return decode(&any.value);
    }
    if !is_typed_struct(found) {
        return Err(wrong_type::<T>(found));
    }
    let typed: TypedStruct = decode(&any.value)?;
    let found = type_name(&typed.type_url);
    if found != T::full_name() {
        return Err(wrong_type::<T>(found));
    }
    let value = json::struct_to_json(typed.value.unwrap_or_default());
    let decoded = json::from_json::<T>(value)
        .map_err(|source| UnpackError::TypedStruct { type_name: T::full_name(), source })?;
    Ok(decoded.message)
}

/// A message as an `Any`, its URL under `type.googleapis.com`.
pub fn pack<T: Message + Name>(message: &T) -> Any {
    Any { type_url: T::type_url(), value: message.encode_to_vec() }
}

fn decode<T: Message + Name + Default>(bytes: &[u8]) -> Result<T, UnpackError> {
    T::decode(bytes)
        .map_err(|source| UnpackError::Undecodable { type_name: T::full_name(), source })
}

fn wrong_type<T: Name>(found: &str) -> UnpackError {
    UnpackError::WrongType { expected: T::full_name(), found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::proto::envoy::config::cluster::v3::{Cluster, cluster};
    use crate::proto::udpa;

    fn typed(type_url: &str, value: serde_json::Value) -> Any {
        let value = Some(json::json_to_struct(value.as_object().unwrap()));
        pack(&TypedStruct { type_url: type_url.to_owned(), value })
    }

    #[test]
    fn a_packed_message_is_unpacked() {
        let cluster = Cluster { name: "users".to_owned(), ..Cluster::default() };
        let any = pack(&cluster);
        assert_eq!(any.type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
        assert_eq!(unpack::<Cluster>(&any).unwrap(), cluster);
        assert_eq!(effective_type(&any).unwrap(), "envoy.config.cluster.v3.Cluster");
    }

    #[test]
    fn nested_types_are_known_by_their_full_name() {
        let any = pack(&cluster::RefreshRate::default());
        assert!(unpack::<cluster::RefreshRate>(&any).is_ok());
        let error = unpack::<Cluster>(&any).unwrap_err().to_string();
        assert_eq!(
            error,
            "expected envoy.config.cluster.v3.Cluster, \
             found envoy.config.cluster.v3.Cluster.RefreshRate"
        );
        let error = unpack::<Cluster>(&Any::default()).unwrap_err().to_string();
        assert_eq!(error, "expected envoy.config.cluster.v3.Cluster, found no type_url");
    }

    #[test]
    fn a_typed_struct_stands_for_the_type_it_names() {
        let url = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let value = json!({"name": "users", "connectTimeout": "0.25s", "lb_policy": "RANDOM",
            "max_requests_per_connection": 5});
        let any = typed(url, value.clone());
        assert_eq!(effective_type(&any).unwrap(), "envoy.config.cluster.v3.Cluster");
        let cluster: Cluster = unpack(&any).unwrap();
        assert_eq!(cluster.name, "users");
        assert_eq!(cluster.connect_timeout.unwrap().nanos, 250_000_000);
        assert_eq!(cluster.max_requests_per_connection, Some(5));

        let older = udpa::r#type::v1::TypedStruct {
            type_url: url.to_owned(),
            value: Some(json::json_to_struct(value.as_object().unwrap())),
        };
        assert_eq!(unpack::<Cluster>(&pack(&older)).unwrap(), cluster);
        assert!(matches!(
            unpack::<cluster::RefreshRate>(&any),
            Err(UnpackError::WrongType { found, .. }) if found == "envoy.config.cluster.v3.Cluster"
        ));
    }

    #[test]
    fn a_faulty_typed_struct_names_the_field() {
        let any = typed(
            "x/envoy.config.cluster.v3.Cluster",
            json!({"load_assignment": {"endpoints": [{}, {"priority": "high"}]}}),
        );
        let error = unpack::<Cluster>(&any).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "TypedStruct is not a valid envoy.config.cluster.v3.Cluster: \
                 load_assignment.endpoints[1].priority: expected"
            ),
            "{error}"
        );
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        let any = Any { type_url: "a/envoy.config.cluster.v3.Cluster".into(), value: vec![0x0a] };
        let error = unpack::<Cluster>(&any).unwrap_err();
        assert!(matches!(error, UnpackError::Undecodable { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            name in prop::sample::select(vec![
                "/envoy.config.cluster.v3.Cluster", "t/xds.type.v3.TypedStruct", "", "/",
            ]),
            value in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let any = Any { type_url: name.to_owned(), value };
            let _ = unpack::<Cluster>(&any);
            let _ = effective_type(&any);
        }

        #[test]
        fn no_damage_to_a_typed_struct_makes_it_panic(
            at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut any = typed(
                "x/envoy.config.cluster.v3.Cluster",
                json!({"name": "a", "load_assignment": {"endpoints": [{"priority": 1}]}}),
            );
            let at = at.index(any.value.len());
            any.value[at] = byte;
            let _ = unpack::<Cluster>(&any);
        }
    }
}
