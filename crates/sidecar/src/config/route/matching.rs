//! What a request must be like for a route to take it.

use crate::config::filter_state_matcher::FilterStateMatcher;
use crate::config::matcher::{CookieMatcher, HeaderMatcher, QueryMatcher, Regex};
use crate::config::metadata_matcher::MetadataMatcher;
use crate::runtime_layer::Fraction;

/// `RouteMatch`.
#[derive(Debug)]
pub struct RouteMatch {
    /// `path_specifier`
    pub path: PathMatch,
    /// `case_sensitive` (true unless set)
    pub case_sensitive: bool,
    /// What is asked for beyond the path; most routes ask for nothing.
    pub criteria: Option<Box<Criteria>>,
}

/// `path_specifier`
#[derive(Debug)]
pub enum PathMatch {
    /// `prefix`
    Prefix(Box<[u8]>),
    /// `path`
    Exact(Box<[u8]>),
    /// `path_separated_prefix`: the path itself, or followed by a slash.
    SeparatedPrefix(Box<[u8]>),
    /// `safe_regex` over the path without its query
    Regex(Regex),
    /// `path_match_policy` with a URI template, which is a regular expression inside.
    Template(Regex),
    /// `connect_matcher`
    Connect,
}

/// The criteria of a [`RouteMatch`] but for its path. All must hold.
#[derive(Debug, Default)]
pub struct Criteria {
    /// `headers`
    pub headers: Vec<HeaderMatcher>,
    /// `query_parameters`
    pub query: Vec<QueryMatcher>,
    /// `cookies`
    pub cookies: Vec<CookieMatcher>,
    /// `grpc`: only gRPC requests.
    pub grpc: bool,
    /// `runtime_fraction`
    pub fraction: Option<Fraction>,
    /// `tls_context.presented`: whether the client showed a certificate.
    pub certificate_presented: Option<bool>,
    /// `tls_context.validated`: whether it was verified.
    pub certificate_validated: Option<bool>,
    /// `filter_state`: values that network filters left on the connection.
    pub filter_state: Vec<FilterStateMatcher>,
    /// `dynamic_metadata`: what filters have left on the request; at its beginning none has run.
    pub metadata: Vec<MetadataMatcher>,
}

impl Criteria {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.headers.is_empty()
            && self.query.is_empty()
            && self.cookies.is_empty()
            && !self.grpc
            && self.fraction.is_none()
            && self.certificate_presented.is_none()
            && self.certificate_validated.is_none()
            && self.filter_state.is_empty()
            && self.metadata.is_empty()
    }
}
