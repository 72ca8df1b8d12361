//! Values that an operator sets beside the configuration (`config.bootstrap.v3.LayeredRuntime`): a
//! field that names a key takes the key's value, if it has one, in place of its own default.
//!
//! Layers are static, so what a key means is settled when the field is compiled.

use std::collections::HashMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::error::{Errors, Fault, OrFault};
use super::fields;
use crate::proto::envoy::config::bootstrap::v3 as proto;
use crate::proto::envoy::config::core::v3 as core;
use crate::proto::envoy::r#type::v3::FractionalPercent;
use crate::proto::envoy::r#type::v3::fractional_percent::DenominatorType;

/// What each key is set to.
#[derive(Debug, Default)]
pub struct Runtime(HashMap<String, Entry>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Whole(u64),
    Decimal(f64),
    Fraction(Fraction),
    Flag(bool),
    /// Something that no field we have is made of.
    Other,
}

/// A share of requests: `type.v3.FractionalPercent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fraction {
    numerator: u32,
    denominator: u32,
}

impl Fraction {
    /// All requests.
    pub const ALL: Self = Self { numerator: 100, denominator: 100 };

    /// Compiles the message.
    ///
    /// # Errors
    /// When the denominator is none that the API declares.
    pub fn compile(message: &FractionalPercent) -> Result<Self, Errors> {
        let (numerator, denominator) = fields::fraction(message)?;
        Ok(Self { numerator, denominator })
    }

    /// Whether a request is in the share; `random` is the request's own, uniform over all `u64`.
    pub fn admits(self, random: u64) -> bool {
        random % u64::from(self.denominator) < u64::from(self.numerator)
    }

    /// Whether every request is in it.
    pub fn is_all(self) -> bool {
        self.numerator >= self.denominator
    }
}

impl Runtime {
    /// Compiles the layers, of which a later one goes before an earlier one.
    ///
    /// # Errors
    /// Layers without a kind or with a name twice, and values that no key can have.
    pub fn compile(runtime: &proto::LayeredRuntime) -> Result<Self, Errors> {
        use proto::runtime_layer::LayerSpecifier;
        let proto::LayeredRuntime { layers } = runtime;
        let mut errors = Errors::new();
        let mut entries = HashMap::new();
        for (i, layer) in layers.iter().enumerate() {
            let proto::RuntimeLayer { name, layer_specifier } = layer;
            errors.take(fields::non_empty(name).at("name").index(i).at("layers"));
            if layers[..i].iter().any(|other| other.name == *name) {
                let fault = Errors::from(Fault::Duplicate(name.clone()));
                errors.take::<()>(Err(fault).at("name").index(i).at("layers"));
            }
            let compiled = match layer_specifier {
                None => Err(Errors::from(Fault::Required).at("layer_specifier")),
                // Nothing can be set there.
                Some(LayerSpecifier::AdminLayer(_)) => Ok(()),
                Some(LayerSpecifier::StaticLayer(layer)) => {
                    flatten("", layer, &mut entries).at("static_layer")
                }
            };
            errors.take(compiled.index(i).at("layers"));
        }
        errors.finish().map(|()| Self(entries))
    }

    /// The share that a field means.
    ///
    /// # Errors
    /// As those of [`Fraction::compile`].
    pub fn fraction(&self, field: &core::RuntimeFractionalPercent) -> Result<Fraction, Errors> {
        let core::RuntimeFractionalPercent { default_value, runtime_key } = field;
        let default = default_value.as_ref().map(Fraction::compile).transpose();
        let default = default.at("default_value")?;
        let entry = self.entry(runtime_key);
        match (entry, default) {
            (Some(Entry::Fraction(fraction)), _) => Ok(*fraction),
            // A whole number is a percentage.
            (Some(Entry::Whole(percent)), _) => {
                let numerator = u32::try_from(*percent).unwrap_or(u32::MAX);
                Ok(Fraction { numerator, denominator: 100 })
            }
            (_, Some(default)) => Ok(default),
            (_, None) => Ok(Fraction { numerator: 0, denominator: 100 }),
        }
    }

    fn entry(&self, key: &str) -> Option<&Entry> {
        self.0.get(key).filter(|_| !key.is_empty())
    }

    /// The number that a field means.
    pub fn number(&self, field: &core::RuntimeUInt32) -> u32 {
        let core::RuntimeUInt32 { default_value, runtime_key } = field;
        match self.entry(runtime_key) {
            Some(Entry::Whole(number)) => u32::try_from(*number).unwrap_or(u32::MAX),
            _ => *default_value,
        }
    }

    /// The number that a field means, which need not be whole.
    pub fn decimal(&self, field: &core::RuntimeDouble) -> f64 {
        let core::RuntimeDouble { default_value, runtime_key } = field;
        match self.entry(runtime_key) {
            Some(Entry::Decimal(number)) => *number,
            #[expect(clippy::cast_precision_loss, reason = "a whole entry is below 2^53")]
            Some(Entry::Whole(number)) => *number as f64,
            _ => *default_value,
        }
    }

    /// Whether a field means yes.
    ///
    /// # Errors
    /// A field without a default.
    pub fn flag(&self, field: &core::RuntimeFeatureFlag) -> Result<bool, Errors> {
        let core::RuntimeFeatureFlag { default_value, runtime_key } = field;
        let default = fields::required(*default_value).at("default_value")?;
        match self.entry(runtime_key) {
            Some(Entry::Flag(flag)) => Ok(*flag),
            _ => Ok(default),
        }
    }

    /// The whole number a key is set to.
    pub fn whole(&self, key: &str) -> Option<u64> {
        match self.0.get(key)? {
            Entry::Whole(number) => Some(*number),
            _ => None,
        }
    }
}

/// Messages nest: `a: {b: 1}` sets `a.b`. One that has a fraction's fields is a value.
fn flatten(above: &str, layer: &Struct, into: &mut HashMap<String, Entry>) -> Result<(), Errors> {
    let mut errors = Errors::new();
    for (name, value) in &layer.fields {
        let key = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let entry = match &value.kind {
            Some(Kind::StructValue(inner)) if !is_fraction(inner) => {
                errors.take(flatten(&key, inner, into));
                continue;
            }
            Some(Kind::StructValue(inner)) => fraction(inner).map(Entry::Fraction),
            Some(Kind::NumberValue(number)) => Ok(number_entry(*number)),
            Some(Kind::StringValue(text)) => Ok(text_entry(text)),
            Some(Kind::BoolValue(flag)) => Ok(Entry::Flag(*flag)),
            Some(Kind::NullValue(_) | Kind::ListValue(_)) | None => {
                Err(Fault::invalid(format!("{key:?}"), "a key has no list and no null").into())
            }
        };
        if let Some(entry) = errors.take(entry.key(&key)) {
            into.insert(key, entry);
        }
    }
    errors.finish()
}

fn text_entry(text: &str) -> Entry {
    match (text.parse(), text.parse()) {
        (Ok(flag), _) => Entry::Flag(flag),
        (_, Ok(number)) => number_entry(number),
        _ => Entry::Other,
    }
}

fn number_entry(number: f64) -> Entry {
    // Above 2^53 a number of JSON is not exact.
    if number.fract() != 0.0 || !(0.0..=9_007_199_254_740_992.0).contains(&number) {
        return if number.is_finite() { Entry::Decimal(number) } else { Entry::Other };
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is whole, and in the range that was just looked at"
    )]
    let whole = number as u64;
    Entry::Whole(whole)
}

fn is_fraction(value: &Struct) -> bool {
    value.fields.contains_key("numerator") || value.fields.contains_key("denominator")
}

fn fraction(value: &Struct) -> Result<Fraction, Errors> {
    let number = |value: &Value| match value.kind {
        Some(Kind::NumberValue(number)) => match number_entry(number) {
            Entry::Whole(number) => u32::try_from(number).ok(),
            _ => None,
        },
        _ => None,
    };
    let unfit = |name: &str| Errors::from(Fault::invalid(name, "not part of a fraction"));
    let numerator = match value.fields.get("numerator") {
        None => 0,
        Some(value) => number(value).ok_or_else(|| unfit("numerator"))?,
    };
    let denominator = match value.fields.get("denominator") {
        None => DenominatorType::Hundred as i32,
        Some(value) => match &value.kind {
            Some(Kind::StringValue(name)) => DenominatorType::from_str_name(name)
                .map(|denominator| denominator as i32)
                .ok_or_else(|| unfit("denominator"))?,
            _ => number(value)
                .and_then(|number| i32::try_from(number).ok())
                .ok_or_else(|| unfit("denominator"))?,
        },
    };
    Fraction::compile(&FractionalPercent { numerator, denominator })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::json::from_json;

    fn runtime(layers: serde_json::Value) -> Result<Runtime, Errors> {
        let message = from_json(json!({ "layers": layers })).unwrap().message;
        Runtime::compile(&message)
    }

    fn field(key: &str, percent: u32) -> core::RuntimeFractionalPercent {
        core::RuntimeFractionalPercent {
            default_value: Some(FractionalPercent { numerator: percent, denominator: 0 }),
            runtime_key: key.into(),
        }
    }

    #[test]
    fn numbers_and_flags_have_keys_too() {
        let layer = json!({ "whole": 3, "half": 0.5, "off": false, "text": "true", "minus": -1 });
        let runtime = runtime(json!([{ "name": "only", "static_layer": layer }])).unwrap();
        for (key, number, decimal, flag) in [
            ("whole", 3, 3.0, true),
            ("half", 7, 0.5, true),
            ("off", 7, 7.0, false),
            ("text", 7, 7.0, true),
            ("minus", 7, -1.0, true),
            ("unknown", 7, 7.0, true),
            ("", 7, 7.0, true),
        ] {
            let runtime_key = || key.to_owned();
            let field = core::RuntimeUInt32 { default_value: 7, runtime_key: runtime_key() };
            assert_eq!(runtime.number(&field), number, "{key}");
            let field = core::RuntimeDouble { default_value: 7.0, runtime_key: runtime_key() };
            assert!((runtime.decimal(&field) - decimal).abs() < f64::EPSILON, "{key}");
            let field =
                core::RuntimeFeatureFlag { default_value: Some(true), runtime_key: runtime_key() };
            assert_eq!(runtime.flag(&field).unwrap(), flag, "{key}");
        }
        assert!(runtime.flag(&core::RuntimeFeatureFlag::default()).is_err());
    }

    #[test]
    fn keys_go_before_defaults_and_later_layers_before_earlier_ones() {
        let runtime = runtime(json!([
            { "name": "first", "static_layer": { "a.on": 1, "b": { "off": 0, "text": "30" } } },
            { "name": "admin", "admin_layer": {} },
            { "name": "second", "static_layer": {
                "a.on": 100,
                "c": { "numerator": 5, "denominator": "TEN_THOUSAND" },
                "half": 0.5,
                "all": 4_294_967_296u64,
            } },
        ]))
        .unwrap();
        let of = |key: &str| runtime.fraction(&field(key, 7)).unwrap();
        let share = |numerator, denominator| Fraction { numerator, denominator };
        assert_eq!(of("a.on"), share(100, 100));
        assert_eq!(of("b.off"), share(0, 100));
        assert_eq!(of("b.text"), share(30, 100));
        assert_eq!(of("c"), share(5, 10_000));
        assert_eq!(of("half"), share(7, 100), "no whole number: the default");
        assert!(of("all").is_all());
        assert_eq!(of("unknown"), share(7, 100));
        assert_eq!(of(""), share(7, 100));
        assert_eq!((runtime.whole("a.on"), runtime.whole("c")), (Some(100), None));
        let without_default = core::RuntimeFractionalPercent::default();
        assert!(!runtime.fraction(&without_default).unwrap().admits(0));
    }

    #[test]
    fn a_share_of_random_numbers_is_admitted() {
        let third = Fraction { numerator: 30, denominator: 100 };
        assert_eq!((0..1000).filter(|random| third.admits(*random)).count(), 300);
        assert!(!Fraction { numerator: 0, denominator: 100 }.admits(0));
        assert!(Fraction::ALL.admits(u64::MAX));
    }

    #[test]
    fn faults_name_the_layer_and_the_key() {
        let cases = [
            (json!([{ "name": "a" }]), "layers[0].layer_specifier: is required"),
            (json!([{ "admin_layer": {} }]), "layers[0].name: is required"),
            (
                json!([{ "name": "a", "admin_layer": {} }, { "name": "a", "admin_layer": {} }]),
                "layers[1].name: ",
            ),
            (
                json!([{ "name": "a", "static_layer": { "b": { "c": [1] } } }]),
                "layers[0].static_layer",
            ),
            (
                json!([{ "name": "a", "static_layer": { "b": { "numerator": "x" } } }]),
                "not part of a fraction",
            ),
        ];
        for (layers, expected) in cases {
            let error = runtime(layers).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
