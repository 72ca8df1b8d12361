//! The OpenAPI document of the API.

use serde_json::{Map, Value, json};

use super::operations::{OPERATIONS, Operation};

/// The document, as JSON.
pub fn document() -> String {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_ascii_lowercase()] = described(operation);
    }
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "xds-server: instances at runtime",
            "version": "1",
            "description": "Changes the instances of a gateway file while it is served. A change is judged as an edit of the file would be; it is kept on disk, and pushed to the proxies before the next.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    });
    format!("{document:#}\n")
}

fn described(operation: &Operation) -> Value {
    let names =
        operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters = names.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let mut answers: Map<String, Value> = Map::new();
    let (status, gives) = operation.gives;
    let mut success = json!({ "description": "Done." });
    if let Some(schema) = gives {
        success["content"] = content(reference(schema));
    }
    answers.insert(status.to_string(), success);
    for status in [&[401], operation.fails].concat() {
        let answer =
            json!({ "description": meaning(status), "content": content(reference("Error")) });
        answers.insert(status.to_string(), answer);
    }
    let mut described = json!({ "summary": operation.summary });
    let parameters: Vec<Value> = parameters.collect();
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": content(schema()) });
    }
    described["responses"] = answers.into();
    described
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The body is not what it should be.",
        401 => "The bearer token is missing or wrong.",
        404 => "There is no such service or instance.",
        409 => "There is one already, or the gateway file is bad and must be mended first.",
        422 => "Proxies would refuse it.",
        _ => "The change could not be kept.",
    }
}

fn content(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn object(properties: Value) -> Value {
    let required: Vec<_> =
        properties.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn list(item: Value) -> Value {
    json!({ "type": "array", "items": item })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let maybe_text = json!({ "type": ["string", "null"] });
    let maybe_number = json!({ "type": ["integer", "null"] });
    json!({
        "Services": object(json!({ "services": list(reference("Service")) })),
        "Service": object(json!({
            "name": text,
            "strategy": maybe_text,
            "dns": maybe_text,
            "instances": list(reference("Instance")),
        })),
        "Instance": object(json!({
            "id": text,
            "url": text,
            "weight": { "type": "integer" },
            "zone": maybe_text,
            "metadata": { "type": "object" },
            "draining": { "type": "boolean" },
            "from": { "enum": ["file", "changed", "added"] },
        })),
        "Proxies": object(json!({ "proxies": list(reference("Proxy")) })),
        "Proxy": object(json!({
            "node_id": text,
            "node_cluster": text,
            "user_agent": text,
            "user_agent_version": text,
            "group": text,
            "connected_since": text,
            "connected_seconds": { "type": "integer" },
            "streams": list(json!({ "type": "object" })),
            "types": list(reference("Type")),
        })),
        "Type": object(json!({
            "type": text,
            "type_url": text,
            "stream": { "type": "integer" },
            "wildcard": { "type": "boolean" },
            "names": { "type": "integer" },
            "state": { "enum": ["none", "waiting", "acked", "nacked"] },
            "version_sent": maybe_text,
            "version_acked": maybe_text,
            "nonce": maybe_text,
            "last_nack": { "type": ["object", "null"] },
        })),
        "Error": object(json!({ "error": text, "problems": list(reference("Problem")) })),
        "Problem": object(json!({
            "file": maybe_text,
            "line": maybe_number,
            "column": maybe_number,
            "resource": maybe_text,
            "field": text,
            "message": text,
        })),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json")
    }

    #[test]
    fn the_document_is_that_of_the_operations() {
        let kept = std::fs::read_to_string(file()).unwrap();
        let how = "cargo test -p nuncio-xds-server --lib document -- --ignored writes it anew";
        assert!(kept == document(), "xds-server/openapi.json is old: {how}");
    }

    #[test]
    #[ignore = "writes the document"]
    fn write_the_document() {
        std::fs::write(file(), document()).unwrap();
    }
}
