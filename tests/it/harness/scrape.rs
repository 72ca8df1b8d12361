//! What `/metrics` says, as numbers.

use super::Proxy;

/// The metrics of one moment.
pub(crate) struct Scrape(String);

impl Scrape {
    /// What a proxy says now.
    pub(crate) async fn of(proxy: &Proxy) -> Self {
        Self(proxy.admin_text("/metrics").await)
    }

    /// The sum of the series of this name that have these labels; none if there is no such series.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let of_series = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, said) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| {
                let (first, later) =
                    (format!("{label}=\"{value}\""), format!(",{label}=\"{value}\""));
                said.starts_with(&first) || said.contains(&later)
            };
            (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().unwrap())
        };
        let values: Vec<f64> = self.0.lines().filter_map(of_series).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// The same, which must be there.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.find(name, labels);
        found.unwrap_or_else(|| panic!("no {name} with {labels:?} in\n{}", self.0))
    }

    /// A whole number.
    #[track_caller]
    pub(crate) fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let value = self.value(name, labels);
        value.to_string().parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }
}
