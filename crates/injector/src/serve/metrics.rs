//! What the injector counts. Nothing depends on the order in which numbers change.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Upper bounds of the histogram of answers, in seconds. The API server waits for ten.
const BOUNDS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
];

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A name, what it counts, and its series by their label.
type Family<'a> = (&'a str, &'a str, &'a [(&'a str, &'a Counter)]);

/// How long answers took.
#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
}

/// All numbers.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) patched: Counter,
    pub(crate) left: Counter,
    pub(crate) refused: Counter,
    /// Requests for what is not the creation of a pod.
    pub(crate) other: Counter,
    /// Requests that were no reviews.
    pub(crate) malformed: Counter,
    /// Connections without a handshake.
    pub(crate) failed_handshakes: Counter,
    pub(crate) config_loads: Counter,
    pub(crate) config_errors: Counter,
    pub(crate) certificate_loads: Counter,
    pub(crate) certificate_errors: Counter,
    pub(crate) events_sent: Counter,
    pub(crate) events_failed: Counter,
    /// Events that were one too many.
    pub(crate) events_dropped: Counter,
    /// Unix time, zero without a certificate.
    certificate_end: AtomicI64,
    answers: Histogram,
}

impl Metrics {
    pub(crate) fn answered(&self, within: Duration) {
        let seconds = within.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(bucket) = bucket.and_then(|bucket| self.answers.buckets.get(bucket)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let microseconds = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        self.answers
            .microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
        self.answers.count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn certificate_ends(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let seconds = since.map_or(0, |since| since.as_secs());
        self.certificate_end
            .store(seconds.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// In the text format of Prometheus (version 0.0.4).
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let families: [Family<'_>; 5] = [
            (
                "reviews_total",
                "Admission reviews, by what became of the pod.",
                &[
                    ("outcome=\"patched\"", &self.patched),
                    ("outcome=\"left\"", &self.left),
                    ("outcome=\"refused\"", &self.refused),
                    ("outcome=\"not_a_new_pod\"", &self.other),
                    ("outcome=\"malformed\"", &self.malformed),
                ],
            ),
            (
                "failed_handshakes_total",
                "Connections that ended before their TLS handshake did.",
                &[("", &self.failed_handshakes)],
            ),
            (
                "config_loads_total",
                "Versions of the configuration, by whether they could be used.",
                &[
                    ("result=\"good\"", &self.config_loads),
                    ("result=\"bad\"", &self.config_errors),
                ],
            ),
            (
                "certificate_loads_total",
                "Versions of the serving certificate, by whether they could be used.",
                &[
                    ("result=\"good\"", &self.certificate_loads),
                    ("result=\"bad\"", &self.certificate_errors),
                ],
            ),
            (
                "events_total",
                "Events about pods, by what became of them.",
                &[
                    ("result=\"sent\"", &self.events_sent),
                    ("result=\"failed\"", &self.events_failed),
                    ("result=\"dropped\"", &self.events_dropped),
                ],
            ),
        ];
        // Writing to a string does not fail.
        for (name, help, series) in families {
            let _ = write!(
                text,
                "# HELP outrider_injector_{name} {help}\n# TYPE outrider_injector_{name} counter\n"
            );
            for (label, counter) in series {
                let label = match *label {
                    "" => String::new(),
                    label => format!("{{{label}}}"),
                };
                let value = counter.read();
                let _ = writeln!(text, "outrider_injector_{name}{label} {value}");
            }
        }
        let end = self.certificate_end.load(Ordering::Relaxed);
        let _ = write!(
            text,
            "# HELP outrider_injector_certificate_expiry_timestamp_seconds When the serving \
             certificate ends; 0 without one.\n\
             # TYPE outrider_injector_certificate_expiry_timestamp_seconds gauge\n\
             outrider_injector_certificate_expiry_timestamp_seconds {end}\n"
        );
        self.render_answers(&mut text);
        text
    }

    fn render_answers(&self, text: &mut String) {
        const NAME: &str = "outrider_injector_review_seconds";
        let _ = write!(
            text,
            "# HELP {NAME} From a request's last byte to its answer.\n# TYPE {NAME} histogram\n"
        );
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.answers.buckets) {
            below += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "{NAME}_bucket{{le=\"{bound}\"}} {below}");
        }
        let count = self.answers.count.load(Ordering::Relaxed);
        let microseconds = self.answers.microseconds.load(Ordering::Relaxed);
        let sum = Duration::from_micros(microseconds).as_secs_f64();
        let _ = write!(
            text,
            "{NAME}_bucket{{le=\"+Inf\"}} {count}\n{NAME}_sum {sum}\n{NAME}_count {count}\n"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_has_every_series() {
        let metrics = Metrics::default();
        metrics.patched.increment();
        metrics.answered(Duration::from_micros(700));
        metrics.answered(Duration::from_secs(2));
        metrics.certificate_ends(SystemTime::UNIX_EPOCH + Duration::from_secs(9));
        let text = metrics.render();
        for line in [
            "outrider_injector_reviews_total{outcome=\"patched\"} 1",
            "outrider_injector_failed_handshakes_total 0",
            "outrider_injector_events_total{result=\"dropped\"} 0",
            "outrider_injector_certificate_expiry_timestamp_seconds 9",
            "outrider_injector_review_seconds_bucket{le=\"0.0005\"} 0",
            "outrider_injector_review_seconds_bucket{le=\"0.001\"} 1",
            "outrider_injector_review_seconds_bucket{le=\"+Inf\"} 2",
            "outrider_injector_review_seconds_sum 2.0007",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
