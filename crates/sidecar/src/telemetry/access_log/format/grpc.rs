//! The status of a gRPC response (its documentation, "Status codes and their use").

use crate::http::headers::Name;
use crate::telemetry::access_log::record::Record;

/// What a response without a status means.
pub const UNKNOWN: u64 = 2;

/// How `%GRPC_STATUS%` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `CAMEL_STRING`
    Camel,
    /// `SNAKE_STRING`
    Snake,
    /// `NUMBER`
    Number,
}

/// `grpc-status` of the trailers, or of a response that is trailers only; else what the HTTP status
/// stands for.
pub fn status(record: &Record<'_>) -> Option<u64> {
    let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
    let in_trailers = record.trailers.and_then(|t| t.first(Name::GrpcStatus));
    let in_headers = || record.response?.headers.first(Name::GrpcStatus);
    match in_trailers.or_else(in_headers) {
        Some(value) => number(value),
        None if record.status == 0 => None,
        None => Some(of_http(record.status).into()),
    }
}

/// How a gRPC client understands an HTTP status (gRPC's "HTTP to gRPC Status Code Mapping").
pub fn of_http(status: u16) -> u8 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The name of a status; `None` where it has none.
pub(super) fn name(code: u64, style: Style) -> Option<&'static str> {
    let (camel, snake) = NAMES.get(usize::try_from(code).ok()?)?;
    match style {
        Style::Camel => Some(camel),
        Style::Snake => Some(snake),
        Style::Number => None,
    }
}

/// By number.
const NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];
