//! `LocalReplyConfig`: how answers of our own are changed.

use std::sync::Arc;

use super::route::HeaderChange;
use crate::telemetry::access_log::filter::LogFilter;
use crate::telemetry::access_log::format::Format;

/// `LocalReplyConfig`.
#[derive(Debug)]
pub struct LocalReplies {
    /// `mappers`: the first that fits is applied.
    pub mappers: Vec<ReplyMapper>,
    /// `body_format`; `None` is the body as it is, as plain text.
    pub format: Option<BodyFormat>,
}

/// `ResponseMapper`.
#[derive(Debug)]
pub struct ReplyMapper {
    /// `filter`: which answers.
    pub filter: LogFilter,
    /// `status_code`
    pub status: Option<u16>,
    /// `body`
    pub body: Option<Arc<[u8]>>,
    /// `body_format_override`
    pub format: Option<BodyFormat>,
    /// `headers_to_add`
    pub headers: HeaderChange,
}

/// `SubstitutionFormatString` of a body.
#[derive(Debug)]
pub struct BodyFormat {
    /// What the body is.
    pub format: Format,
    /// `content_type`
    pub content_type: Box<[u8]>,
}
