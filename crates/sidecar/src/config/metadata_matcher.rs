//! `MetadataMatcher`: what a value of the dynamic metadata must be.

use serde_json::{Map, Value};

use super::matcher::StringMatcher;

/// `MetadataMatcher`.
#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    /// `filter`: the namespace.
    pub namespace: Box<str>,
    /// `path`: names from the outside to the inside.
    pub path: Box<[Box<str>]>,
    /// `value`
    pub value: ValueMatcher,
    /// `invert`
    pub invert: bool,
}

impl MetadataMatcher {
    /// Whether the metadata is as wanted; `namespace` is the object of that name, if there is one.
    pub fn matches(&self, namespace: Option<&Map<String, Value>>) -> bool {
        let value = namespace.and_then(|object| at(object, &self.path));
        self.value.matches(value) != self.invert
    }
}

/// The value at a path.
pub fn at<'a>(object: &'a Map<String, Value>, path: &[Box<str>]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter()
        .try_fold(object.get(&**first)?, |value, name| value.get(&**name))
}

/// `ValueMatcher`. What is not there is no value, not even null.
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// `null_match`
    Null,
    /// `double_match.range`: from, and up to without.
    Range(f64, f64),
    /// `double_match.exact`
    Number(f64),
    /// `string_match`
    Text(StringMatcher),
    /// `bool_match`
    Flag(bool),
    /// `present_match`; `false` matches nothing.
    Present(bool),
    /// `list_match.one_of`: a list with such a value.
    OneOf(Box<ValueMatcher>),
    /// `or_match`
    Any(Vec<ValueMatcher>),
}

impl ValueMatcher {
    fn matches(&self, value: Option<&Value>) -> bool {
        match self {
            ValueMatcher::Any(all) => return all.iter().any(|one| one.matches(value)),
            ValueMatcher::Present(wanted) => return *wanted && value.is_some(),
            _ => {}
        }
        match (self, value) {
            (ValueMatcher::Null, Some(Value::Null)) => true,
            (ValueMatcher::Flag(wanted), Some(Value::Bool(flag))) => wanted == flag,
            (ValueMatcher::Text(matcher), Some(Value::String(text))) => {
                matcher.matches(text.as_bytes())
            }
            (ValueMatcher::Range(from, to), Some(Value::Number(number))) => number
                .as_f64()
                .is_some_and(|number| *from <= number && number < *to),
            (ValueMatcher::Number(wanted), Some(Value::Number(number))) => {
                number.as_f64() == Some(*wanted)
            }
            (ValueMatcher::OneOf(matcher), Some(Value::Array(values))) => {
                values.iter().any(|value| matcher.matches(Some(value)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::matcher::Case;

    #[test]
    fn values_are_compared_by_their_kind() {
        let text = |text: &str| {
            ValueMatcher::Text(StringMatcher::Exact(
                text.as_bytes().into(),
                Case::Sensitive,
            ))
        };
        let cases = [
            (ValueMatcher::Null, json!({"a": null}), true),
            (ValueMatcher::Null, json!({}), false),
            (ValueMatcher::Present(true), json!({"a": null}), true),
            (ValueMatcher::Present(true), json!({}), false),
            (ValueMatcher::Present(false), json!({}), false),
            (ValueMatcher::Flag(false), json!({"a": false}), true),
            (ValueMatcher::Flag(false), json!({"a": "false"}), false),
            (ValueMatcher::Range(1.0, 2.0), json!({"a": 1}), true),
            (ValueMatcher::Range(1.0, 2.0), json!({"a": 2}), false),
            (ValueMatcher::Number(2.0), json!({"a": 2}), true),
            (text("x"), json!({"a": "x"}), true),
            (text("1"), json!({"a": 1}), false),
            (
                ValueMatcher::OneOf(Box::new(text("x"))),
                json!({"a": [1, "x"]}),
                true,
            ),
            (
                ValueMatcher::OneOf(Box::new(text("x"))),
                json!({"a": "x"}),
                false,
            ),
            (
                ValueMatcher::Any(vec![ValueMatcher::Null, text("x")]),
                json!({"a": "x"}),
                true,
            ),
        ];
        for (value, object, expected) in cases {
            for invert in [false, true] {
                let matcher = MetadataMatcher {
                    namespace: "n".into(),
                    path: ["a".into()].into(),
                    value: value.clone(),
                    invert,
                };
                let matches = matcher.matches(object.as_object());
                assert_eq!(matches, expected != invert, "{value:?} {object}");
            }
        }
    }
}
