//! Matching one request against one route.

use super::Facts;
use crate::config::matcher::{Case, CookieMatcher, HeaderCondition, HeaderMatcher, QueryMatcher};
use crate::config::route::{Criteria, PathMatch, RouteMatch};
use crate::http::headers::Name;
use crate::http::message::{BodyLength, RequestHead};

/// A request with what is computed once for all routes.
pub(super) struct Target<'a> {
    facts: &'a Facts<'a>,
    /// What path specifiers match: no query, and no path parameters where they are ignored. `None`
    /// for a CONNECT that has no path.
    pub(super) path: Option<&'a [u8]>,
    /// What follows the `?`; empty if nothing does.
    query: &'a [u8],
}

impl<'a> Target<'a> {
    pub(super) fn new(facts: &'a Facts<'a>, ignore_path_parameters: bool) -> Self {
        let (mut path, query) = split_query(&facts.request.path);
        if ignore_path_parameters && let Some(at) = memchr::memchr(b';', path) {
            path = &path[..at];
        }
        Target {
            facts,
            path: Some(path).filter(|_| !facts.request.path.is_empty()),
            query: query.get(1..).unwrap_or_default(),
        }
    }
}

/// Splits a path into what path specifiers match, and the query or fragment with its `?` or `#`.
pub fn split_query(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr2(b'?', b'#', path) {
        Some(at) => path.split_at(at),
        None => (path, b""),
    }
}

impl RouteMatch {
    /// Whether all criteria hold.
    pub(super) fn matches(&self, target: &Target<'_>) -> bool {
        self.path_matches(target)
            && self
                .criteria
                .as_ref()
                .is_none_or(|criteria| criteria.hold(target))
    }

    fn path_matches(&self, target: &Target<'_>) -> bool {
        if matches!(self.path, PathMatch::Connect) {
            let request = target.facts.request;
            // An extended CONNECT (RFC 8441) stands for an upgrade.
            return request.method == b"CONNECT" && request.protocol.is_none();
        }
        let Some(path) = target.path else {
            return false;
        };
        let case = if self.case_sensitive {
            Case::Sensitive
        } else {
            Case::Insensitive
        };
        let starts_with = |prefix: &[u8]| {
            path.get(..prefix.len())
                .is_some_and(|start| case.equal(start, prefix))
        };
        match &self.path {
            PathMatch::Prefix(prefix) => starts_with(prefix),
            PathMatch::Exact(wanted) => case.equal(path, wanted),
            PathMatch::SeparatedPrefix(prefix) => {
                starts_with(prefix) && path.get(prefix.len()).is_none_or(|next| *next == b'/')
            }
            PathMatch::Regex(regex) | PathMatch::Template(regex) => regex.matches(path),
            PathMatch::Connect => false,
        }
    }
}

impl Criteria {
    /// Whether all hold. The cheap ones are looked at first.
    fn hold(&self, target: &Target<'_>) -> bool {
        let Facts {
            request,
            random,
            certificate,
            state,
        } = target.facts;
        let equal = |wanted: Option<bool>, is: bool| wanted.is_none_or(|wanted| wanted == is);
        (!self.grpc || request.is_grpc())
            && equal(self.certificate_presented, certificate.presented)
            && equal(self.certificate_validated, certificate.validated)
            && self
                .fraction
                .as_ref()
                .is_none_or(|fraction| fraction.happens(*random))
            && self.headers.iter().all(|matcher| matcher.matches(request))
            && self
                .query
                .iter()
                .all(|matcher| matcher.matches(target.query))
            && self.cookies.iter().all(|matcher| matcher.matches(request))
            && self.filter_state.iter().all(|matcher| {
                let values = state.filter_state.borrow();
                let value = values.value(&matcher.key);
                value.is_some_and(|value| matcher.matches(value))
            })
            // Routes are looked for before the filters run that set it.
            && self.metadata.iter().all(|matcher| matcher.matches(None))
    }
}

impl HeaderMatcher {
    /// Whether a request has what is wanted. Of a header that came several times any value will
    /// do, and where the condition is inverted, none may.
    pub fn matches(&self, request: &RequestHead) -> bool {
        if self.name.first() == Some(&b':') {
            return self.matches_any(pseudo_header(&self.name, request));
        }
        match &*self.name {
            b"host" => self.matches_any(Some(&*request.authority)),
            b"content-length" => match request.body {
                // Framing is not among the headers; see `RequestHead::headers`.
                BodyLength::Sized(length) => {
                    self.matches_any(Some(itoa::Buffer::new().format(length).as_bytes()))
                }
                BodyLength::None | BodyLength::Streamed => self.matches_any(None),
            },
            name => self.matches_any(request.headers.named(name)),
        }
    }

    fn matches_any<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut present = false;
        let mut holds = false;
        for value in values {
            present = true;
            holds = holds || self.condition.holds(value);
        }
        if !present {
            if self.missing_is_empty {
                holds = self.condition.holds(b"");
            } else if let HeaderCondition::Present(wanted) = self.condition {
                holds = !wanted;
            } else {
                // Also where the condition is inverted: there is nothing to look at.
                return false;
            }
        }
        holds != self.invert
    }
}

impl HeaderCondition {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            HeaderCondition::Present(wanted) => *wanted,
            HeaderCondition::Range(start, end) => {
                integer(value).is_some_and(|number| (*start..*end).contains(&number))
            }
            HeaderCondition::Text(matcher) => matcher.matches(value),
        }
    }
}

fn pseudo_header<'a>(name: &[u8], request: &'a RequestHead) -> Option<&'a [u8]> {
    match name {
        b":path" => Some(&request.path),
        b":method" => Some(&request.method),
        b":authority" => Some(&request.authority),
        b":scheme" => Some(request.scheme.as_bytes()),
        b":protocol" => request.protocol.as_deref(),
        _ => None,
    }
}

fn integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

impl CookieMatcher {
    /// Whether a request has what is wanted. Of a cookie that came several times the first counts;
    /// one that did not come is not the wanted one.
    fn matches(&self, request: &RequestHead) -> bool {
        let holds = cookie(request, &self.name).is_some_and(|value| self.condition.matches(value));
        holds != self.invert
    }
}

/// The first value of a cookie, without the quotes around it.
pub(super) fn cookie<'a>(request: &'a RequestHead, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = request
        .headers
        .all(Name::Cookie)
        .flat_map(|header| header.split(|byte| *byte == b';'));
    pairs
        .filter_map(|pair| {
            let rest = pair.trim_ascii().strip_prefix(name)?;
            rest.strip_prefix(b"=")
        })
        .map(|value| {
            let value = value.trim_ascii();
            match value {
                [b'"', inner @ .., b'"'] => inner,
                value => value,
            }
        })
        .next()
}

impl QueryMatcher {
    /// Whether a query has what is wanted. Of a parameter that came several times the first counts.
    fn matches(&self, query: &[u8]) -> bool {
        let value = parameter(query, &self.name);
        match (&self.condition, value) {
            (_, None) => self.absent,
            (_, Some(_)) if self.absent => false,
            (None, Some(_)) => true,
            (Some(matcher), Some(value)) => matcher.matches(value),
        }
    }
}

/// The first value of a parameter as it was sent, still percent-encoded.
pub(super) fn parameter<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if query.is_empty() {
        return None;
    }
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let rest = pair.strip_prefix(name)?;
        match rest.split_first() {
            None => Some(rest),
            Some((b'=', value)) => Some(value),
            Some(_) => None,
        }
    })
}
