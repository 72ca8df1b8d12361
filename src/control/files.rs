//! Resource files: a `DiscoveryResponse` in YAML or JSON, as `path_config_source` names.

use prost::Message;
use prost_types::Any;
use serde_json::Value;
use tracing::warn;

use crate::proto::{json, yaml};

/// The resources in a file; each says its type in `@type`.
///
/// # Errors
/// Where the text is not YAML, or every value that does not fit its field.
pub fn decode(bytes: &[u8]) -> Result<Vec<Any>, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let document = yaml::parse(text).map_err(|error| error.to_string())?;
    let Value::Object(mut response) = document.value else {
        return Err("a resource file is a mapping with a list named resources".to_owned());
    };
    let resources = match response.remove("resources") {
        Some(Value::Array(resources)) => resources,
        None => return Err("resources: is required; it may be an empty list".to_owned()),
        Some(_) => return Err("resources: expected a list".to_owned()),
    };
    let mut faults = Vec::new();
    let mut anys = Vec::with_capacity(resources.len());
    for (index, resource) in resources.into_iter().enumerate() {
        match json::encode_json("google.protobuf.Any", resource) {
            Ok((bytes, ignored)) => {
                for field in ignored {
                    warn!(field = format!("resources[{index}].{field}"), "field is ignored");
                }
                match Any::decode(bytes.as_slice()) {
                    Ok(any) => anys.push(any),
                    Err(error) => faults.push(format!("resources[{index}]: {error}")),
                }
            }
            Err(error) => faults.push(format!("resources[{index}].{error}")),
        }
    }
    if faults.is_empty() { Ok(anys) } else { Err(faults.join("\n")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_and_faults_say_where_they_are() {
        let cluster = "\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster";
        let text = format!("version_info: '1'\nresources: [{{{cluster}, name: a}}]");
        let anys = decode(text.as_bytes()).unwrap();
        assert_eq!(anys[0].type_url, "type.googleapis.com/envoy.config.cluster.v3.Cluster");
        let text = format!("resources: [{{{cluster}, name: a}}, {{{cluster}, name: [7]}}]");
        let error = decode(text.as_bytes()).unwrap_err();
        assert!(error.starts_with("resources[1].name: expected a string"), "{error}");
        for text in [&b"\xff"[..], b"[", b"[]", b"a: 1", b"resources: 7"] {
            assert!(decode(text).is_err());
        }
    }
}
