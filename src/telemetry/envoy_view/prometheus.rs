//! The text exposition format of Prometheus, with Envoy's names and labels.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use super::{Group, Query, push_number, start_name};
use crate::telemetry::Scope;
use crate::telemetry::metrics::{BUCKET_BOUNDS_MS, Cell, HistogramValue};

/// A metric's `# TYPE`; metrics of one type stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    fn of(cell: Cell<'_>) -> Self {
        match cell {
            Cell::Counter(_) => Self::Counter,
            Cell::Gauge(_) => Self::Gauge,
            Cell::Histogram(_) => Self::Histogram,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The samples of one metric as they are collected.
struct Family {
    name: String,
    samples: String,
}

/// Where the samples of each cell go: owners of a kind share their metrics.
type Columns = HashMap<&'static str, Column, foldhash::fast::RandomState>;

struct Column {
    family: usize,
    /// Label made of a part of the cell's name, such as the class of a response code.
    label: String,
}

#[derive(Default)]
struct Families {
    all: Vec<Family>,
    by_name: BTreeMap<(Kind, String), usize>,
}

impl Families {
    fn column(&mut self, scope: &Scope, cell: &str, kind: Kind) -> Column {
        let (cell, label) = response_code_label(cell);
        let name = scope.prometheus_name(&cell);
        let family = *self.by_name.entry((kind, name.clone())).or_insert_with(|| {
            self.all.push(Family { name, samples: String::new() });
            self.all.len() - 1
        });
        Column { family, label }
    }
}

/// Writes the cells of `groups`, which are in the order of their scopes.
pub(super) fn render(query: &Query, groups: &[Group]) -> String {
    let mut families = Families::default();
    let mut kinds: HashMap<(&'static str, &str), Columns> = HashMap::new();
    let (mut name, mut labels) = (String::new(), String::new());
    for (scope, group) in groups {
        let columns = kinds.entry((scope.kind, &*scope.part)).or_default();
        let prefix = start_name(&mut name, scope);
        group.visit(&mut |cell, value| {
            if query.filter.is_some() {
                name.truncate(prefix);
                name.push_str(cell);
            }
            if !query.shows(&name) || (query.used_only && !is_used(value)) {
                return;
            }
            let column = columns
                .entry(cell)
                .or_insert_with(|| families.column(scope, cell, Kind::of(value)));
            labels.clear();
            labels.push_str(&column.label);
            push_scope_labels(&mut labels, scope);
            push_samples(&mut families.all[column.family], &labels, value);
        });
    }

    let mut out = String::with_capacity(
        families.all.iter().map(|f| f.samples.len() + 2 * f.name.len() + 32).sum(),
    );
    for ((kind, name), family) in &families.by_name {
        out.push_str("# TYPE ");
        out.push_str(name);
        out.push(' ');
        out.push_str(kind.as_str());
        out.push('\n');
        out.push_str(&families.all[*family].samples);
    }
    out
}

fn is_used(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Counter(counter) => counter.value() != 0,
        Cell::Gauge(gauge) => gauge.value() != 0,
        Cell::Histogram(histogram) => histogram.value().count() != 0,
    }
}

/// Takes a response code or its class out of a cell's name, as Envoy does: `upstream_rq_2xx`
/// becomes `upstream_rq_xx` with a label for the `2`, `upstream_rq_200` becomes `upstream_rq`.
fn response_code_label(cell: &str) -> (Cow<'_, str>, String) {
    if let Some((base, last)) = cell.rsplit_once('_')
        && base.ends_with("_rq")
        && let [class @ b'1'..=b'5', rest @ ..] = last.as_bytes()
        && rest.len() == 2
    {
        if rest == b"xx" {
            let label = format!("envoy_response_code_class=\"{}\"", char::from(*class));
            return (Cow::Owned(format!("{base}_xx")), label);
        }
        if rest.iter().all(u8::is_ascii_digit) {
            return (Cow::Borrowed(base), format!("envoy_response_code=\"{last}\""));
        }
    }
    (Cow::Borrowed(cell), String::new())
}

fn push_scope_labels(labels: &mut String, scope: &Scope) {
    for (label, value) in scope.labels() {
        if !labels.is_empty() {
            labels.push(',');
        }
        labels.push_str(label);
        labels.push_str("=\"");
        push_label_value(labels, value);
        labels.push('"');
    }
}

fn push_label_value(labels: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        labels.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            c => labels.push(c),
        }
    }
}

fn push_samples(family: &mut Family, labels: &str, cell: Cell<'_>) {
    match cell {
        Cell::Counter(counter) => {
            push_sample(family, "", labels, itoa::Buffer::new().format(counter.value()));
        }
        Cell::Gauge(gauge) => {
            push_sample(family, "", labels, itoa::Buffer::new().format(gauge.value()));
        }
        Cell::Histogram(histogram) => push_histogram(family, labels, &histogram.value()),
    }
}

fn push_histogram(family: &mut Family, labels: &str, value: &HistogramValue) {
    let mut bucket_labels = labels.to_owned();
    if !bucket_labels.is_empty() {
        bucket_labels.push(',');
    }
    bucket_labels.push_str("le=\"");
    let prefix = bucket_labels.len();
    let mut cumulative = 0;
    for (bucket, in_bucket) in value.buckets.iter().enumerate() {
        cumulative += in_bucket;
        bucket_labels.truncate(prefix);
        match BUCKET_BOUNDS_MS.get(bucket) {
            Some(bound) => push_number(&mut bucket_labels, *bound),
            None => bucket_labels.push_str("+Inf"),
        }
        bucket_labels.push('"');
        push_sample(family, "_bucket", &bucket_labels, itoa::Buffer::new().format(cumulative));
    }
    let mut sum = String::new();
    push_number(&mut sum, value.sum_us as f64 / 1_000.0);
    push_sample(family, "_sum", labels, &sum);
    push_sample(family, "_count", labels, itoa::Buffer::new().format(cumulative));
}

fn push_sample(family: &mut Family, suffix: &str, labels: &str, value: &str) {
    let Family { name, samples } = family;
    samples.reserve(name.len() + suffix.len() + labels.len() + value.len() + 4);
    samples.push_str(name);
    samples.push_str(suffix);
    samples.push('{');
    samples.push_str(labels);
    samples.push_str("} ");
    samples.push_str(value);
    samples.push('\n');
}
