//! Text as a file of resources: the YAML reader, the lines of its values, the JSON form of each
//! resource, and its compile step.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nuncio::proto::{json, yaml};
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(document) = yaml::parse(text) else { return };
    for (key, type_name) in nuncio_fuzz::SECTIONS {
        let Some(Value::Array(resources)) = document.value.get(key) else { continue };
        for (n, resource) in resources.iter().enumerate() {
            let _ = document.lines.line_of(&format!("{key}[{n}].name"));
            if let Ok((bytes, _)) = json::encode_json(type_name, resource.clone()) {
                let _ = json::to_json(type_name, &bytes);
                nuncio_fuzz::compile(type_name, &bytes);
            }
        }
    }
});
