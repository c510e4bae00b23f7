//! How histograms are shown.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::cells::BUCKETS;

/// The percentiles that are told.
pub const PERCENTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// Counts by bucket; the last is above all bounds.
pub type Counts = [u64; BUCKETS.len() + 1];

/// `histogram_buckets`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `summary`, or none: percentiles.
    #[default]
    Summary,
    /// `cumulative`: each bucket with those below it.
    Cumulative,
    /// `disjoint`: each bucket by itself.
    Disjoint,
    /// `detailed`: the buckets that are not empty, and the percentiles.
    Detailed,
}

/// A histogram of the `/stats` page in text. What happened since the last flush is not known here:
/// everything is since the start.
pub fn text(counts: &Counts, form: Form) -> String {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return " No recorded values".to_owned();
    }
    match form {
        Form::Summary => format!(" {}", percentiles(counts)),
        Form::Cumulative | Form::Disjoint => {
            bounds(counts, form).fold(String::new(), |mut text, (bound, count)| {
                let _ = write!(text, " B{bound}(0,{count})");
                text
            })
        }
        Form::Detailed => {
            let totals: Vec<String> = filled(counts)
                .map(|(low, width, count)| format!("{low},{width}:{count}"))
                .collect();
            format!(
                "\n  totals={}\n  intervals=\n  summary={}",
                totals.join(" "),
                percentiles(counts)
            )
        }
    }
}

fn percentiles(counts: &Counts) -> String {
    let parts = PERCENTILES.map(|percentile| {
        let value = at_percentile(counts, percentile).unwrap_or_default();
        format!("P{percentile}(nan,{})", rounded(value))
    });
    parts.join(" ")
}

/// The histograms of the `/stats` page in JSON, all in one value.
pub fn json(all: &[(String, Box<Counts>)], form: Form) -> Value {
    let values = |counts: &Counts| -> Vec<Value> {
        let value = |percentile: &f64| {
            let value = at_percentile(counts, *percentile).map(rounded);
            json!({"interval": null, "cumulative": value})
        };
        PERCENTILES.iter().map(value).collect()
    };
    match form {
        Form::Summary => {
            let computed: Vec<Value> = all
                .iter()
                .map(|(name, counts)| json!({"name": name, "values": values(counts)}))
                .collect();
            json!({"supported_quantiles": PERCENTILES.map(number), "computed_quantiles": computed})
        }
        Form::Cumulative | Form::Disjoint => {
            let each = all.iter().map(|(name, counts)| {
                let buckets: Vec<Value> = bounds(counts, form)
                    .map(|(bound, count)| json!({"upper_bound": number(bound), "interval": 0, "cumulative": count}))
                    .collect();
                json!({"name": name, "buckets": buckets})
            });
            each.collect()
        }
        Form::Detailed => {
            let details: Vec<Value> = all
                .iter()
                .map(|(name, counts)| {
                    let totals: Vec<Value> = filled(counts)
                        .map(|(low, width, count)| json!({"lower_bound": number(low), "width": number(width), "count": count}))
                        .collect();
                    json!({"name": name, "totals": totals, "intervals": [], "percentiles": values(counts)})
                })
                .collect();
            json!({"supported_percentiles": PERCENTILES.map(number), "details": details})
        }
    }
}

/// As JSON, a whole number without a fraction.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        (value as i64).into()
    } else {
        value.into()
    }
}

/// A value without more digits than its bucket can mean.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Upper bounds, and how many values are below, or in the bucket.
fn bounds(counts: &Counts, form: Form) -> impl Iterator<Item = (f64, u64)> {
    let mut below = 0;
    BUCKETS.iter().zip(counts).map(move |(bound, count)| {
        below += count;
        (
            *bound,
            if form == Form::Disjoint {
                *count
            } else {
                below
            },
        )
    })
}

/// The lower bound, the width and the count of buckets that are not empty.
fn filled(counts: &Counts) -> impl Iterator<Item = (f64, f64, u64)> {
    let each = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    each.map(|(index, count)| {
        let low = if index == 0 { 0.0 } else { BUCKETS[index - 1] };
        let high = BUCKETS.get(index).copied().unwrap_or(low);
        (low, high - low, *count)
    })
}

/// The value that so many percent are not above, interpolated within its bucket; `None` where there
/// are no values.
pub fn at_percentile(counts: &Counts, percentile: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let wanted = percentile / 100.0 * total as f64;
    let mut below = 0.0;
    for (low, width, count) in filled(counts) {
        let count = count as f64;
        if below + count >= wanted {
            return Some(low + width * ((wanted - below) / count).clamp(0.0, 1.0));
        }
        below += count;
    }
    Some(BUCKETS[BUCKETS.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_shows_the_same_values() {
        let mut counts = Box::new([0; BUCKETS.len() + 1]);
        (counts[0], counts[2]) = (1, 3);
        let shown = |form| text(&counts, form);
        assert!(shown(Form::Cumulative).starts_with(" B0.5(0,1) B1(0,1) B5(0,4) B10(0,4)"));
        assert!(shown(Form::Disjoint).starts_with(" B0.5(0,1) B1(0,0) B5(0,3) B10(0,0)"));
        assert!(shown(Form::Summary).starts_with(" P0(nan,0) P25(nan,0.5) P50(nan,2.333)"));
        let detailed = shown(Form::Detailed);
        assert!(detailed.starts_with("\n  totals=0,0.5:1 1,4:3\n  intervals=\n  summary=P0("));
        assert_eq!(
            text(&[0; BUCKETS.len() + 1], Form::Detailed),
            " No recorded values"
        );
        let all = [("a".to_owned(), counts.clone())];
        let summary = json(&all, Form::Summary);
        assert_eq!(
            summary["computed_quantiles"][0]["values"][1]["cumulative"],
            0.5
        );
        let buckets = json(&all, Form::Cumulative);
        assert_eq!(buckets[0]["buckets"][2]["cumulative"], 4);
        let detailed = json(&all, Form::Detailed);
        assert_eq!(detailed["details"][0]["totals"][1]["width"], 4);
    }
}
