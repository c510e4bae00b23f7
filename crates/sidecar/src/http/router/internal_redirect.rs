//! Redirects that are followed here instead of being passed on to the client
//! (`internal_redirect_policy`).

use std::sync::Arc;

use crate::config::route::{InternalRedirects, RedirectPredicate, Route};
use crate::http::connection_manager::context::Context;
use crate::http::connection_manager::decide;
use crate::http::h1::grammar;
use crate::http::message::{BodyLength, RequestHead, ResponseHead};
use crate::http::stream_info::StreamInfo;

/// The redirects that one request has gone through.
#[derive(Debug, Default)]
pub struct Followed {
    count: u32,
    /// From the route of the first name to that of the second.
    steps: Vec<(Arc<str>, Arc<str>)>,
}

/// The request to which a redirect leads, if it is to be followed; who is not allowed to is counted.
pub fn target(
    policy: &InternalRedirects,
    context: &Context,
    info: &mut StreamInfo,
    random: u64,
    request: &RequestHead,
    response: &ResponseHead,
    location: &[u8],
) -> Option<Box<RequestHead>> {
    let stats = &context.stats;
    let Some(location) = Location::parse(location) else {
        stats
            .passthrough_internal_redirect_bad_location
            .increment(1);
        return None;
    };
    let is_https = request.scheme == "https" && context.connection.tls.is_some();
    let to_https = location.scheme == "https";
    if !policy.cross_scheme && is_https != to_https {
        stats
            .passthrough_internal_redirect_unsafe_scheme
            .increment(1);
        return None;
    }
    let followed = info.followed.get_or_insert_default();
    if followed.count >= policy.max {
        stats
            .passthrough_internal_redirect_too_many_redirects
            .increment(1);
        return None;
    }
    let mut head = Box::new(request.clone());
    for name in &policy.copies {
        head.headers.remove_named(name);
        for value in response.headers.named(name) {
            head.headers.push(name, value);
        }
    }
    head.scheme = location.scheme;
    head.authority = location.authority.to_vec();
    head.path.clear();
    if !location.path.starts_with(b"/") {
        head.path.push(b'/');
    }
    head.path.extend_from_slice(location.path);
    let from = name(info.route.as_ref());
    // As in Envoy it is the new route from here on that logs tell of.
    let destination = decide::destination(context, &head, info, random);
    info.route = destination.as_ref().and_then(|to| to.route.clone());
    info.cluster = destination.as_ref().and_then(|to| to.cluster.clone());
    if destination.is_none() {
        stats.passthrough_internal_redirect_no_route.increment(1);
        return None;
    };
    let route = name(info.route.as_ref());
    let followed = info.followed.get_or_insert_default();
    let mut accepts = |predicate: &RedirectPredicate| match predicate {
        RedirectPredicate::AllowListed(names) => names.iter().any(|name| **name == *route),
        RedirectPredicate::NotBefore => {
            let step = (from.clone(), route.clone());
            let is_new = !followed.steps.contains(&step);
            followed.steps.push(step);
            is_new
        }
        RedirectPredicate::SafeCrossScheme => is_https || !to_https,
    };
    if !policy.predicates.iter().all(&mut accepts) {
        stats.passthrough_internal_redirect_predicate.increment(1);
        return None;
    }
    // RFC 9110, section 15.4.4: the other resource is to be fetched.
    if response.status == 303 && request.method != b"GET" && request.method != b"HEAD" {
        head.method = b"GET".to_vec();
        head.body = BodyLength::None;
    }
    followed.count += 1;
    let scheme: &[u8] = if is_https { b"https://" } else { b"http://" };
    let original = [scheme, &request.authority, &request.path].concat();
    head.headers.set_named(b"x-envoy-original-url", &original);
    Some(head)
}

fn name(route: Option<&Arc<Route>>) -> Arc<str> {
    route.map_or_else(|| "".into(), |route| route.name.clone())
}

/// An absolute URL of http or https, in its parts.
struct Location<'a> {
    scheme: &'static str,
    authority: &'a [u8],
    /// With the query, without the fragment; may be empty.
    path: &'a [u8],
}

impl<'a> Location<'a> {
    fn parse(url: &'a [u8]) -> Option<Self> {
        let colon = memchr::memchr(b':', url)?;
        let (scheme, rest) = url.split_at(colon);
        let scheme = match scheme {
            scheme if scheme.eq_ignore_ascii_case(b"http") => "http",
            scheme if scheme.eq_ignore_ascii_case(b"https") => "https",
            _ => return None,
        };
        let rest = rest.strip_prefix(b"://")?;
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
        let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
        let path = match memchr::memchr(b'#', path) {
            Some(at) => &path[..at],
            None => path,
        };
        let valid = !authority.is_empty()
            && grammar::is_authority(authority)
            && (path.is_empty() || grammar::is_target(path));
        valid.then_some(Location {
            scheme,
            authority,
            path,
        })
    }
}
