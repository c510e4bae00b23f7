//! Placeholders in what a case says, and their way back in what was seen.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What the placeholders `${name}` stand for on one side.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    values: BTreeMap<String, String>,
    /// Texts of this side that the other has differently, and what they are called in both.
    known: Vec<(String, String)>,
}

impl Names {
    /// A placeholder.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.values.insert(name.into(), value.into());
    }

    /// All of another.
    pub(super) fn extend(&mut self, other: Self) {
        self.values.extend(other.values);
        for (text, name) in other.known {
            self.know(text, name);
        }
    }

    /// A text that differs between the sides.
    pub(super) fn know(&mut self, text: impl Into<String>, name: impl Into<String>) {
        self.known.push((text.into(), name.into()));
        // The longest first: a folder's file before the folder.
        self.known
            .sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    }

    /// A port, as a placeholder and as what differs.
    pub(super) fn port(&mut self, name: &str, port: u16) {
        self.set(name, port.to_string());
        self.know(port.to_string(), format!("<{name}>"));
    }

    /// Fills the placeholders in.
    ///
    /// # Errors
    /// When one is unknown.
    pub(super) fn fill(&self, text: &str) -> Result<String> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            filled.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let end = inner
                .find('}')
                .with_context(|| format!("{text:?}: ${{ has no end"))?;
            let name = &inner[..end];
            let value = match name.strip_suffix(":inline") {
                Some(name) => {
                    let path = self.value(name)?;
                    std::fs::read_to_string(path).with_context(|| format!("read {path}"))?
                }
                None => self.value(name)?.clone(),
            };
            filled.push_str(&value);
            rest = &inner[end + 1..];
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, name: &str) -> Result<&String> {
        self.values.get(name).with_context(|| {
            let known: Vec<&str> = self.values.keys().map(String::as_str).collect();
            format!("${{{name}}} is unknown; there are {}", known.join(", "))
        })
    }

    /// Fills the placeholders of all texts in. A text that is nothing but a port is a number then.
    ///
    /// # Errors
    /// When one is unknown.
    pub(super) fn fill_value(&self, value: &mut Value) -> Result<()> {
        match value {
            Value::String(text) if text.contains("${") => {
                let filled = self.fill(text)?;
                let whole = text.starts_with("${") && text.find('}') == Some(text.len() - 1);
                *value = match filled.parse::<u64>() {
                    Ok(number) if whole => number.into(),
                    _ => Value::String(filled),
                };
            }
            Value::Array(items) => {
                for item in items {
                    self.fill_value(item)?;
                }
            }
            Value::Object(map) => {
                for (_, item) in map.iter_mut() {
                    self.fill_value(item)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A text with what differs between the sides replaced by names, and other ports that the
    /// kernel chose by `<port>`.
    pub(super) fn neutral(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (known, name) in &self.known {
            if known.bytes().all(|byte| byte.is_ascii_digit()) {
                text = replace_number(&text, known, name);
            } else {
                text = text.replace(known.as_str(), name);
            }
        }
        replace_ports(&text)
    }
}

fn replace_number(text: &str, number: &str, name: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(number) {
        let (before, after) = (&rest[..start], &rest[start + number.len()..]);
        result.push_str(before);
        let digit = |character: Option<char>| character.is_some_and(|c| c.is_ascii_alphanumeric());
        let within = digit(before.chars().next_back()) || digit(after.chars().next());
        result.push_str(if within { number } else { name });
        rest = after;
    }
    result.push_str(rest);
    result
}

/// `127.0.0.1:45678` becomes `127.0.0.1:<port>`: ports of clients.
fn replace_ports(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(colon) = rest.find(':') {
        let (before, after) = rest.split_at(colon + 1);
        result.push_str(before);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        let behind_address = before[..colon].ends_with(|c: char| c.is_ascii_digit() || c == ']');
        let ephemeral = digits == 5
            && after[..digits]
                .parse::<u32>()
                .is_ok_and(|port| port >= 32768);
        if behind_address && ephemeral {
            result.push_str("<port>");
            rest = &after[digits..];
        } else {
            rest = after;
        }
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Names;

    #[test]
    fn placeholders_go_in_and_come_back() {
        let mut names = Names::default();
        names.port("up", 4711);
        names.know("/tmp/x", "<folder>");
        let mut value = serde_json::json!({"a": "${up}", "b": ["h:${up}/"]});
        names.fill_value(&mut value).unwrap();
        assert_eq!(value, serde_json::json!({"a": 4711, "b": ["h:4711/"]}));
        let seen = "127.0.0.1:4711 14711 /tmp/x/log [::1]:40000 v1:40000 127.0.0.2:40001,";
        let neutral = "127.0.0.1:<up> 14711 <folder>/log [::1]:<port> v1:<port> 127.0.0.2:<port>,";
        assert_eq!(names.neutral(seen), neutral);
        assert!(names.fill("${other}").is_err());
    }
}
