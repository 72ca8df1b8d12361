//! What editors read of the keys, a JSON Schema, made from the blocks themselves; and the tests that keep
//! it and the tables of `docs/gateway-yaml.md` current.

use serde_json::{Value, json};

use super::form::Form;
use super::model::Gateway;

/// The JSON Schema of a gateway file.
pub fn schema() -> String {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A gateway file of xds-server",
    });
    if let (Value::Object(schema), Value::Object(root)) = (&mut schema, Gateway::schema()) {
        schema.extend(root);
    }
    format!("{schema:#}\n")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::*;
    use crate::gateway::form::Key;
    use crate::gateway::yaml_text::inline;

    const BEGIN: &str = "<!-- keys: begin -->\n";
    const END: &str = "<!-- keys: end -->\n";

    fn docs(file: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)
    }

    fn page() -> (String, String) {
        let page = std::fs::read_to_string(docs("gateway-yaml.md")).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let made = format!("{before}{BEGIN}\n{}{END}{after}", tables());
        (page, made)
    }

    #[test]
    fn the_page_and_the_schema_are_what_the_blocks_say() {
        let (page, made) = page();
        let how = "cargo test -p nuncio-xds-server --lib page -- --ignored writes them anew";
        assert!(page == made, "docs/gateway-yaml.md is old: {how}");
        let kept = std::fs::read_to_string(docs("gateway.schema.json")).unwrap();
        assert!(kept == schema(), "docs/gateway.schema.json is old: {how}");
    }

    #[test]
    #[ignore = "writes the page and the schema"]
    fn write_the_page_and_the_schema() {
        std::fs::write(docs("gateway-yaml.md"), page().1).unwrap();
        std::fs::write(docs("gateway.schema.json"), schema()).unwrap();
    }

    /// A table for each part of a file, with a line for each key.
    fn tables() -> String {
        let mut text = String::new();
        for key in Gateway::inner().1 {
            let (suffix, inner) = &key.inner;
            let (name, effect) = (key.name, &key.effect);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "## {name}\n\n{effect} Becomes {}.\n", becomes(key.field));
            text.push_str("| key | default | becomes | effect |\n|---|---|---|---|\n");
            rows(&format!("{name}{suffix}"), inner, &mut text);
            text.push('\n');
        }
        text
    }

    fn rows(at: &str, keys: &[Key], text: &mut String) {
        for Key { name, effect, field, default, schema: _, inner: (suffix, inner) } in keys {
            let path = format!("{at}.{name}");
            let default = match default {
                None => "required".to_owned(),
                Some(Value::Null) => "none".to_owned(),
                // What its keys have.
                Some(Value::Object(_)) if suffix.is_empty() && !inner.is_empty() => String::new(),
                Some(Value::Object(map)) if map.is_empty() => "`{}`".to_owned(),
                Some(Value::Object(map)) => {
                    map.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
                }
                Some(Value::String(text)) => format!("`{text}`"),
                Some(value) => format!("`{}`", inline(value)),
            };
            let _ = writeln!(text, "| `{path}` | {default} | {} | {effect} |", becomes(field));
            rows(&format!("{path}{suffix}"), inner, text);
        }
    }

    fn becomes(field: &str) -> String {
        match field {
            "" => "nothing".to_owned(),
            field if field.starts_with("the filter") => field.to_owned(),
            field => format!("`{field}`"),
        }
    }
}
