//! One value of a layer, read as Envoy reads it.

use std::collections::BTreeMap;

use serde_json::Value as Json;

/// A value as it was written, and as what it can be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    text: String,
    boolean: Option<bool>,
    number: Option<f64>,
    fraction: Option<(u32, u32)>,
}

impl Value {
    /// From text, as it comes from a file or the admin API: what it means as YAML.
    pub fn parse(text: &str) -> Self {
        let value = outrider_xds::transcode::yaml_to_value(text).unwrap_or(Json::Null);
        Self::new(&value, text.to_owned())
    }

    fn new(value: &Json, text: String) -> Self {
        let number = value.as_f64();
        Value {
            text,
            boolean: match value {
                Json::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
                Json::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
                _ => value
                    .as_bool()
                    .or_else(|| number.filter(|n| n.fract() == 0.0).map(|n| n != 0.0)),
            },
            number,
            fraction: fraction(value),
        }
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// As a flag; a whole number is one too.
    pub fn boolean(&self) -> Option<bool> {
        self.boolean
    }

    /// As a number that is not negative; what follows the point is cut off.
    pub fn integer(&self) -> Option<u64> {
        // 2^64, above which no `u64` is; the cast is exact or cuts, never saturates.
        const END: f64 = 18_446_744_073_709_551_616.0;
        let number = self.number.filter(|number| (0.0..END).contains(number))?;
        Some(number as u64)
    }

    /// As a number.
    pub fn double(&self) -> Option<f64> {
        self.number
    }

    /// As so many of so many; a whole number is a percentage.
    pub fn fraction(&self) -> Option<(u32, u32)> {
        let percent = || Some((u32::try_from(self.integer()?.min(100)).ok()?, 100));
        self.fraction.or_else(percent)
    }
}

/// `{numerator: 3, denominator: TEN_THOUSAND}`, either of which may be left out.
fn fraction(value: &Json) -> Option<(u32, u32)> {
    let fields = value.as_object()?;
    let known = |name: &String| name == "numerator" || name == "denominator";
    if fields.is_empty() || !fields.keys().all(known) {
        return None;
    }
    let numerator = match fields.get("numerator") {
        None => 0,
        Some(number) => u32::try_from(number.as_u64()?).ok()?,
    };
    let denominator = match fields.get("denominator") {
        None => 100,
        Some(name) => match (name.as_str(), name.as_u64()) {
            (Some("HUNDRED"), _) | (_, Some(0)) => 100,
            (Some("TEN_THOUSAND"), _) | (_, Some(1)) => 10_000,
            (Some("MILLION"), _) | (_, Some(2)) => 1_000_000,
            _ => return None,
        },
    };
    Some((numerator, denominator))
}

/// Why a struct is no layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is neither a number, a flag, a text nor a fraction, nor a struct of those")]
pub struct NoValue {
    /// The key, with dots.
    pub key: String,
}

/// The values of a struct (a static layer, RTDS): structs within it are parts of a key, but for
/// those that are fractions.
///
/// # Errors
/// A key without a value, or with a list.
pub fn of_struct(
    fields: &serde_json::Map<String, Json>,
) -> Result<BTreeMap<String, Value>, NoValue> {
    let mut values = BTreeMap::new();
    for (name, value) in fields {
        add(name.clone(), value, &mut values)?;
    }
    Ok(values)
}

fn add(key: String, value: &Json, into: &mut BTreeMap<String, Value>) -> Result<(), NoValue> {
    let text = match value {
        Json::Null | Json::Array(_) => return Err(NoValue { key }),
        Json::Object(fields) => {
            let is_value = fields.is_empty()
                || fields.contains_key("numerator")
                || fields.contains_key("denominator");
            if !is_value {
                for (name, value) in fields {
                    add(format!("{key}.{name}"), value, into)?;
                }
                return Ok(());
            }
            value.to_string()
        }
        Json::String(text) => {
            into.insert(key, Value::parse(text));
            return Ok(());
        }
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    };
    into.insert(key, Value::new(value, text));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_as_every_type_that_it_can_be() {
        // text, flag, integer, double, fraction
        type Row = (
            &'static str,
            Option<bool>,
            Option<u64>,
            Option<f64>,
            Option<(u32, u32)>,
        );
        let rows: &[Row] = &[
            ("5", Some(true), Some(5), Some(5.0), Some((5, 100))),
            ("0", Some(false), Some(0), Some(0.0), Some((0, 100))),
            ("150", Some(true), Some(150), Some(150.0), Some((100, 100))),
            ("1.5", None, Some(1), Some(1.5), Some((1, 100))),
            ("-3", Some(true), None, Some(-3.0), None),
            ("1e20", Some(true), None, Some(1e20), None),
            ("true", Some(true), None, None, None),
            ("False", Some(false), None, None, None),
            ("words", None, None, None, None),
            ("{numerator: 3}", None, None, None, Some((3, 100))),
            (
                "numerator: 7\ndenominator: MILLION",
                None,
                None,
                None,
                Some((7, 1_000_000)),
            ),
            ("{numerator: 3, denominator: TEN}", None, None, None, None),
            ("[", None, None, None, None),
        ];
        for (text, boolean, integer, double, fraction) in rows {
            let value = Value::parse(text);
            assert_eq!(value.text(), *text);
            let read = (value.boolean(), value.integer(), value.double());
            assert_eq!(read, (*boolean, *integer, *double), "{text}");
            assert_eq!(value.fraction(), *fraction, "{text}");
        }
    }

    #[test]
    fn structs_are_parts_of_keys() {
        let layer = serde_json::json!({
            "a": {"b": 1, "c": {"d": "x"}},
            "e": {"numerator": 1, "denominator": "MILLION"},
        });
        let values = of_struct(layer.as_object().unwrap()).unwrap();
        assert_eq!(
            values.keys().map(String::as_str).collect::<Vec<_>>(),
            ["a.b", "a.c.d", "e"]
        );
        assert_eq!(values["e"].fraction(), Some((1, 1_000_000)));
        let bad = serde_json::json!({"a": {"b": [1]}});
        assert_eq!(of_struct(bad.as_object().unwrap()).unwrap_err().key, "a.b");
    }
}
