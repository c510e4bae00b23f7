//! `%START_TIME(...)%`: a point in time by a strftime pattern, in UTC or in the machine's time zone.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use time::{OffsetDateTime, UtcOffset};

/// A parsed pattern.
#[derive(Debug)]
pub(super) struct TimeFormat {
    parts: Vec<Part>,
    /// `None` is UTC.
    zone: Option<TimeZone>,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Year,
    YearOfCentury,
    Month,
    MonthName,
    MonthShort,
    Day,
    DaySpaced,
    DayOfYear,
    WeekdayName,
    WeekdayShort,
    Hour,
    Minute,
    Second,
    EpochSeconds,
    /// `+0100`
    ZoneOffset,
    /// `CET`
    ZoneName,
    /// So many digits of the fraction of the second.
    Fraction(u8),
}

/// RFC 3339 with milliseconds.
const DEFAULT: &str = "%Y-%m-%dT%H:%M:%E3SZ";
/// The same where it is not UTC.
const DEFAULT_LOCAL: &str = "%Y-%m-%dT%H:%M:%E3S%z";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

impl TimeFormat {
    /// Parses a pattern; an empty one is the default.
    pub(super) fn parse(pattern: &str, local: bool) -> Result<TimeFormat, &'static str> {
        let mut parts = Vec::new();
        let pattern = match pattern {
            "" if local => DEFAULT_LOCAL,
            "" => DEFAULT,
            pattern => pattern,
        };
        let mut rest = pattern;
        while let Some(percent) = rest.find('%') {
            literal(&mut parts, &rest[..percent]);
            rest = specifier(&rest[percent + 1..], &mut parts)?;
        }
        literal(&mut parts, rest);
        Ok(TimeFormat {
            parts,
            zone: local.then(TimeZone::system),
        })
    }

    /// Appends `time`.
    pub(super) fn write(&self, time: SystemTime, out: &mut Vec<u8>) {
        let epoch = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let date = OffsetDateTime::from(SystemTime::UNIX_EPOCH + epoch);
        let zone = self.zone.as_ref().and_then(|zone| {
            let at = Timestamp::from_second(i64::try_from(epoch.as_secs()).ok()?).ok()?;
            Some(zone.to_offset_info(at))
        });
        let seconds = zone.as_ref().map_or(0, |zone| zone.offset().seconds());
        let date =
            UtcOffset::from_whole_seconds(seconds).map_or(date, |offset| date.to_offset(offset));
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
                Part::Year => number(out, date.year().unsigned_abs().into(), 4),
                Part::YearOfCentury => number(out, (date.year().unsigned_abs() % 100).into(), 2),
                Part::Month => number(out, u8::from(date.month()).into(), 2),
                Part::MonthName => out.extend_from_slice(month(&date).as_bytes()),
                Part::MonthShort => out.extend_from_slice(&month(&date).as_bytes()[..3]),
                Part::Day => number(out, date.day().into(), 2),
                Part::DaySpaced => {
                    if date.day() < 10 {
                        out.push(b' ');
                    }
                    number(out, date.day().into(), 1);
                }
                Part::DayOfYear => number(out, date.ordinal().into(), 3),
                Part::WeekdayName => out.extend_from_slice(weekday(&date).as_bytes()),
                Part::WeekdayShort => out.extend_from_slice(&weekday(&date).as_bytes()[..3]),
                Part::Hour => number(out, date.hour().into(), 2),
                Part::Minute => number(out, date.minute().into(), 2),
                Part::Second => number(out, date.second().into(), 2),
                Part::EpochSeconds => number(out, epoch.as_secs(), 1),
                Part::ZoneOffset => {
                    out.push(if seconds < 0 { b'-' } else { b'+' });
                    let minutes = u64::from(seconds.unsigned_abs() / 60);
                    number(out, minutes / 60 * 100 + minutes % 60, 4);
                }
                Part::ZoneName => {
                    let name = zone.as_ref().map_or("UTC", |zone| zone.abbreviation());
                    out.extend_from_slice(name.as_bytes());
                }
                Part::Fraction(digits) => {
                    let unit = 10_u32.pow(9 - u32::from(*digits));
                    number(out, (epoch.subsec_nanos() / unit).into(), *digits);
                }
            }
        }
    }
}

fn month(date: &OffsetDateTime) -> &'static str {
    MONTHS[usize::from(u8::from(date.month())) - 1]
}

fn weekday(date: &OffsetDateTime) -> &'static str {
    WEEKDAYS[usize::from(date.weekday().number_days_from_monday())]
}

/// Appends a number with leading zeros up to `width` digits.
fn number(out: &mut Vec<u8>, value: u64, width: u8) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value:0width$}", width = usize::from(width));
}

fn literal(parts: &mut Vec<Part>, text: &str) {
    if text.is_empty() {
        return;
    }
    match parts.last_mut() {
        Some(Part::Literal(before)) => *before = format!("{before}{text}").into(),
        _ => parts.push(Part::Literal(text.into())),
    }
}

/// Reads what follows a `%`; answers the rest.
fn specifier<'a>(text: &'a str, parts: &mut Vec<Part>) -> Result<&'a str, &'static str> {
    let mut characters = text.chars();
    let first = characters.next().ok_or("a % at the end")?;
    let part = match first {
        'Y' => Part::Year,
        'y' => Part::YearOfCentury,
        'm' => Part::Month,
        'B' => Part::MonthName,
        'b' | 'h' => Part::MonthShort,
        'd' => Part::Day,
        'e' => Part::DaySpaced,
        'j' => Part::DayOfYear,
        'A' => Part::WeekdayName,
        'a' => Part::WeekdayShort,
        'H' => Part::Hour,
        'M' => Part::Minute,
        'S' => Part::Second,
        's' => Part::EpochSeconds,
        'f' => Part::Fraction(9),
        '1'..='9' => {
            let digits = first as u8 - b'0';
            let rest = characters.as_str();
            parts.push(Part::Fraction(digits));
            return rest
                .strip_prefix('f')
                .ok_or("a digit after % must be followed by f, as in %3f");
        }
        'E' => {
            let digits = characters.next().and_then(|c| c.to_digit(10));
            let seconds = characters.next() == Some('S');
            let (Some(digits @ 1..=9), true) = (digits, seconds) else {
                return Err("%E must be followed by a digit and S, as in %E3S");
            };
            parts.push(Part::Second);
            literal(parts, ".");
            parts.push(Part::Fraction(digits as u8));
            return Ok(characters.as_str());
        }
        'F' => {
            parts.push(Part::Year);
            literal(parts, "-");
            parts.push(Part::Month);
            literal(parts, "-");
            Part::Day
        }
        'T' => {
            parts.push(Part::Hour);
            literal(parts, ":");
            parts.push(Part::Minute);
            literal(parts, ":");
            Part::Second
        }
        'z' => Part::ZoneOffset,
        'Z' => Part::ZoneName,
        '%' => {
            literal(parts, "%");
            return Ok(characters.as_str());
        }
        _ => {
            return Err(
                "unknown time specifier; supported are %Y %y %m %B %b %d %e %j %A %a %H %M %S %s %f %1f to %9f %E1S to %E9S %F %T %z %Z %%",
            );
        }
    };
    parts.push(part);
    Ok(characters.as_str())
}
