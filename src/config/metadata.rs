//! What is asked of metadata: `config.core.v3.Metadata` as criteria, and their values in one form.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// Where the metadata for load balancing is: what filters call the namespace.
pub const LB: &str = "envoy.lb";

/// In the metadata of a route: other criteria, each tried in turn.
const FALLBACK_LIST: &str = "fallback_list";

/// A key and a value's canonical text.
pub type Criterion = (Arc<str>, Arc<str>);

/// What a route wants of a host's metadata: `metadata_match`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetadataMatch {
    /// Sorted by key, as all of these.
    criteria: Vec<Criterion>,
    /// The same without the list of fallbacks.
    without_list: Vec<Criterion>,
    /// The same again, with what each fallback replaces.
    fallbacks: Vec<Vec<Criterion>>,
}

impl MetadataMatch {
    /// The criteria in the metadata for load balancing; `None` if there are none. Keys of `inner` go
    /// before the same of `outer`: those of a weighted cluster before its route's.
    pub fn of(outer: Option<&Struct>, inner: Option<&Struct>) -> Option<Self> {
        let fields = |of: Option<&Struct>| of.map(|of| of.fields.clone()).unwrap_or_default();
        let mut merged = fields(outer);
        merged.extend(fields(inner));
        if merged.is_empty() {
            return None;
        }
        let list = match merged.get(FALLBACK_LIST).and_then(|value| value.kind.as_ref()) {
            Some(Kind::ListValue(list)) => list.values.clone(),
            _ => Vec::new(),
        };
        let all: BTreeMap<Arc<str>, Arc<str>> = criteria(&merged).into_iter().collect();
        let mut without_list = all.clone();
        without_list.remove(FALLBACK_LIST);
        let fallbacks = list.iter().filter_map(|value| match &value.kind {
            Some(Kind::StructValue(fallback)) => {
                let mut replaced = without_list.clone();
                replaced.extend(criteria(&fallback.fields));
                Some(replaced.into_iter().collect())
            }
            _ => None,
        });
        Some(Self {
            fallbacks: fallbacks.collect(),
            without_list: without_list.into_iter().collect(),
            criteria: all.into_iter().collect(),
        })
    }

    /// Every criterion, sorted by key.
    pub fn criteria(&self) -> &[Criterion] {
        &self.criteria
    }

    /// The same where a list of fallbacks is not a criterion: one after the other is to be tried.
    pub fn alternatives(&self) -> impl Iterator<Item = &[Criterion]> {
        let own = self.fallbacks.is_empty().then_some(&*self.without_list);
        own.into_iter().chain(self.fallbacks.iter().map(|fallback| &**fallback))
    }
}

/// Fields as criteria, sorted by key.
pub fn criteria(fields: &BTreeMap<String, Value>) -> Vec<Criterion> {
    fields.iter().map(|(key, value)| (key.as_str().into(), canonical(value))).collect()
}

/// A text that two values share exactly if they are equal.
pub fn canonical(value: &Value) -> Arc<str> {
    let mut text = String::new();
    write(value, &mut text);
    text.into()
}

fn write(value: &Value, text: &mut String) {
    // Writing to a string cannot fail.
    let _ok = match &value.kind {
        None | Some(Kind::NullValue(_)) => write!(text, "null"),
        Some(Kind::BoolValue(bool)) => write!(text, "{bool}"),
        Some(Kind::NumberValue(number)) => write!(text, "{number:?}"),
        Some(Kind::StringValue(string)) => write!(text, "{string:?}"),
        Some(Kind::ListValue(list)) => {
            text.push('[');
            list.values.iter().for_each(|value| {
                write_then(value, text);
            });
            write!(text, "]")
        }
        Some(Kind::StructValue(fields)) => {
            text.push('{');
            for (key, value) in &fields.fields {
                let _ok = write!(text, "{key:?}:");
                write_then(value, text);
            }
            write!(text, "}}")
        }
    };
}

fn write_then(value: &Value, text: &mut String) {
    write(value, text);
    text.push(',');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Metadata as it stands in an endpoint.
    fn fields(value: serde_json::Value) -> Struct {
        use crate::proto::envoy::config::core::v3::Metadata;
        let metadata = json!({ "filter_metadata": { LB: value } });
        let mut metadata = crate::proto::json::from_json::<Metadata>(metadata).unwrap().message;
        metadata.filter_metadata.remove(LB).unwrap()
    }

    fn texts<'a>(of: impl Iterator<Item = &'a [Criterion]>) -> Vec<String> {
        of.map(|all| {
            all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        })
        .collect()
    }

    #[test]
    fn values_that_differ_have_texts_that_differ() {
        let values =
            json!([null, true, "true", 1, "1", [], [1], [1, 1], ["1"], {}, {"a": 1}, {"a": "1"}]);
        let list = fields(json!({ "values": values }));
        let Some(Kind::ListValue(list)) = &list.fields["values"].kind else { panic!("{list:?}") };
        let texts: std::collections::HashSet<_> = list.values.iter().map(canonical).collect();
        assert_eq!(texts.len(), list.values.len());
    }

    #[test]
    fn the_inner_keys_go_before_and_fallbacks_replace_some() {
        let route = fields(json!({"b": "1", "a": 2,
            "fallback_list": [{"a": 3}, 7, {"b": "4", "c": "5"}]}));
        let cluster = fields(json!({"b": "x"}));
        let both = MetadataMatch::of(Some(&route), Some(&cluster)).unwrap();
        assert_eq!(both.criteria().len(), 3);
        let expected = [r#"a=3.0 b="x""#, r#"a=2.0 b="4" c="5""#];
        assert_eq!(texts(both.alternatives()), expected);
        let plain = MetadataMatch::of(None, Some(&cluster)).unwrap();
        assert_eq!(texts(plain.alternatives()), [r#"b="x""#]);
        assert_eq!(MetadataMatch::of(None, Some(&Struct::default())), None);
    }
}
