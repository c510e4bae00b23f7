//! What happens to a request's head on its way to the endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::Stream;
use super::header_changes::{self, Levels};
use crate::config::endpoint::Endpoint;
use crate::config::route::{Forward, HostRewrite, Route};
use crate::http::connection_manager::context::Context;
use crate::http::headers::Name;
use crate::http::message::RequestHead;
use crate::http::route;

/// The route's timeout, or the one that a trusted caller asks for in `x-envoy-upstream-rq-timeout-ms`.
pub fn timeout(
    forward: &Forward,
    request: &mut RequestHead,
    context: &Context,
) -> Option<Duration> {
    let asked = request.headers.first(Name::XEnvoyUpstreamRqTimeoutMs);
    let Some(asked) = asked else {
        return forward.timeout;
    };
    let asked = std::str::from_utf8(asked)
        .ok()
        .and_then(|text| text.parse().ok());
    request.headers.remove(Name::XEnvoyUpstreamRqTimeoutMs);
    match asked {
        _ if context.manager.suppress_envoy_headers => forward.timeout,
        Some(0) => None,
        Some(milliseconds) => Some(Duration::from_millis(milliseconds)),
        None => forward.timeout,
    }
}

/// Applies the route's changes to the head: headers, host, path.
pub fn finish(
    stream: &mut Stream<'_, '_>,
    route: &Arc<Route>,
    forward: &Forward,
    levels: Levels<'_>,
    timeout: Option<Duration>,
) {
    if !stream.context.manager.suppress_envoy_headers
        && let Some(timeout) = timeout
    {
        let mut text = itoa::Buffer::new();
        let text = text.format(timeout.as_millis() as u64);
        stream
            .request
            .headers
            .set(Name::XEnvoyExpectedRqTimeoutMs, text.as_bytes());
    }
    let mut value = Vec::new();
    for changes in levels.iter() {
        header_changes::remove(&mut stream.request.headers, &changes.request_remove);
        for addition in &changes.request_add {
            value.clear();
            let record =
                stream
                    .info
                    .record(&stream.context.connection, Some(stream.request), None, None);
            addition.value.render(&record, &mut value);
            header_changes::add(&mut stream.request.headers, addition, &value);
        }
    }
    match &forward.host_rewrite {
        HostRewrite::No | HostRewrite::Auto => {}
        HostRewrite::Literal(host) => replace_host(stream.request, host),
        HostRewrite::Header(name) => {
            let host = stream
                .request
                .headers
                .named(name)
                .next()
                .map(<[u8]>::to_vec);
            if let Some(host) = host {
                replace_host(stream.request, &host);
            }
        }
    }
    if let Some(rewrite) = &forward.rewrite {
        let mut path = Vec::with_capacity(stream.request.path.len());
        route::rewrite_path(rewrite, &route.matcher, &stream.request.path, &mut path);
        if !stream.context.manager.suppress_envoy_headers {
            let original = std::mem::take(&mut stream.request.path);
            stream
                .request
                .headers
                .set(Name::XEnvoyOriginalPath, &original);
        }
        stream.request.path = path;
    }
}

/// `auto_host_rewrite`: known only when the endpoint is.
pub fn rewrite_host_for_endpoint(
    request: &mut RequestHead,
    forward: &Forward,
    endpoint: &Endpoint,
) {
    if forward.host_rewrite == HostRewrite::Auto && !endpoint.hostname.is_empty() {
        replace_host(request, endpoint.hostname.as_bytes());
    }
}

fn replace_host(request: &mut RequestHead, host: &[u8]) {
    request.authority.clear();
    request.authority.extend_from_slice(host);
}
