//! The metrics of response caches.

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::{count, each_cell, level, stat_prefix};
use crate::telemetry::Telemetry;

/// Cells that are shown under one name, told apart by an attribute.
struct Family {
    name: &'static str,
    description: &'static str,
    attribute: &'static str,
    /// Cells, and the attribute's values.
    cells: &'static [(&'static str, &'static str)],
}

const COUNTERS: [Family; 7] = [
    Family {
        name: "gateway.cache.hits",
        description: "Requests answered with what was stored",
        attribute: "",
        cells: &[("hit", "")],
    },
    Family {
        name: "gateway.cache.misses",
        description: "Requests for what was not stored",
        attribute: "",
        cells: &[("miss", "")],
    },
    Family {
        name: "gateway.cache.evictions",
        description: "Responses forgotten for want of room, or since they were of no use any more",
        attribute: "reason",
        cells: &[
            ("evicted_memory", "memory"),
            ("evicted_entries", "entries"),
            ("evicted_variants", "variants"),
            ("expired", "expired"),
        ],
    },
    Family {
        name: "gateway.cache.invalidations",
        description: "Requests and purges that made responses forgotten",
        attribute: "kind",
        cells: &[
            ("invalidated", "request"),
            ("purge_url", "url"),
            ("purge_pattern", "pattern"),
            ("purge_tag", "tag"),
            ("purge_everything", "everything"),
        ],
    },
    Family {
        name: "gateway.cache.requests",
        description: "Requests by what the cache did",
        attribute: "verdict",
        cells: &[
            ("hit", "hit"),
            ("miss", "miss"),
            ("stale", "stale"),
            ("revalidated", "revalidated"),
            ("stale_while_revalidate", "stale_while_revalidate"),
            ("stale_if_error", "stale_if_error"),
            ("coalesced", "coalesced"),
            ("shared_hit", "shared_hit"),
            ("bypass", "bypass"),
        ],
    },
    Family {
        name: "gateway.cache.uncacheable",
        description: "Responses that were not stored",
        attribute: "reason",
        cells: &[
            ("uncacheable_status", "status"),
            ("uncacheable_no_store", "no-store"),
            ("uncacheable_private", "private"),
            ("uncacheable_authorization", "authorization"),
            ("uncacheable_vary", "vary"),
            ("uncacheable_set_cookie", "set-cookie"),
            ("uncacheable_no_lifetime", "no-lifetime"),
            ("uncacheable_too_large", "too-large"),
            ("uncacheable_content_type", "content-type"),
            ("uncacheable_method", "method"),
        ],
    },
    Family {
        name: "gateway.cache.warmings",
        description: "Attempts to fetch a response before anybody asks",
        attribute: "result",
        cells: &[("warmed", "good"), ("warm_failed", "failed")],
    },
];

const LEVELS: [Family; 3] = [
    Family {
        // Bytes; with a unit its name in Prometheus would end in it.
        name: "gateway.cache.size",
        description: "Bytes of memory that the cache takes",
        attribute: "",
        cells: &[("bytes", "")],
    },
    Family {
        name: "gateway.cache.entries",
        description: "URLs stored",
        attribute: "",
        cells: &[("entries", "")],
    },
    Family {
        name: "gateway.cache.form.size",
        description: "Bytes by form: as they came, in gzip, copies in files, or on their way",
        attribute: "form",
        cells: &[
            ("bytes_identity", "identity"),
            ("bytes_gzip", "gzip"),
            ("bytes_copies", "copy"),
            ("bytes_filling", "filling"),
        ],
    },
];

impl Family {
    fn attributes(&self, prefix: &str, value: &'static str) -> Vec<KeyValue> {
        let mut attributes = vec![stat_prefix(prefix)];
        if !self.attribute.is_empty() {
            attributes.push(KeyValue::new(self.attribute, value));
        }
        attributes
    }

    fn value_of(&self, cell: &str) -> Option<&'static str> {
        self.cells.iter().find(|(name, _)| *name == cell).map(|(_, value)| *value)
    }
}

pub(super) fn instruments(meter: &Meter, telemetry: &Telemetry) {
    for family in &COUNTERS {
        let cells = telemetry.clone();
        meter
            .u64_observable_counter(family.name)
            .with_description(family.description)
            .with_callback(move |observer| {
                each_cell(&cells, ("http", "cache"), |prefix, cell, value| {
                    if let Some(attribute) = family.value_of(cell) {
                        observer.observe(count(value), &family.attributes(prefix, attribute));
                    }
                });
            })
            .build();
    }
    for family in &LEVELS {
        let cells = telemetry.clone();
        meter
            .i64_observable_gauge(family.name)
            .with_description(family.description)
            .with_callback(move |observer| {
                each_cell(&cells, ("http", "cache"), |prefix, cell, value| {
                    if let Some(attribute) = family.value_of(cell) {
                        observer.observe(level(value), &family.attributes(prefix, attribute));
                    }
                });
            })
            .build();
    }
}
