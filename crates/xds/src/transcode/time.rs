//! Durations and timestamps as proto3 JSON writes them: `1.5s` and RFC 3339.

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// The largest number of seconds in a `google.protobuf.Duration`, about 10,000 years.
const MAX_SECONDS: i64 = 315_576_000_000;

/// The seconds and nanoseconds of a text such as `1.5s` or `-0.25s`.
pub(super) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let number = text.strip_suffix('s')?;
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let seconds: i64 = whole
        .parse()
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)?;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Some(if negative {
        (-seconds, -nanos)
    } else {
        (seconds, nanos)
    })
}

/// `1.500s`
pub(super) fn format_duration(seconds: i64, nanos: i32) -> String {
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    format!("{sign}{}{}s", seconds.unsigned_abs(), fraction(nanos))
}

/// No fraction, or 3, 6 or 9 digits of it.
fn fraction(nanos: i32) -> String {
    match nanos.unsigned_abs() {
        0 => String::new(),
        nanos if nanos.is_multiple_of(1_000_000) => format!(".{:03}", nanos / 1_000_000),
        nanos if nanos.is_multiple_of(1_000) => format!(".{:06}", nanos / 1_000),
        nanos => format!(".{nanos:09}"),
    }
}

/// The seconds and nanoseconds since 1970 of an RFC 3339 text.
pub(super) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some((
        time.unix_timestamp(),
        i32::try_from(time.nanosecond()).ok()?,
    ))
}

/// RFC 3339 in UTC; `None` outside of years 1 to 9999.
pub(super) fn format_timestamp(seconds: i64, nanos: i32) -> Option<String> {
    let whole = OffsetDateTime::from_unix_timestamp(seconds)
        .ok()?
        .format(&Rfc3339)
        .ok()?;
    let whole = whole.strip_suffix('Z')?;
    Some(format!("{whole}{}Z", fraction(nanos)))
}
