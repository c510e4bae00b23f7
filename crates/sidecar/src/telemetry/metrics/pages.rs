//! The `/stats` pages.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::json;

use super::cells::BUCKETS;
use super::histogram_text::{self as histograms, Counts, Form, PERCENTILES, at_percentile};
use super::names::{add_label, dotted, prometheus};
use super::registry::{Registry, Value};

/// `type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Counters`
    Counter,
    /// `Gauges`
    Gauge,
    /// `Histograms`
    Histogram,
    /// `TextReadouts`
    Text,
}

/// Which stats are wanted, and how.
#[derive(Default)]
pub struct Selection {
    /// `filter`: dotted names in which this matches somewhere.
    pub filter: Option<regex::Regex>,
    /// `invert_filter`: dotted names in which it does not.
    pub invert: bool,
    /// `usedonly`: only those that were ever changed.
    pub used_only: bool,
    /// `type`: only those.
    pub kind: Option<Kind>,
    /// `histogram_buckets`; `None` where it is not given.
    pub form: Option<Form>,
    /// `text_readouts`: texts in Prometheus's form too, as labels of a gauge that is always 0.
    pub texts: bool,
}

impl Selection {
    fn wants(&self, name: &str, value: &Value) -> bool {
        let (kind, used) = match value {
            Value::Counter(value) => (Kind::Counter, *value != 0),
            Value::Gauge(value) => (Kind::Gauge, *value != 0),
            Value::Number(value) => (Kind::Gauge, *value != 0),
            Value::Text(text) => (Kind::Text, !text.is_empty()),
            Value::Histogram(counts, _) => (Kind::Histogram, counts.iter().any(|n| *n != 0)),
        };
        (used || !self.used_only)
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.is_match(name) != self.invert)
    }
}

fn keeps(registry: &Registry, name: &str) -> bool {
    registry.rules().is_none_or(|rules| rules.keeps(name))
}

/// Counters and gauges, by name.
type Numbers = BTreeMap<String, serde_json::Value>;

/// What is wanted, each by name.
#[derive(Default)]
struct Read {
    texts: BTreeMap<String, Arc<str>>,
    numbers: Numbers,
    histograms: Vec<(String, Box<Counts>)>,
}

fn read(registry: &Registry, selection: &Selection) -> Read {
    let (mut texts, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    let mut shown = BTreeMap::new();
    registry.read(|family, subject, stat, value| {
        let name = dotted(family, subject, stat);
        if !selection.wants(&name, &value) || !keeps(registry, &name) {
            return;
        }
        match value {
            Value::Counter(value) => {
                numbers.insert(name, value.into());
            }
            Value::Gauge(value) => {
                numbers.insert(name, value.into());
            }
            Value::Number(value) => {
                numbers.insert(name, value.into());
            }
            Value::Text(text) => {
                texts.insert(name, text);
            }
            Value::Histogram(counts, _) => {
                shown.insert(name, counts);
            }
        }
    });
    Read {
        texts,
        numbers,
        histograms: shown.into_iter().collect(),
    }
}

/// `name: value` lines: texts come first, and histograms last.
pub fn text(registry: &Registry, selection: &Selection) -> String {
    let read = read(registry, selection);
    let mut page = String::new();
    for (name, text) in read.texts {
        let _ = writeln!(page, "{name}: \"{text}\"");
    }
    for (name, value) in read.numbers {
        let _ = writeln!(page, "{name}: {value}");
    }
    let form = selection.form.unwrap_or_default();
    for (name, counts) in read.histograms {
        let _ = writeln!(page, "{name}:{}", histograms::text(&counts, form));
    }
    page
}

/// `{"stats": [{"name": ..., "value": ...}, ..., {"histograms": ...}]}`
pub fn json(registry: &Registry, selection: &Selection) -> serde_json::Value {
    let read = read(registry, selection);
    let texts = read.texts.into_iter();
    let texts = texts.map(|(name, text)| json!({"name": name, "value": &*text}));
    let numbers = read.numbers.into_iter();
    let numbers = numbers.map(|(name, value)| json!({"name": name, "value": value}));
    let mut stats: Vec<_> = texts.chain(numbers).collect();
    if !read.histograms.is_empty() {
        let form = selection.form.unwrap_or_default();
        stats.push(json!({"histograms": histograms::json(&read.histograms, form)}));
    }
    json!({ "stats": stats })
}

/// The text exposition format, version 0.0.4. Samples of one name stand together, as it demands.
pub fn prometheus_text(registry: &Registry, selection: &Selection) -> String {
    // Counters come before gauges, and histograms last, as with Envoy.
    let mut metrics: BTreeMap<(u8, String), (&'static str, String)> = BTreeMap::new();
    let summary = selection.form == Some(Form::Summary);
    registry.read(|family, subject, stat, value| {
        let dotted = dotted(family, subject, stat);
        let hidden = matches!(value, Value::Text(_)) && !selection.texts;
        if hidden || !selection.wants(&dotted, &value) || !keeps(registry, &dotted) {
            return;
        }
        let mut sample = prometheus(family, subject, stat);
        if let Some(rules) = registry.rules() {
            let mut more = String::new();
            rules.label(&dotted, &mut sample.name, |tag, value| {
                add_label(&mut more, tag, value);
            });
            sample.add(&more);
        }
        let (order, kind) = match value {
            Value::Counter(_) => (0, "counter"),
            Value::Gauge(_) | Value::Number(_) => (1, "gauge"),
            Value::Text(_) => (2, "gauge"),
            Value::Histogram(..) if summary => (3, "summary"),
            Value::Histogram(..) => (3, "histogram"),
        };
        let (_, page) = metrics
            .entry((order, sample.name.clone()))
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
            Value::Number(value) => writeln!(page, "{name}{braces} {value}"),
            Value::Text(text) => {
                let mut labels = sample.labels.clone();
                add_label(&mut labels, "text_value", &text);
                writeln!(page, "{name}{{{labels}}} 0")
            }
            Value::Histogram(counts, sum) => {
                let labels = match sample.labels.as_str() {
                    "" => String::new(),
                    labels => format!("{labels},"),
                };
                let samples = if summary { quantiles } else { buckets };
                let count: u64 = counts.iter().sum();
                samples(page, name, &labels, &counts).and_then(|()| {
                    writeln!(
                        page,
                        "{name}_sum{braces} {sum}\n{name}_count{braces} {count}"
                    )
                })
            }
        };
    });
    metrics
        .iter()
        .fold(String::new(), |mut page, ((_, name), (kind, samples))| {
            let _ = write!(page, "# TYPE {name} {kind}\n{samples}");
            page
        })
}

fn buckets(page: &mut String, name: &str, labels: &str, counts: &Counts) -> std::fmt::Result {
    let mut count = 0;
    for (bucket, bound) in counts.iter().zip(BUCKETS) {
        count += bucket;
        writeln!(page, "{name}_bucket{{{labels}le=\"{bound}\"}} {count}")?;
    }
    count += counts[BUCKETS.len()];
    writeln!(page, "{name}_bucket{{{labels}le=\"+Inf\"}} {count}")
}

fn quantiles(page: &mut String, name: &str, labels: &str, counts: &Counts) -> std::fmt::Result {
    for percentile in PERCENTILES {
        // 99.9 / 100 is not quite 0.999.
        let quantile = (percentile * 10.0).round() / 1000.0;
        let value = at_percentile(counts, percentile).unwrap_or(f64::NAN);
        writeln!(page, "{name}{{{labels}quantile=\"{quantile}\"}} {value}")?;
    }
    Ok(())
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
