//! Medians, ratios, the table and the JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Load, Outcome};

/// The name of our pair.
pub(super) const OURS: &str = "outrider";
/// The name of the other.
pub(super) const ENVOY: &str = "envoy";
/// The most that one of our sidecars may hold, idle and under 64 connections, in bytes.
const MEMORY_TARGETS: [u64; 2] = [10 << 20, 20 << 20];
/// The most that our p99 at 64 connections may be, as a part of Envoy's.
const P99_TARGET: f64 = 0.5;

/// One load in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Requests (MiB in bulk) per second.
    rate: f64,
    /// Microseconds of both sidecars per request (MiB).
    cpu: f64,
    /// Milliseconds: median, 99th percentile.
    latency: Option<[f64; 2]>,
}

impl Sample {
    pub(super) fn new(outcome: &Outcome, cpu: Duration) -> Self {
        Self {
            rate: outcome.count / outcome.seconds,
            cpu: cpu.as_secs_f64() * 1e6 / outcome.count,
            latency: outcome.latency,
        }
    }

    /// One line of progress.
    pub(super) fn line(&self, load: Load) -> String {
        let latency = self.latency.map_or_else(String::new, |[p50, p99]| {
            format!(", p50 {p50:.2} ms, p99 {p99:.2} ms")
        });
        let unit = load.unit();
        format!(
            "{:<25} {:>7.0} {unit}s/s, {:>6.1} us of the pair per {unit}{latency}",
            load.title(),
            self.rate,
            self.cpu
        )
    }
}

/// One pair in one round.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The greater peak of the two sidecars, two seconds after they were ready, in bytes.
    pub(super) idle: u64,
    /// The same after the load of 64 connections.
    pub(super) loaded: Option<u64>,
    pub(super) samples: BTreeMap<Load, Sample>,
}

/// All that was measured.
pub(super) struct Report {
    seconds: u32,
    rounds: BTreeMap<&'static str, Vec<Round>>,
}

/// A column of the table, as a function of a sample.
type Figure = (&'static str, fn(&Sample) -> Option<f64>);

/// A row of memory, as a function of a round.
type Memory = (&'static str, fn(&Round) -> Option<u64>);

const FIGURES: [Figure; 4] = [
    ("rate /s", |sample| Some(sample.rate)),
    ("p50 ms", |sample| sample.latency.map(|latency| latency[0])),
    ("p99 ms", |sample| sample.latency.map(|latency| latency[1])),
    ("CPU us", |sample| Some(sample.cpu)),
];

impl Report {
    pub(super) fn new(seconds: u32) -> Self {
        Self {
            seconds,
            rounds: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, proxy: &'static str, round: Round) {
        self.rounds.entry(proxy).or_default().push(round);
    }

    /// The values of one figure over all rounds of one pair.
    fn values(&self, proxy: &str, load: Load, figure: fn(&Sample) -> Option<f64>) -> Vec<f64> {
        let rounds = self.rounds.get(proxy).into_iter().flatten();
        rounds
            .filter_map(|round| round.samples.get(&load).and_then(figure))
            .collect()
    }

    /// The table for people: a row for each load and figure.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<25} {:<8} {:>27} {:>27} {:>6}  target\n",
            "median (min..max)", "", OURS, ENVOY, "ratio"
        );
        for load in Load::all() {
            for (name, figure) in FIGURES {
                let [ours, envoy] =
                    [OURS, ENVOY].map(|proxy| spread(&self.values(proxy, load, figure)));
                let target = match (load, name) {
                    (_, "CPU us") => Some(load.target()),
                    (Load::Http1Many, "p99 ms") => Some(P99_TARGET),
                    _ => None,
                };
                let title = format!("{:<25} {name:<8}", load.title());
                text.push_str(&row(&title, ours, envoy, target));
            }
        }
        let kinds: [Memory; 2] = [
            ("idle", |round| Some(round.idle)),
            ("loaded", |round| round.loaded),
        ];
        for ((name, figure), target) in kinds.into_iter().zip(MEMORY_TARGETS) {
            let [ours, envoy] = [OURS, ENVOY].map(|proxy| {
                let rounds = self.rounds.get(proxy).into_iter().flatten();
                spread(&rounds.filter_map(figure).map(mebibytes).collect::<Vec<_>>())
            });
            let title = format!("{:<25} {name:<8}", "memory of one, MiB");
            text.push_str(&row(&title, ours, envoy, None));
            if let Some([ours, ..]) = ours {
                let most = mebibytes(target);
                text.pop();
                text.push_str(&format!("  {most} MiB: {}\n", verdict(ours <= most)));
            }
        }
        text
    }

    /// All rounds, for programs.
    pub(super) fn json(&self) -> Value {
        let pairs: serde_json::Map<String, Value> = self
            .rounds
            .iter()
            .map(|(proxy, rounds)| {
                (
                    (*proxy).to_owned(),
                    rounds.iter().map(Round::json).collect(),
                )
            })
            .collect();
        let medians: serde_json::Map<String, Value> = Load::all()
            .map(|load| {
                let of = |proxy| {
                    let figures = FIGURES.iter().map(|(name, figure)| {
                        let values = spread(&self.values(proxy, load, *figure));
                        ((*name).to_owned(), json!(values))
                    });
                    figures.collect::<serde_json::Map<_, _>>()
                };
                let value = json!({
                    OURS: of(OURS),
                    ENVOY: of(ENVOY),
                    "most_cpu_ratio": load.target(),
                });
                (load.name().to_owned(), value)
            })
            .collect();
        json!({
            "seconds": self.seconds,
            "median_min_max": medians,
            "rounds": pairs,
        })
    }
}

impl Round {
    fn json(&self) -> Value {
        let loads: serde_json::Map<String, Value> = self
            .samples
            .iter()
            .map(|(load, sample)| {
                let value = json!({
                    "rate_per_second": sample.rate,
                    "cpu_microseconds": sample.cpu,
                    "p50_milliseconds": sample.latency.map(|latency| latency[0]),
                    "p99_milliseconds": sample.latency.map(|latency| latency[1]),
                });
                (load.name().to_owned(), value)
            })
            .collect();
        json!({ "idle_bytes": self.idle, "loaded_bytes": self.loaded, "loads": loads })
    }
}

/// Median, minimum and maximum; `None` of nothing.
fn spread(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let middle = sorted.len() / 2;
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some([median, first, last])
}

/// One row, or nothing when neither pair has the figure.
fn row(
    title: &str,
    ours: Option<[f64; 3]>,
    envoy: Option<[f64; 3]>,
    target: Option<f64>,
) -> String {
    if ours.is_none() && envoy.is_none() {
        return String::new();
    }
    let cell = |values: Option<[f64; 3]>| {
        values.map_or_else(String::new, |[median, least, most]| {
            format!("{} ({}..{})", short(median), short(least), short(most))
        })
    };
    let mut text = format!("{title} {:>27} {:>27}", cell(ours), cell(envoy));
    if let (Some([ours, ..]), Some([envoy, ..])) = (ours, envoy) {
        let ratio = ours / envoy;
        text.push_str(&format!(" {ratio:>6.2}"));
        if let Some(target) = target {
            text.push_str(&format!("  {target}: {}", verdict(ratio <= target)));
        }
    }
    text + "\n"
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// Three digits that count.
fn short(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some([2.0, 1.0, 3.0]));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 3.0]), Some([2.5, 1.0, 4.0]));
        assert_eq!(spread(&[]), None);
    }

    #[test]
    fn the_table_tells_what_is_met_and_what_is_missed() {
        let mut report = Report::new(1);
        for (proxy, cpu, idle) in [(OURS, 40.0, 9 << 20), (ENVOY, 100.0, 64 << 20)] {
            let sample = Sample {
                rate: 1000.0,
                cpu,
                latency: Some([1.0, 2.0]),
            };
            let samples = [(Load::Http1One, sample), (Load::Http1Many, sample)].into();
            report.add(
                proxy,
                Round {
                    idle,
                    loaded: Some(idle * 3),
                    samples,
                },
            );
        }
        let table = report.table();
        let line = |start: &str, figure: &str| {
            let found = table
                .lines()
                .find(|line| line.starts_with(start) && line.contains(figure));
            found.unwrap().to_owned()
        };
        assert!(line("HTTP/1, 1 ", "CPU").ends_with("0.40  0.45: met"));
        assert!(line("HTTP/1, 64 ", "CPU").ends_with("0.40  0.38: MISSED"));
        assert!(line("HTTP/1, 64 ", "p99").ends_with("1.00  0.5: MISSED"));
        assert!(line("memory", "idle").ends_with("10 MiB: met"));
        assert!(line("memory", "loaded").ends_with("20 MiB: MISSED"));
        assert!(!table.contains("bulk"));
    }
}
