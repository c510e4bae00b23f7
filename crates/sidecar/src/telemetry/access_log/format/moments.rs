//! `%COMMON_DURATION(...)%`: the time between two points of a request.

use std::io::Write as _;
use std::time::Duration;

use crate::telemetry::access_log::record::Record;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    RequestBegin,
    RequestEnd,
    UpstreamBegin,
    UpstreamSent,
    ResponseBegin,
    ResponseEnd,
    SentBegin,
    SentEnd,
}

const POINTS: &[(&str, Point)] = &[
    ("DS_RX_BEG", Point::RequestBegin),
    ("DS_RX_END", Point::RequestEnd),
    ("US_TX_BEG", Point::UpstreamBegin),
    ("US_TX_END", Point::UpstreamSent),
    ("US_RX_BEG", Point::ResponseBegin),
    ("US_RX_END", Point::ResponseEnd),
    ("DS_TX_BEG", Point::SentBegin),
    ("DS_TX_END", Point::SentEnd),
];

/// Two points and a unit.
#[derive(Debug)]
pub(super) struct Between {
    from: Point,
    to: Point,
    /// Nanoseconds of the unit.
    unit: i128,
}

impl Between {
    pub(super) fn parse(argument: &str) -> Result<Between, &'static str> {
        let mut parts = argument.split(':');
        let (Some(from), Some(to), Some(unit), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("must be START:END:PRECISION");
        };
        let point = |name: &str| {
            let row = POINTS.iter().find(|(known, _)| *known == name);
            row.map(|(_, point)| *point).ok_or(
                "supported points are DS_RX_BEG, DS_RX_END, US_TX_BEG, US_TX_END, US_RX_BEG, US_RX_END, DS_TX_BEG and DS_TX_END",
            )
        };
        Ok(Between {
            from: point(from)?,
            to: point(to)?,
            unit: match unit {
                "ms" => 1_000_000,
                "us" => 1_000,
                "ns" => 1,
                _ => return Err("the precision must be ms, us or ns"),
            },
        })
    }

    pub(super) fn write(&self, record: &Record<'_>, out: &mut Vec<u8>) -> bool {
        let at = |point| Some(point_of(record, point)?.as_nanos() as i128);
        let between = at(self.to).zip(at(self.from));
        between.is_some_and(|(to, from)| write!(out, "{}", (to - from) / self.unit).is_ok())
    }
}

/// A point, counted from the begin of the request; `None` where the request never came to it.
fn point_of(record: &Record<'_>, point: Point) -> Option<Duration> {
    record.request?;
    match point {
        Point::RequestBegin => Some(Duration::ZERO),
        Point::RequestEnd => record.moments.request_end,
        Point::UpstreamBegin => record.moments.upstream_begin,
        Point::UpstreamSent => record.moments.upstream_sent,
        Point::ResponseBegin | Point::SentBegin => record.response_duration,
        Point::ResponseEnd => record.moments.response_end,
        Point::SentEnd => (record.status != 0).then_some(record.duration),
    }
}
