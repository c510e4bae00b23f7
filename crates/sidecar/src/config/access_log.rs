//! `AccessLog`: where a line goes, and in which format.

use std::path::PathBuf;
use std::sync::Arc;

/// One access log of a listener, connection manager or tcp_proxy.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Where lines go.
    pub sink: LogSink,
    /// `filter`: which requests or connections have a line; `None` is all.
    pub filter: Option<crate::telemetry::access_log::filter::LogFilter>,
    /// The parsed format: literal text and operators.
    pub format: Arc<crate::telemetry::access_log::format::Format>,
}

/// `FileAccessLog` or `StdoutAccessLog`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogSink {
    /// Standard output (also `/dev/stdout`)
    Stdout,
    /// Standard error (also `/dev/stderr`)
    Stderr,
    /// A file, appended to
    File(PathBuf),
}
