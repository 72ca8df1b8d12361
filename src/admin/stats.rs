//! `/stats`, `/stats/prometheus` and `/metrics`.

use http::StatusCode;

use super::query::Query;
use super::{JSON, Reply};
use crate::telemetry::otel::Otel;
use crate::telemetry::{Telemetry, envoy_view};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=UTF-8";

fn view(query: &Query) -> Result<envoy_view::Query, Reply> {
    let filter =
        query.regex("filter").map_err(|error| Reply::error(StatusCode::BAD_REQUEST, error))?;
    Ok(envoy_view::Query { filter, used_only: query.has("usedonly") })
}

pub(super) fn stats(telemetry: &Telemetry, query: &Query) -> Reply {
    let view = match view(query) {
        Ok(view) => view,
        Err(reply) => return reply,
    };
    match query.value("format") {
        None | Some("" | "text") => Reply::text(view.text(telemetry)),
        Some("json") => Reply { content_type: JSON, ..Reply::text(view.json(telemetry)) },
        Some("prometheus") => prometheus(telemetry, query),
        Some(_) => Reply::error(
            StatusCode::BAD_REQUEST,
            "usage: /stats?format=text, /stats?format=json or /stats?format=prometheus\n",
        ),
    }
}

pub(super) fn prometheus(telemetry: &Telemetry, query: &Query) -> Reply {
    match view(query) {
        Ok(view) => Reply::text(view.prometheus(telemetry)),
        Err(reply) => reply,
    }
}

pub(super) fn metrics(otel: &Otel) -> Reply {
    match otel.render() {
        Ok(text) => Reply { content_type: PROMETHEUS, ..Reply::text(text) },
        Err(error) => Reply::error(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}
