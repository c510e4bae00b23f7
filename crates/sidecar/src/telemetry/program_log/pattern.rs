//! `--log-format`: spdlog's patterns.

use std::fmt::Write as _;

use time::OffsetDateTime;
use time::macros::format_description as described;
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;

use super::components;

/// The letters that can follow a `%`.
const FLAGS: &str = "v_jtPnlLaAbBcCYDxmdHIMSefFprRTXzE%sg#!+^$*";

/// Envoy's pattern, where it is given none.
pub const DEFAULT: &str = "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";

/// Why a pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("%{flag} is not a flag of the pattern; those are %{}", spaced())]
pub struct PatternError {
    flag: String,
}

fn spaced() -> String {
    let flags: Vec<String> = FLAGS.chars().map(String::from).collect();
    flags.join(" %")
}

/// Where a part stands in its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    Middle,
}

#[derive(Clone, Copy, Debug)]
struct Padding {
    side: Side,
    width: usize,
    cut: bool,
}

#[derive(Debug)]
enum Part {
    Text(String),
    Flag(char, Option<Padding>),
}

/// A pattern, taken apart.
#[derive(Debug)]
pub struct Pattern {
    parts: Vec<Part>,
    /// Whether line feeds and the like become escape sequences in messages.
    escaped: bool,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A flag that there is not.
    pub fn parse(text: &str, escaped: bool) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text.chars().peekable();
        while let Some(letter) = rest.next() {
            if letter != '%' {
                plain.push(letter);
                continue;
            }
            let mut read = String::new();
            let side = match rest.peek() {
                Some('-') => Side::Left,
                Some('=') => Side::Middle,
                _ => Side::Right,
            };
            if side != Side::Right {
                read.extend(rest.next());
            }
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            read.push_str(&digits);
            let width: Option<usize> = digits.parse().ok().filter(|width| *width <= 128);
            let cut = width.is_some() && rest.peek() == Some(&'!') && {
                read.extend(rest.next());
                true
            };
            let padding = width.map(|width| Padding { side, width, cut });
            let flag = rest.next();
            read.extend(flag);
            match flag {
                Some(flag) if FLAGS.contains(flag) && digits.is_empty() == width.is_none() => {
                    if !plain.is_empty() {
                        parts.push(Part::Text(std::mem::take(&mut plain)));
                    }
                    parts.push(Part::Flag(flag, padding));
                }
                _ => return Err(PatternError { flag: read }),
            }
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Pattern { parts, escaped })
    }

    fn line(&self, event: &Line<'_>) -> String {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Flag(flag, padding) => {
                    let value = event.value(*flag, self.escaped);
                    match padding {
                        None => out.push_str(&value),
                        Some(padding) => padding.put(&mut out, &value),
                    }
                }
            }
        }
        out
    }
}

impl Padding {
    fn put(self, out: &mut String, value: &str) {
        let length = value.chars().count();
        if self.cut && length > self.width {
            out.extend(value.chars().take(self.width));
            return;
        }
        let missing = self.width.saturating_sub(length);
        let before = match self.side {
            Side::Left => 0,
            Side::Right => missing,
            Side::Middle => missing / 2,
        };
        out.extend(std::iter::repeat_n(' ', before));
        out.push_str(value);
        out.extend(std::iter::repeat_n(' ', missing - before));
    }
}

/// One message and what is around it.
struct Line<'a> {
    now: OffsetDateTime,
    level: Level,
    target: &'a str,
    file: &'a str,
    line: u32,
    message: &'a str,
    fields: &'a str,
}

impl Line<'_> {
    fn value(&self, flag: char, escaped: bool) -> String {
        let now = self.now;
        let hour_of_12 = || format!("{:02}", (now.hour() + 11) % 12 + 1);
        let half = if now.hour() < 12 { "AM" } else { "PM" };
        // A format of fixed parts cannot fail.
        let time = |format: &[time::format_description::BorrowedFormatItem<'_>]| {
            now.format(&format).unwrap_or_default()
        };
        match flag {
            'v' if escaped => self.message.escape_debug().to_string(),
            'v' => self.message.to_owned(),
            '_' => self.message.escape_debug().to_string(),
            'j' => {
                let quoted = serde_json::Value::from(self.message).to_string();
                quoted[1..quoted.len() - 1].to_owned()
            }
            't' => nix::unistd::gettid().to_string(),
            'P' => std::process::id().to_string(),
            'n' => components::of_target(self.target).to_owned(),
            'l' => name(self.level).to_owned(),
            'L' => name(self.level)[..1].to_ascii_uppercase(),
            'a' => time(described!("[weekday repr:short]")),
            'A' => time(described!("[weekday]")),
            'b' => time(described!("[month repr:short]")),
            'B' => time(described!("[month repr:long]")),
            'c' => time(described!(
                "[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]"
            )),
            'C' => time(described!("[year repr:last_two]")),
            'Y' => time(described!("[year]")),
            'D' | 'x' => time(described!("[month]/[day]/[year repr:last_two]")),
            'm' => time(described!("[month]")),
            'd' => time(described!("[day]")),
            'H' => time(described!("[hour]")),
            'I' => hour_of_12(),
            'M' => time(described!("[minute]")),
            'S' => time(described!("[second]")),
            'e' => format!("{:03}", now.millisecond()),
            'f' => format!("{:06}", now.microsecond()),
            'F' => format!("{:09}", now.nanosecond()),
            'p' => half.to_owned(),
            'r' => format!(
                "{}:{} {half}",
                hour_of_12(),
                time(described!("[minute]:[second]"))
            ),
            'R' => time(described!("[hour]:[minute]")),
            'T' | 'X' => time(described!("[hour]:[minute]:[second]")),
            'z' => "+00:00".to_owned(),
            'E' => now.unix_timestamp().to_string(),
            '%' => "%".to_owned(),
            's' => self.file.rsplit('/').next().unwrap_or_default().to_owned(),
            'g' => self.file.to_owned(),
            '#' => self.line.to_string(),
            '!' => self.target.to_owned(),
            '*' => self.fields.to_owned(),
            '+' => {
                let date = time(described!(
                    "[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]"
                ));
                let (level, component) = (name(self.level), components::of_target(self.target));
                format!("[{date}] [{component}] [{level}] {}", self.message)
            }
            // Where a terminal would colour: nothing is coloured here.
            _ => String::new(),
        }
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The message of an event, with its fields behind it, and these by themselves.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value}"),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

impl Pattern {
    /// Writes the line of an event.
    pub(super) fn format(&self, mut writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        let message = format!("{}{}", text.message, text.fields);
        let line = self.line(&Line {
            now: OffsetDateTime::now_utc(),
            level: *metadata.level(),
            target: metadata.target(),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            message: &message,
            fields: text.fields.trim_start(),
        });
        writeln!(writer, "{line}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_has_its_value() {
        let line = Line {
            now: OffsetDateTime::from_unix_timestamp(1_767_531_909).unwrap(),
            level: Level::WARN,
            target: "outrider_sidecar::upstream::pool::idle",
            file: "src/upstream/pool/idle.rs",
            line: 7,
            message: "a \"b\"\nc d=1",
            fields: "d=1",
        };
        for (pattern, expected) in [
            (
                "[%Y-%m-%d %T.%e][%l][%n] [%g:%#]",
                "[2026-01-04 13:05:09.000][warning][pool] [src/upstream/pool/idle.rs:7]",
            ),
            ("%s %L %p %I %r %R", "idle.rs W PM 01 01:05:09 PM 13:05"),
            (
                "%a %A %b %B %C %D %E%%",
                "Sun Sunday Jan January 26 01/04/26 1767531909%",
            ),
            (
                "%c|%f|%F|%z",
                "Sun Jan  4 13:05:09 2026|000000|000000000|+00:00",
            ),
            (
                "%8l|%-8l|%=9l|%3!l|%^%$",
                " warning|warning | warning |war|",
            ),
            ("%_|%j|%*", "a \\\"b\\\"\\nc d=1|a \\\"b\\\"\\nc d=1|d=1"),
            ("%v", "a \"b\"\nc d=1"),
        ] {
            let pattern = Pattern::parse(pattern, false).unwrap();
            assert_eq!(pattern.line(&line), expected);
        }
        for (bad, flag) in [("%Q", "Q"), ("a%", ""), ("%8Q", "8Q"), ("%999l", "999l")] {
            let error = Pattern::parse(bad, false).unwrap_err();
            assert_eq!(error.flag, flag, "{bad}");
        }
    }
}
