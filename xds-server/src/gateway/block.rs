//! The two shapes of a file: blocks of keys, and choices between words.
//!
//! A block is written once, as a table of its keys: type, default, the field of a resource that it
//! becomes, and what it does. The type that the rest of the program uses, the reader, the JSON Schema
//! and the page of keys are all made from it.

/// Declares a block of keys, each with its type, perhaps a default, and what it becomes.
macro_rules! block {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $(
                $(#[doc = $effect:literal])+
                $key:ident: $ty:ty $(= $default:expr)? => $field:literal,
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub(crate) struct $name {
            $($(#[doc = $effect])+ pub(crate) $key: $ty,)+
        }

        impl $crate::gateway::form::Form for $name {
            fn read(
                reader: &mut $crate::gateway::reader::Reader<'_>,
                at: &str,
                value: &serde_json::Value,
            ) -> Option<Self> {
                let known = [$($crate::gateway::block::bare(stringify!($key)),)+];
                let map = reader.mapping(at, value, &known)?;
                $(
                    let absent = block!(@absent $ty $(, $default)?);
                    let key = $crate::gateway::block::bare(stringify!($key));
                    let $key = reader.field(&map, at, key, absent);
                )+
                Some(Self { $($key: $key?,)+ })
            }

            fn absent() -> Option<Self> {
                Some(Self { $($key: block!(@absent $ty $(, $default)?)?,)+ })
            }

            fn shown(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $(
                    let key = $crate::gateway::block::bare(stringify!($key));
                    map.insert(key.to_owned(), self.$key.shown());
                )+
                map.retain(|_, value| !value.is_null());
                map.into()
            }

            fn schema() -> serde_json::Value {
                $crate::gateway::block::object(concat!($($about),+), &Self::inner().1)
            }

            fn inner() -> (&'static str, Vec<$crate::gateway::form::Key>) {
                ("", vec![$({
                    type Kind = $ty;
                    let absent: Option<Kind> = block!(@absent $ty $(, $default)?);
                    $crate::gateway::form::Key {
                        name: $crate::gateway::block::bare(stringify!($key)),
                        effect: concat!($($effect),+).trim().to_owned(),
                        field: $field,
                        default: absent.map(|absent| $crate::gateway::form::Form::shown(&absent)),
                        schema: <Kind as $crate::gateway::form::Form>::schema(),
                        inner: <Kind as $crate::gateway::form::Form>::inner(),
                    }
                },)+])
            }
        }
    };
    (@absent $ty:ty) => { <$ty as $crate::gateway::form::Form>::absent() };
    (@absent $ty:ty, $default:expr) => { Some::<$ty>($default) };
}

/// Declares a choice between words.
macro_rules! choice {
    (
        $(#[doc = $about:literal])+
        $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// Every word.
            pub(crate) const WORDS: &[&str] = &[$($word,)+];

            /// The word of a choice.
            pub(crate) const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The choice of a word.
            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl $crate::gateway::form::Form for $name {
            fn read(
                reader: &mut $crate::gateway::reader::Reader<'_>,
                at: &str,
                value: &serde_json::Value,
            ) -> Option<Self> {
                let found = value.as_str().and_then(Self::from_word);
                if found.is_none() {
                    reader.fault(at, $crate::gateway::block::no_such(value, Self::WORDS));
                }
                found
            }

            fn shown(&self) -> serde_json::Value {
                self.word().into()
            }

            fn schema() -> serde_json::Value {
                serde_json::json!({ "enum": Self::WORDS })
            }
        }
    };
}

use serde_json::{Map, Value, json};

use super::form::Key;
use super::nearest::nearest;
use super::reader::kind_of;

/// A field's name without the mark that makes it one in Rust.
pub(crate) fn bare(name: &'static str) -> &'static str {
    name.strip_prefix("r#").unwrap_or(name)
}

/// The message about a value that is none of the words.
pub(crate) fn no_such(value: &Value, words: &[&str]) -> String {
    let near = value.as_str().and_then(|word| nearest(word, words.iter().copied()));
    match near {
        Some(near) => format!("{} is not known; did you mean {near:?}?", kind_of(value)),
        None => format!("expected one of {}, not {}", words.join(", "), kind_of(value)),
    }
}

/// The schema of a mapping with these keys alone.
pub(crate) fn object(about: &str, keys: &[Key]) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let mut schema = key.schema.clone();
        if let Value::Object(schema) = &mut schema {
            let becomes = match key.field {
                "" => String::new(),
                field => format!(" Becomes {field}."),
            };
            schema.insert("description".to_owned(), json!(format!("{}{becomes}", key.effect)));
            // A block shows the defaults of its keys at the keys.
            if let Some(default) =
                key.default.as_ref().filter(|d| !d.is_null() && key.inner.1.is_empty())
            {
                schema.insert("default".to_owned(), default.clone());
            }
        }
        properties.insert(key.name.to_owned(), schema);
    }
    let mut object = json!({
        "description": about.trim(),
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    let required: Vec<_> = keys.iter().filter(|key| key.default.is_none()).collect();
    if !required.is_empty() {
        object["required"] = required.iter().map(|key| key.name).collect();
    } else if let Some(kind) = object.get_mut("type") {
        // A block that is written and empty has its defaults.
        *kind = json!(["object", "null"]);
    }
    object
}

pub(crate) use {block, choice};
