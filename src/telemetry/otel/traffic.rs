//! The metrics of clients, their requests and those to clusters, and of the configuration.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use super::{ConfigStats, count, each_cell, level, stat_prefix, unix_now};
use crate::telemetry::Telemetry;
use crate::telemetry::metrics::StatGroup;

pub(super) fn instruments(meter: &Meter, telemetry: &Telemetry) {
    downstream_instruments(meter, telemetry);
    upstream_instruments(meter, telemetry);
    config_instruments(meter, telemetry);
}

fn downstream_instruments(meter: &Meter, telemetry: &Telemetry) {
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.requests")
        .with_description("Requests answered, by the class of the response's code")
        .with_callback(move |observer| {
            each_cell(&cells, ("http", ""), |prefix, cell, value| {
                let class = match cell {
                    "downstream_rq_1xx" => "1xx",
                    "downstream_rq_2xx" => "2xx",
                    "downstream_rq_3xx" => "3xx",
                    "downstream_rq_4xx" => "4xx",
                    "downstream_rq_5xx" => "5xx",
                    _ => return,
                };
                let attributes = [stat_prefix(prefix), KeyValue::new("response_class", class)];
                observer.observe(count(value), &attributes);
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("http.server.active_requests")
        .with_description("Requests without an answer yet")
        .with_callback(move |observer| observe_level(&cells, "downstream_rq_active", observer))
        .build();
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.connections")
        .with_description("Client connections accepted")
        .with_callback(move |observer| {
            each_cell(&cells, ("http", ""), |prefix, cell, value| {
                if cell == "downstream_cx_total" {
                    observer.observe(count(value), &[stat_prefix(prefix)]);
                }
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("gateway.active_connections")
        .with_description("Client connections open")
        .with_callback(move |observer| observe_level(&cells, "downstream_cx_active", observer))
        .build();
}

fn upstream_instruments(meter: &Meter, telemetry: &Telemetry) {
    let cells = telemetry.clone();
    meter
        .u64_observable_counter("gateway.upstream.requests")
        .with_description("Requests sent to a cluster that had any")
        .with_callback(move |observer| {
            each_busy_cluster(&cells, |cluster, group| {
                group.visit(&mut |cell, value| {
                    if cell == "upstream_rq_total" {
                        observer.observe(count(value), std::slice::from_ref(cluster));
                    }
                });
            });
        })
        .build();
    let cells = telemetry.clone();
    meter
        .i64_observable_up_down_counter("gateway.upstream.active_requests")
        .with_description("Requests in flight to a cluster that had any")
        .with_callback(move |observer| {
            each_busy_cluster(&cells, |cluster, group| {
                group.visit(&mut |cell, value| {
                    if cell == "upstream_rq_active" {
                        observer.observe(level(value), std::slice::from_ref(cluster));
                    }
                });
            });
        })
        .build();
}

fn config_instruments(meter: &Meter, telemetry: &Telemetry) {
    let config = telemetry.group::<ConfigStats>(ConfigStats::scope());
    meter
        .i64_observable_gauge("gateway.config.version")
        .with_description("Number of the configuration that is served")
        .with_callback(move |observer| observer.observe(config.version.value(), &[]))
        .build();
    let config = telemetry.group::<ConfigStats>(ConfigStats::scope());
    meter
        .i64_observable_gauge("gateway.config.age")
        .with_unit("s")
        .with_description("How long ago the configuration that is served was published")
        .with_callback(move |observer| {
            let published = config.published_unix_s.value();
            if published > 0 {
                observer.observe(unix_now().saturating_sub(published), &[]);
            }
        })
        .build();
}

fn observe_level(telemetry: &Telemetry, wanted: &str, observer: &dyn AsyncInstrument<i64>) {
    each_cell(telemetry, ("http", ""), |prefix, cell, value| {
        if cell == wanted {
            observer.observe(level(value), &[stat_prefix(prefix)]);
        }
    });
}

/// Calls `each` with the attribute and the cells of every cluster that was sent a request.
fn each_busy_cluster(telemetry: &Telemetry, mut each: impl FnMut(&KeyValue, &dyn StatGroup)) {
    for (scope, group) in telemetry.groups() {
        if scope.kind != "cluster" || !scope.part.is_empty() {
            continue;
        }
        let mut busy = false;
        group.visit(&mut |cell, value| busy |= cell == "upstream_rq_total" && count(value) > 0);
        if let Some(name) = scope.instance.filter(|_| busy) {
            each(&KeyValue::new("cluster", name), &*group);
        }
    }
}
