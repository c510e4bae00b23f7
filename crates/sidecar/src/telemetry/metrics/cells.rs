//! The cells behind the handles of the `metrics` crate.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use metrics::{CounterFn, GaugeFn, HistogramFn};

/// Upper bounds of the histograms' buckets: Envoy's defaults, in the unit of the stat
/// (milliseconds for times, bytes for sizes).
pub const BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// A counter that one thread adds to.
#[derive(Debug, Default)]
pub struct CounterCell(AtomicU64);

impl CounterCell {
    /// Its value.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl CounterCell {
    /// Sets it to 0.
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

impl CounterFn for CounterCell {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// A gauge of whole numbers; the sum over threads is what is shown.
#[derive(Debug, Default)]
pub struct GaugeCell(AtomicI64);

impl GaugeCell {
    /// Its value.
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl GaugeFn for GaugeCell {
    fn increment(&self, value: f64) {
        self.0.fetch_add(value as i64, Relaxed);
    }

    fn decrement(&self, value: f64) {
        self.0.fetch_sub(value as i64, Relaxed);
    }

    fn set(&self, value: f64) {
        self.0.store(value as i64, Relaxed);
    }
}

/// A histogram with fixed buckets: its size does not depend on what it records.
#[derive(Debug, Default)]
pub struct HistogramCell {
    /// One more than the bounds: the last is above them all.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    /// Sum in thousandths of the unit.
    sum_milli: AtomicU64,
}

impl HistogramCell {
    /// Adds this cell's buckets to `into` and answers its sum.
    pub fn add_to(&self, into: &mut [u64; BUCKETS.len() + 1]) -> f64 {
        for (total, bucket) in into.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Relaxed);
        }
        self.sum_milli.load(Relaxed) as f64 / 1000.0
    }
}

impl HistogramFn for HistogramCell {
    fn record(&self, value: f64) {
        let bucket = BUCKETS.partition_point(|bound| *bound < value);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_milli.fetch_add((value * 1000.0) as u64, Relaxed);
    }
}
