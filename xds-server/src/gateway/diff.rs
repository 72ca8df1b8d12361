//! What proxies receive when one set of resources takes the place of another.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

use super::translate::Made;
use super::yaml_text::inline;
use crate::types::ResourceType;

/// The differences, in the order in which they are sent: new and changed resources with their fields,
/// then what is removed. Empty if there is none.
pub(crate) fn diff(old: &[Made], new: &[Made]) -> String {
    let (old, new) = (by_name(old), by_name(new));
    let mut text = String::new();
    for (key, made) in &new {
        match old.get(key) {
            None => line(&mut text, '+', made),
            Some(before) if before.value != made.value => {
                line(&mut text, '~', made);
                fields("", Some(&before.value), Some(&made.value), &mut text);
            }
            Some(_) => {}
        }
    }
    for (key, made) in old.iter().rev() {
        if !new.contains_key(key) {
            line(&mut text, '-', made);
        }
    }
    text
}

fn by_name(made: &[Made]) -> BTreeMap<(ResourceType, &str), &Made> {
    made.iter().map(|made| ((made.ty, made.name.as_str()), made)).collect()
}

// Writing to a String cannot fail.
fn line(text: &mut String, mark: char, made: &Made) {
    let _ = writeln!(text, "{mark} {} {}", made.ty.kind(), made.name);
}

/// One line for each value that differs.
fn fields(path: &str, old: Option<&Value>, new: Option<&Value>, text: &mut String) {
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let step = super::reader::join(path, key);
                fields(&step, a.get(key), b.get(key), text);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                fields(&format!("{path}[{index}]"), a.get(index), b.get(index), text);
            }
        }
        (old, new) => {
            let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), inline);
            let _ = writeln!(text, "    {path}: {} -> {}", show(old), show(new));
        }
    }
}
