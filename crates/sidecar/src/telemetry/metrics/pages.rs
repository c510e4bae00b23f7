//! `/stats` in Envoy's text and JSON forms, and `/stats/prometheus`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cells::BUCKETS;
use super::names::{dotted, prometheus};
use super::registry::{Registry, Value};

/// Which stats are wanted.
#[derive(Default)]
pub struct Selection {
    /// `filter`: dotted names in which this matches somewhere.
    pub filter: Option<regex::Regex>,
    /// `usedonly`: only those that were ever changed.
    pub used_only: bool,
}

impl Selection {
    fn wants(&self, name: &str, value: &Value) -> bool {
        let used = match value {
            Value::Counter(value) => *value != 0,
            Value::Gauge(value) => *value != 0,
            Value::Histogram(buckets, _) => buckets.iter().any(|count| *count != 0),
        };
        (used || !self.used_only)
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.is_match(name))
    }
}

fn each(registry: &Registry, selection: &Selection, mut take: impl FnMut(String, Value)) {
    registry.read(|family, subject, stat, value| {
        let name = dotted(family, subject, stat);
        if selection.wants(&name, &value) {
            take(name, value);
        }
    });
}

/// `name: value` lines.
pub fn text(registry: &Registry, selection: &Selection) -> String {
    let mut lines = BTreeMap::new();
    each(registry, selection, |name, value| {
        let value = match value {
            Value::Counter(value) => value.to_string(),
            Value::Gauge(value) => value.to_string(),
            Value::Histogram(buckets, _) => quantiles(&buckets),
        };
        lines.insert(name, value);
    });
    lines.iter().fold(String::new(), |mut page, (name, value)| {
        let _ = writeln!(page, "{name}: {value}");
        page
    })
}

/// `{"stats": [{"name": ..., "value": ...}]}`
pub fn json(registry: &Registry, selection: &Selection) -> serde_json::Value {
    let mut stats = Vec::new();
    each(registry, selection, |name, value| {
        let value = match value {
            Value::Counter(value) => value.into(),
            Value::Gauge(value) => value.into(),
            Value::Histogram(buckets, sum) => {
                serde_json::json!({"buckets": buckets.to_vec(), "sum": sum})
            }
        };
        stats.push(serde_json::json!({"name": name, "value": value}));
    });
    serde_json::json!({ "stats": stats })
}

/// The text exposition format, version 0.0.4. Samples of one name stand together, as it demands.
pub fn prometheus_text(registry: &Registry, selection: &Selection) -> String {
    let mut metrics: BTreeMap<String, (&'static str, String)> = BTreeMap::new();
    registry.read(|family, subject, stat, value| {
        if !selection.wants(&dotted(family, subject, stat), &value) {
            return;
        }
        let sample = prometheus(family, subject, stat);
        let kind = match value {
            Value::Counter(_) => "counter",
            Value::Gauge(_) => "gauge",
            Value::Histogram(..) => "histogram",
        };
        let (_, page) = metrics
            .entry(sample.name.clone())
            .or_insert((kind, String::new()));
        let braces = if sample.labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", sample.labels)
        };
        let name = &sample.name;
        let _ = match value {
            Value::Counter(value) => writeln!(page, "{name}{braces} {value}"),
            Value::Gauge(value) => writeln!(page, "{name}{braces} {value}"),
            Value::Histogram(buckets, sum) => {
                histogram(page, name, &sample.labels, &braces, &buckets, sum)
            }
        };
    });
    metrics
        .iter()
        .fold(String::new(), |mut page, (name, (kind, samples))| {
            let _ = write!(page, "# TYPE {name} {kind}\n{samples}");
            page
        })
}

fn histogram(
    page: &mut String,
    name: &str,
    labels: &str,
    braces: &str,
    buckets: &[u64; BUCKETS.len() + 1],
    sum: f64,
) -> std::fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    for (bucket, bound) in buckets.iter().zip(BUCKETS) {
        count += bucket;
        writeln!(
            page,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
        )?;
    }
    count += buckets[BUCKETS.len()];
    writeln!(page, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}")?;
    writeln!(page, "{name}_sum{braces} {sum}")?;
    writeln!(page, "{name}_count{braces} {count}")
}

/// Envoy's text form, `P50(interval,cumulative)`; we keep only the cumulative one. Values are
/// interpolated within their bucket.
fn quantiles(buckets: &[u64; BUCKETS.len() + 1]) -> String {
    let total: u64 = buckets.iter().sum();
    if total == 0 {
        return "No recorded values".to_owned();
    }
    let mut text = String::new();
    for quantile in [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0] {
        if !text.is_empty() {
            text.push(' ');
        }
        let _ = write!(
            text,
            "P{quantile}(nan,{:.3})",
            at_quantile(buckets, total, quantile / 100.0)
        );
    }
    text
}

fn at_quantile(buckets: &[u64; BUCKETS.len() + 1], total: u64, quantile: f64) -> f64 {
    let wanted = quantile * total as f64;
    let mut below = 0.0;
    for (index, count) in buckets.iter().enumerate() {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let low = if index == 0 { 0.0 } else { BUCKETS[index - 1] };
            let high = BUCKETS.get(index).copied().unwrap_or(low);
            return low + (high - low) * ((wanted - below) / count).clamp(0.0, 1.0);
        }
        below += count;
    }
    BUCKETS[BUCKETS.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Family;

    #[test]
    fn threads_are_summed_and_both_forms_agree() {
        let registry = Registry::default();
        let (one, two) = (registry.thread(), registry.thread());
        let (first, second) = (
            one.scope(Family::Cluster, "a"),
            two.scope(Family::Cluster, "a"),
        );
        first.counter("upstream_rq_200").increment(2);
        second.counter("upstream_rq_200").increment(3);
        first.histogram("upstream_rq_time").record(7.0);
        assert!(text(&registry, &Selection::default()).contains("cluster.a.upstream_rq_200: 5\n"));
        let page = prometheus_text(&registry, &Selection::default());
        assert!(page.contains(
            "envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"a\"} 5\n"
        ));
        assert!(page.contains(
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"5\"} 0\n"
        ));
        assert!(page.contains(
            "envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name=\"a\",le=\"10\"} 1\n"
        ));
        drop(first);
        assert!(
            text(&registry, &Selection::default()).contains("upstream_rq_200: 5"),
            "a counter outlives its thread"
        );
        drop(second);
        assert_eq!(
            text(&registry, &Selection::default()),
            "",
            "stats go with their subject"
        );
    }
}
