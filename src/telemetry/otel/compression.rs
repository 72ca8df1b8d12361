//! The metrics of bodies that are encoded and decoded.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use super::{count, level, stat_prefix};
use crate::telemetry::metrics::Cell;
use crate::telemetry::{Scope, Telemetry};

/// Cells of bodies, shown under one name, told apart by an attribute.
struct Family {
    name: &'static str,
    description: &'static str,
    attribute: &'static str,
    /// Cells, and the attribute's values.
    cells: &'static [(&'static str, &'static str)],
}

const OF_BODIES: [Family; 3] = [
    Family {
        name: "gateway.compression.bodies",
        description: "Bodies encoded and decoded, from their beginning",
        attribute: "",
        cells: &[("bodies", "")],
    },
    Family {
        name: "gateway.compression.bytes",
        description: "Bytes into codecs and out of them",
        attribute: "side",
        cells: &[("bytes_in", "in"), ("bytes_out", "out")],
    },
    Family {
        name: "gateway.compression.failures",
        description: "Bodies that did not come to their end",
        attribute: "reason",
        cells: &[
            ("broken", "broken"),
            ("left", "left"),
            ("truncated", "truncated"),
            ("corrupt", "corrupt"),
            ("too_large", "too-large"),
        ],
    },
];

const SKIPPED: Family = Family {
    name: "gateway.compression.skipped",
    description: "Messages that were not encoded",
    attribute: "reason",
    cells: &[
        ("skipped_status", "status"),
        ("skipped_too_small", "too-small"),
        ("skipped_content_type", "content-type"),
        ("skipped_encoded", "encoded"),
        ("skipped_no_transform", "no-transform"),
        ("skipped_entity_tag", "entity-tag"),
        ("skipped_not_accepted", "not-accepted"),
        ("skipped_path", "path"),
        ("skipped_not_smaller", "not-smaller"),
        ("skipped_empty", "empty"),
    ],
};

/// How many times larger the plain form is, at the most, by cell.
const RATIOS: [(&str, &str); 9] = [
    ("ratio_1", "1"),
    ("ratio_2", "2"),
    ("ratio_3", "3"),
    ("ratio_5", "5"),
    ("ratio_10", "10"),
    ("ratio_20", "20"),
    ("ratio_50", "50"),
    ("ratio_100", "100"),
    ("ratio_more", "+Inf"),
];

impl Family {
    fn value_of(&self, cell: &str) -> Option<&'static str> {
        self.cells.iter().find(|(name, _)| *name == cell).map(|(_, value)| *value)
    }
}

/// What a group of cells of bodies is about.
fn attributes(scope: &Scope) -> Option<Vec<KeyValue>> {
    let mut part = scope.part.split('.');
    let operation = match part.next()? {
        "compression" => "encode",
        "decompression" => "decode",
        _ => return None,
    };
    let (library, direction) = (part.next()?, part.next()?);
    Some(vec![
        stat_prefix(scope.instance.as_deref().unwrap_or_default()),
        KeyValue::new("operation", operation),
        KeyValue::new("library", library.to_owned()),
        KeyValue::new("direction", direction.to_owned()),
    ])
}

/// Calls `each` with what is known of every group of cells of bodies, and every cell of it.
fn each_of_bodies(
    telemetry: &Telemetry,
    mut each: impl FnMut(&[KeyValue], &'static str, Cell<'_>),
) {
    for (scope, group) in telemetry.groups() {
        if scope.kind == "http"
            && let Some(attributes) = attributes(&scope)
        {
            group.visit(&mut |cell, value| each(&attributes, cell, value));
        }
    }
}

pub(super) fn instruments(meter: &Meter, telemetry: &Telemetry) {
    for family in &OF_BODIES {
        let cells = telemetry.clone();
        meter
            .u64_observable_counter(family.name)
            .with_description(family.description)
            .with_callback(move |observer| {
                each_of_bodies(&cells, |attributes, cell, value| {
                    let Some(own) = family.value_of(cell) else { return };
                    let mut attributes = attributes.to_vec();
                    if !family.attribute.is_empty() {
                        attributes.push(KeyValue::new(family.attribute, own));
                    }
                    observer.observe(count(value), &attributes);
                });
            })
            .build();
    }
    let cells = telemetry.clone();
    meter
        .f64_observable_counter("gateway.compression.time")
        .with_unit("s")
        .with_description("Time that codecs took")
        .with_callback(move |observer| {
            each_of_bodies(&cells, |attributes, cell, value| {
                if let ("time_us", Cell::Counter(us)) = (cell, value) {
                    let time = std::time::Duration::from_micros(us.value());
                    observer.observe(time.as_secs_f64(), attributes);
                }
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("gateway.compression.active")
        .with_description("Bodies under way")
        .with_callback(move |observer| {
            each_of_bodies(&cells, |attributes, cell, value| {
                if cell == "active" {
                    observer.observe(level(value), attributes);
                }
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.compression.ratio.bucket")
        .with_description("Whole bodies whose plain form is at most so many times the encoded one")
        .with_callback(move |observer| observe_ratios(&cells, observer))
        .build();
    let cells = telemetry.clone();
    meter
        .u64_observable_counter(SKIPPED.name)
        .with_description(SKIPPED.description)
        .with_callback(move |observer| observe_skipped(&cells, observer))
        .build();
}

/// As the buckets of a histogram are: each has those below it in it.
fn observe_ratios(telemetry: &Telemetry, observer: &dyn AsyncInstrument<u64>) {
    for (scope, group) in telemetry.groups() {
        let Some(attributes) = attributes(&scope).filter(|_| scope.kind == "http") else {
            continue;
        };
        let mut sum = 0;
        // The cells are visited in their order, which is that of the bounds.
        group.visit(&mut |cell, value| {
            let Some((_, bound)) = RATIOS.iter().find(|(name, _)| *name == cell) else { return };
            sum += count(value);
            let mut attributes = attributes.clone();
            attributes.push(KeyValue::new("le", *bound));
            observer.observe(sum, &attributes);
        });
    }
}

fn observe_skipped(telemetry: &Telemetry, observer: &dyn AsyncInstrument<u64>) {
    for (scope, group) in telemetry.groups() {
        let direction = match (scope.kind, &*scope.part) {
            ("http", "compression.request") => "request",
            ("http", "compression.response") => "response",
            _ => continue,
        };
        group.visit(&mut |cell, value| {
            let Some(reason) = SKIPPED.value_of(cell) else { return };
            let attributes = [
                stat_prefix(scope.instance.as_deref().unwrap_or_default()),
                KeyValue::new("direction", direction),
                KeyValue::new(SKIPPED.attribute, reason),
            ];
            observer.observe(count(value), &attributes);
        });
    }
}
