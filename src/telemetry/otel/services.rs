//! The metrics of services, their instances and the connections to them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::telemetry::services::{Counts, Row};

/// What was read for those who ask now.
pub(super) type Rows = Arc<ArcSwap<Vec<Row>>>;

/// A number of each row that only grows, once for each value of an attribute.
struct Counter {
    name: &'static str,
    description: &'static str,
    /// Whether the strategy is said.
    balancing: bool,
    of: &'static [(&'static str, Read)],
}

type Read = fn(&Counts) -> u64;

const COUNTERS: [Counter; 3] = [
    Counter {
        name: "gateway.loadbalancer.requests",
        description: "Requests given to an instance, each try for itself",
        balancing: true,
        of: &[("", |counts| counts.requests)],
    },
    Counter {
        name: "gateway.connection_pool.errors",
        description: "Connections that could not be made, or that failed under a request",
        balancing: false,
        of: &[("connect", |counts| counts.connect_errors), ("broken", |counts| counts.broken)],
    },
    Counter {
        name: "gateway.connection_pool.timeouts",
        description: "Connections that took too long to be made, and responses to begin",
        balancing: false,
        of: &[
            ("connect", |counts| counts.connect_timeouts),
            ("response", |counts| counts.response_timeouts),
        ],
    },
];

/// A number of each row that rises and falls.
struct Level {
    name: &'static str,
    description: &'static str,
    balancing: bool,
    /// Whether it is told of services without traffic, too.
    of_idle: bool,
    of: fn(&Counts) -> i64,
}

const LEVELS: [Level; 5] = [
    Level {
        name: "gateway.loadbalancer.instance_health",
        description: "1 if the instance is well enough to be chosen, else 0",
        balancing: true,
        of_idle: true,
        of: |counts| i64::from(counts.unhealthy == 0),
    },
    Level {
        name: "gateway.loadbalancer.active_connections",
        description: "Requests that the instance has now, each on a connection or stream of its own",
        balancing: true,
        of_idle: false,
        of: |counts| counts.active,
    },
    Level {
        name: "gateway.connection_pool.total_connections",
        description: "Connections that are open or being made",
        balancing: false,
        of_idle: false,
        of: |counts| counts.open,
    },
    Level {
        name: "gateway.connection_pool.active_connections",
        description: "Connections that carry requests",
        balancing: false,
        of_idle: false,
        of: |counts| counts.busy,
    },
    Level {
        name: "gateway.connection_pool.idle_connections",
        description: "Connections that wait for a request",
        balancing: false,
        of_idle: false,
        of: |counts| counts.idle,
    },
];

/// What a row is about.
pub(super) fn attributes(row: &Row, balancing: bool) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("service", Arc::clone(&row.service)),
        KeyValue::new("instance", row.instance.clone()),
    ];
    if balancing {
        attributes.push(KeyValue::new("strategy", Arc::clone(&row.strategy)));
    }
    attributes
}

pub(super) fn instruments(meter: &Meter, rows: &Rows) {
    for counter in &COUNTERS {
        let rows = Arc::clone(rows);
        meter
            .u64_observable_counter(counter.name)
            .with_description(counter.description)
            .with_callback(move |observer| {
                for row in rows.load().iter().filter(|row| row.is_used) {
                    let mut attributes = attributes(row, counter.balancing);
                    let own = attributes.len();
                    for (kind, value) in counter.of {
                        attributes.truncate(own);
                        if !kind.is_empty() {
                            attributes.push(KeyValue::new("kind", *kind));
                        }
                        observer.observe(value(&row.counts), &attributes);
                    }
                }
            })
            .build();
    }
    for level in &LEVELS {
        let rows = Arc::clone(rows);
        meter
            .i64_observable_gauge(level.name)
            .with_description(level.description)
            .with_callback(move |observer| {
                let is_told = |row: &&Row| row.is_used || level.of_idle;
                for row in rows.load().iter().filter(is_told) {
                    observer.observe((level.of)(&row.counts), &attributes(row, level.balancing));
                }
            })
            .build();
    }
}
