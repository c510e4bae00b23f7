//! Which requests and connections a log is written for, and which local replies a mapper changes.

use std::sync::Arc;
use std::time::Duration;

use super::flags::Flags;
use super::format::grpc;
use super::record::{LogKind, Record};
use crate::config::matcher::HeaderMatcher;
use crate::config::metadata_matcher::{self, MetadataMatcher};
use crate::http::headers::Name;
use crate::matching::cel::Expression;
use crate::runtime::random::Random;
use crate::runtime_layer::{Fraction, Number};

/// `AccessLogFilter`.
#[derive(Clone, Debug)]
pub enum LogFilter {
    /// `status_code_filter`; a request without a response has the status 0.
    Status(Comparison),
    /// `duration_filter`, in milliseconds.
    Duration(Comparison),
    /// `not_health_check_filter`: all, for no filter marks health checks.
    NotHealthCheck,
    /// `traceable_filter`: none, for no request is traced.
    Traceable,
    /// `runtime_filter`
    Runtime {
        /// How many of the requests.
        fraction: Fraction,
        /// `use_independent_randomness`: else proxies that see the same request id decide alike.
        independent: bool,
    },
    /// `and_filter`
    And(Vec<LogFilter>),
    /// `or_filter`
    Or(Vec<LogFilter>),
    /// `header_filter`: a header of the request.
    Header(Box<HeaderMatcher>),
    /// `response_flag_filter`: one of these flags; `None`: any flag at all.
    Flags(Option<Flags>),
    /// `grpc_status_filter`
    Grpc {
        /// A bit for each status.
        statuses: u32,
        /// `exclude`: all others.
        exclude: bool,
    },
    /// `extension_filter` with an expression that must be true.
    Expression(Arc<Expression>),
    /// `metadata_filter`
    Metadata {
        /// `matcher`; `None`: no value is looked at.
        matcher: Option<Box<MetadataMatcher>>,
        /// `match_if_key_not_found`
        unless_there: bool,
    },
    /// `log_type_filter`
    Kind {
        /// The types.
        kinds: Vec<LogKind>,
        /// `exclude`: all others.
        exclude: bool,
    },
}

/// `ComparisonFilter`.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// `op`
    pub operation: Operation,
    /// `value`
    pub value: Number,
}

/// `ComparisonFilter.Op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// EQ
    Equal,
    /// GE
    AtLeast,
    /// LE
    AtMost,
    /// NE
    NotEqual,
}

impl Comparison {
    fn holds(&self, value: u64) -> bool {
        let wanted = u64::from(self.value.get());
        match self.operation {
            Operation::Equal => value == wanted,
            Operation::AtLeast => value >= wanted,
            Operation::AtMost => value <= wanted,
            Operation::NotEqual => value != wanted,
        }
    }
}

impl LogFilter {
    /// Whether it lets this one through.
    pub fn admits(&self, record: &Record<'_>, random: &Random) -> bool {
        match self {
            LogFilter::Status(comparison) => comparison.holds(record.status.into()),
            LogFilter::Duration(comparison) => comparison.holds(milliseconds(record.duration)),
            LogFilter::NotHealthCheck => true,
            LogFilter::Traceable => false,
            LogFilter::Runtime {
                fraction,
                independent,
            } => {
                let told = (!independent).then(|| of_request_id(record)).flatten();
                fraction.happens(told.unwrap_or_else(|| random.next()))
            }
            LogFilter::And(filters) => filters.iter().all(|filter| filter.admits(record, random)),
            LogFilter::Or(filters) => filters.iter().any(|filter| filter.admits(record, random)),
            LogFilter::Header(matcher) => record
                .request
                .is_some_and(|request| matcher.matches(request)),
            LogFilter::Flags(None) => record.flags != Flags::NONE,
            LogFilter::Flags(Some(flags)) => record.flags.intersects(*flags),
            LogFilter::Grpc { statuses, exclude } => {
                let status = grpc::status(record).unwrap_or(grpc::UNKNOWN);
                let found = status < 32 && statuses & (1 << status) != 0;
                found != *exclude
            }
            LogFilter::Expression(expression) => expression.holds(record),
            LogFilter::Metadata {
                matcher,
                unless_there,
            } => matcher
                .as_ref()
                .and_then(|matcher| of_metadata(matcher, record))
                .unwrap_or(*unless_there),
            LogFilter::Kind { kinds, exclude } => kinds.contains(&record.kind) != *exclude,
        }
    }
}

/// What a matcher says of the value that it is about, if there is one: the request's own, else the
/// connection's.
fn of_metadata(matcher: &MetadataMatcher, record: &Record<'_>) -> Option<bool> {
    let holds = |object: &serde_json::Map<String, serde_json::Value>| {
        metadata_matcher::at(object, &matcher.path)?;
        Some(matcher.matches(Some(object)))
    };
    let of_request = record.state.map(|state| &state.metadata);
    let of_request = of_request.and_then(|metadata| metadata.get(&matcher.namespace));
    of_request.and_then(holds).or_else(|| {
        let of_connection = record.connection.state.metadata.borrow();
        of_connection.get(&matcher.namespace).and_then(holds)
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The number that a request id begins with, if it is a UUID.
fn of_request_id(record: &Record<'_>) -> Option<u64> {
    let id = record.request?.headers.first(Name::XRequestId)?;
    let digits = std::str::from_utf8(id.get(..8)?).ok()?;
    u32::from_str_radix(digits, 16).ok().map(u64::from)
}
