//! What counts as a difference, and how it is shown.

use super::file::Compare;
use super::names::Names;
use super::pages::begins_with;

/// Headers whose values are never the same twice.
const VARYING: [&str; 2] = ["date", "x-envoy-upstream-service-time"];

/// What one side saw, without what cannot or need not be the same.
pub(super) fn comparable(lines: &[String], names: &Names, compare: &Compare) -> Vec<String> {
    lines
        .iter()
        .filter(|line| compare.pool || !line.contains(" pool: connection "))
        .map(|line| header(&names.neutral(line), compare.case))
        .filter(|line| {
            !compare
                .without
                .iter()
                .any(|pattern| begins_with(line, pattern))
        })
        .collect()
}

/// A header's line without what varies: the case of its name, and some values.
fn header(line: &str, keep_case: bool) -> String {
    let marker = [" header ", " trailer "]
        .iter()
        .find_map(|marker| line.find(marker).map(|at| at + marker.len()));
    let Some(name_at) = marker else {
        return line.to_owned();
    };
    let from = name_at + usize::from(line[name_at..].starts_with(':'));
    let Some(end) = line[from..].find(": ").map(|end| from + end) else {
        return line.to_owned();
    };
    let name = line[name_at..end].to_ascii_lowercase();
    let value = &line[end + 2..];
    let value = match name.as_str() {
        name if VARYING.contains(&name) => "*",
        // One that the proxy made.
        "x-request-id" if value.len() == 36 => "*",
        _ => value,
    };
    let name = if keep_case {
        line[name_at..end].to_owned()
    } else {
        name
    };
    format!("{}{name}: {value}", &line[..name_at])
}

/// The difference of two lists of lines: what only one of them has, each with the line before it
/// that both have.
pub(super) fn difference(ours: &[String], envoy: &[String]) -> Vec<String> {
    let mut result = Vec::new();
    let mut context: Option<&String> = None;
    let mut show = |context: &mut Option<&String>, line: String| {
        if let Some(both) = context.take() {
            result.push(format!("      both:  {both}"));
        }
        result.push(line);
    };
    let common = common(ours, envoy);
    let (mut at, mut other) = (0, 0);
    for (ours_index, envoy_index) in common.into_iter().chain([(ours.len(), envoy.len())]) {
        for line in &envoy[other..envoy_index] {
            show(&mut context, format!("      Envoy: {line}"));
        }
        for line in &ours[at..ours_index] {
            show(&mut context, format!("      ours:  {line}"));
        }
        context = ours.get(ours_index);
        (at, other) = (ours_index + 1, envoy_index + 1);
    }
    result
}

/// The pairs of indices of a longest common subsequence.
fn common(left: &[String], right: &[String]) -> Vec<(usize, usize)> {
    let width = right.len() + 1;
    // Pages of thousands of lines are compared as they stand.
    if left.len().saturating_mul(width) > 4_000_000 {
        let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
        return (0..same).map(|index| (index, index)).collect();
    }
    let mut lengths = vec![0u32; (left.len() + 1) * width];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            lengths[i * width + j] = if left[i] == right[j] {
                lengths[(i + 1) * width + j + 1] + 1
            } else {
                lengths[(i + 1) * width + j].max(lengths[i * width + j + 1])
            };
        }
    }
    let mut pairs = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < left.len() && j < right.len() {
        if left[i] == right[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_only_one_has() {
        let lines = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let shown = difference(&lines("a b c x"), &lines("a c d"));
        let expected = [
            "      both:  a",
            "      ours:  b",
            "      both:  c",
            "      Envoy: d",
            "      ours:  x",
        ];
        assert_eq!(shown, expected);
        assert!(difference(&lines("a"), &lines("a")).is_empty());
    }

    #[test]
    fn leaves_out_what_varies() {
        let lines = [
            "response header Date: now",
            "response header X: y",
            "upstream up pool: connection 1",
            "upstream up request header X-Request-Id: 01234567-0123-0123-0123-0123456789ab",
        ]
        .map(str::to_owned);
        let compare = Compare {
            without: vec!["response header x".to_owned()],
            ..Compare::default()
        };
        let expected = [
            "response header date: *",
            "upstream up request header x-request-id: *",
        ];
        assert_eq!(comparable(&lines, &Names::default(), &compare), expected);
    }
}
