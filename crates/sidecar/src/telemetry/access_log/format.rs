//! Format strings: literal text and `%OPERATORS%`, parsed once with the configuration.

/// A parsed format string.
#[derive(Debug)]
pub struct Format {}
