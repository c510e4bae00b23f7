//! Pages of the admin API in lines.

use outrider_testkit::message::Message;
use serde_json::Value;

/// A page's status, type and content: JSON by paths, anything else by lines.
pub(super) fn lines(page: &Message, at: &[String], without: &[String]) -> Vec<String> {
    let media = page
        .head
        .header("content-type")
        .unwrap_or("none")
        .to_owned();
    let mut lines = vec![format!("admin: {} {media}", page.status().unwrap_or(0))];
    let mut content = Vec::new();
    match serde_json::from_slice::<Value>(&page.body) {
        Ok(value) if value.is_object() || value.is_array() => flatten("", &value, &mut content),
        _ => content.extend(
            page.text()
                .lines()
                .map(|line| (line.to_owned(), String::new())),
        ),
    }
    for (path, value) in content {
        let named =
            |patterns: &[String]| patterns.iter().any(|pattern| begins_with(&path, pattern));
        if (at.is_empty() || named(at)) && !named(without) {
            lines.push(if value.is_empty() {
                format!("admin: {path}")
            } else {
                format!("admin {path} = {value}")
            });
        }
    }
    lines
}

/// Each leaf with its path: `a.b[0].c`.
fn flatten(path: &str, value: &Value, leaves: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, &map[key], leaves);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), item, leaves);
            }
        }
        leaf => leaves.push((path.to_owned(), leaf.to_string())),
    }
}

/// Whether `text` begins with `pattern`, in which `*` stands for any text.
pub(super) fn begins_with(text: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else {
        return text.starts_with(pattern);
    };
    let Some(rest) = text.strip_prefix(before) else {
        return false;
    };
    (0..=rest.len())
        .filter(|at| rest.is_char_boundary(*at))
        .any(|at| begins_with(&rest[at..], after))
}

#[cfg(test)]
mod tests {
    use super::begins_with;

    #[test]
    fn a_star_stands_for_any_text() {
        let cases = [
            ("a[0].b", "a", true),
            ("a[0].b", "a[*].b", true),
            ("a[10].bc", "a[*].b", true),
            ("a[0].c", "a[*].b", false),
            ("x.a", "*a", true),
            ("x", "x*y", false),
        ];
        for (text, pattern, expected) in cases {
            assert_eq!(begins_with(text, pattern), expected, "{text} {pattern}");
        }
    }
}
