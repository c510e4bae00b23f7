//! Routes that the proxy answers itself, and what becomes of a path.

use std::sync::Arc;

use crate::config::local_reply::BodyFormat;
use crate::telemetry::access_log::format::Format;

/// `DirectResponseAction`.
#[derive(Debug)]
pub struct DirectResponse {
    /// 200 to 599
    pub status: u16,
    /// The body; may be empty.
    pub body: Arc<[u8]>,
    /// `body_format`: what is sent instead, which may have the body in it.
    pub format: Option<Box<BodyFormat>>,
}

/// `RedirectAction`.
#[derive(Debug)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `scheme_redirect`, or `https_redirect` as `https`.
    pub scheme: Option<Box<[u8]>>,
    /// `host_redirect`
    pub host: Option<Box<[u8]>>,
    /// `port_redirect`
    pub port: Option<u16>,
    /// `path_redirect`: the whole path.
    pub path: Option<Box<[u8]>>,
    /// `prefix_rewrite`, `regex_rewrite` or `path_rewrite`
    pub rewrite: Option<PathRewrite>,
    /// `strip_query`
    pub strip_query: bool,
}

/// How the path is rewritten.
#[derive(Debug)]
pub enum PathRewrite {
    /// `prefix_rewrite`: replaces what the route's prefix or path matched.
    Prefix(Box<[u8]>),
    /// `regex_rewrite`: replaces every match in the path (not in the query).
    Regex {
        /// `pattern`, not anchored
        pattern: regex::bytes::Regex,
        /// The replacement in the regex crate's syntax (`${1}` for RE2's `\1`).
        substitution: Box<[u8]>,
    },
    /// `path_rewrite_policy` with a URI template: put together anew from what the match captured.
    Template {
        /// The template that matched.
        pattern: regex::bytes::Regex,
        /// What the new path is made of.
        pieces: Vec<TemplatePiece>,
    },
    /// `path_rewrite`: text with operators.
    Format(Format),
}

/// A piece of a path that is put together by a URI template.
#[derive(Debug, PartialEq, Eq)]
pub enum TemplatePiece {
    /// As it is.
    Literal(Box<[u8]>),
    /// What the capture group of this number matched.
    Group(usize),
}
