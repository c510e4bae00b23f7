//! Moments and how far they are away.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The present moment, read once a run.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0)
        .unwrap_or(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// The moment that a text names.
pub(crate) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(Into::into)
}

/// How long until `end`, in the two largest units: `23h12m`, `expired 5m0s ago`.
pub(crate) fn lifetime(end: SystemTime, now: SystemTime) -> String {
    match end.duration_since(now) {
        Ok(left) => span(left),
        Err(past) => format!("expired {} ago", span(past.duration())),
    }
}

/// A duration in its two largest units.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (365.., ..) => format!("{}y{}d", days / 365, days % 365),
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m1s"),
            (3_600, "1h0m"),
            (86_399, "23h59m"),
            (90_000, "1d1h"),
            (2_592_000, "30d0h"),
            (315_446_400, "10y1d"),
        ] {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
            assert_eq!(lifetime(now + Duration::from_secs(seconds), now), text);
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(300);
        assert_eq!(lifetime(SystemTime::UNIX_EPOCH, now), "expired 5m0s ago");
        assert_eq!(rfc3339(now), "1970-01-01T00:05:00Z");
        assert_eq!(parse_rfc3339("1970-01-01T00:05:00Z"), Some(now));
    }
}
