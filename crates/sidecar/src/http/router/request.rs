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

/// How long the stream may last: what the route says or, if it says so, what the client does in
/// `grpc-timeout`.
pub fn stream_limit(forward: &Forward, request: &RequestHead) -> Option<Duration> {
    let header = request.headers.first(Name::GrpcTimeout);
    match (forward.grpc_timeout, header.and_then(grpc_timeout)) {
        (Some(rule), Some(asked)) => {
            let limit = rule.max.map_or(asked, |max| asked.min(max));
            Some(limit.saturating_sub(rule.offset))
        }
        _ => forward.max_stream_duration,
    }
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Writes which attempt this is.
pub fn tell_attempt(stream: &mut Stream<'_, '_>) {
    let mut text = itoa::Buffer::new();
    let text = text.format(stream.info.attempts);
    let headers = &mut stream.request.headers;
    headers.set(Name::XEnvoyAttemptCount, text.as_bytes());
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
        HostRewrite::Literal(host) => replace_host(stream, forward, host),
        HostRewrite::Header(name) => {
            let host = stream
                .request
                .headers
                .named(name)
                .next()
                .map(<[u8]>::to_vec);
            if let Some(host) = host {
                replace_host(stream, forward, &host);
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
    stream: &mut Stream<'_, '_>,
    forward: &Forward,
    endpoint: &Endpoint,
) {
    let host = endpoint.hostname.as_bytes();
    let is_new = stream.request.authority != host;
    if forward.host_rewrite == HostRewrite::Auto && !host.is_empty() && is_new {
        replace_host(stream, forward, host);
    }
}

/// Replaces the host; the old one is told in the headers that exist for it.
fn replace_host(stream: &mut Stream<'_, '_>, forward: &Forward, host: &[u8]) {
    let request = &mut *stream.request;
    let original = std::mem::replace(&mut request.authority, host.to_vec());
    if forward.append_x_forwarded_host {
        request
            .headers
            .append_to_list(Name::XForwardedHost, &original);
    }
    if !stream.context.manager.suppress_envoy_headers {
        request
            .headers
            .set_named(b"x-envoy-original-host", &original);
    }
}
