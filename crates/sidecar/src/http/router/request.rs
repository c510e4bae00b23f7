//! What happens to a request's head on its way to the endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::Stream;
use super::header_changes::{self, Additions, Levels};
use crate::config::endpoint::Endpoint;
use crate::config::route::{Forward, GrpcTimeout, HeaderChanges, HostRewrite, PathRewrite, Route};
use crate::http::connection_manager::context::Context;
use crate::http::connection_manager::local_reply::LocalReply;
use crate::http::h1::grammar;
use crate::http::headers::Name;
use crate::http::message::{BodyLength, RequestHead};
use crate::http::route;
use crate::upstream::Cluster;

/// The route's timeout, or the one that a gRPC client sets itself where the route has the older
/// fields for it, or the one that a trusted caller asks for in `x-envoy-upstream-rq-timeout-ms`;
/// before all of them, where the router respects it, the one in `x-envoy-expected-rq-timeout-ms`.
pub fn timeout(
    forward: &Forward,
    request: &mut RequestHead,
    context: &Context,
) -> Option<Duration> {
    let older = forward.older_grpc_timeout.filter(|_| request.is_grpc());
    let of_route = match older {
        Some(rule) => older_grpc_timeout(rule, request),
        None => forward.timeout,
    };
    // What the caller's own proxy has said outranks what the caller asks for, also where it is no
    // number.
    if context.manager.respect_expected_timeout
        && request.headers.contains(Name::XEnvoyExpectedRqTimeoutMs)
    {
        return match milliseconds(request, Name::XEnvoyExpectedRqTimeoutMs) {
            Some(0) => None,
            Some(told) => Some(Duration::from_millis(told)),
            None => of_route,
        };
    }
    let asked = milliseconds(request, Name::XEnvoyUpstreamRqTimeoutMs);
    request.headers.remove(Name::XEnvoyUpstreamRqTimeoutMs);
    match asked {
        _ if context.manager.suppress_envoy_headers => of_route,
        Some(0) => None,
        Some(milliseconds) => Some(Duration::from_millis(milliseconds)),
        None => of_route,
    }
}

/// `match_upstream`: the scheme of what this cluster's endpoints are spoken to over.
pub fn scheme_of(cluster: &Cluster) -> &'static str {
    match cluster.config().transport_socket.tls() {
        None => "http",
        Some(_) => "https",
    }
}

fn milliseconds(request: &RequestHead, name: Name) -> Option<u64> {
    let asked = request.headers.first(name)?;
    std::str::from_utf8(asked).ok()?.parse().ok()
}

/// `max_grpc_timeout`: what the client says, or without it no end, but at most so long.
fn older_grpc_timeout(rule: GrpcTimeout, request: &RequestHead) -> Option<Duration> {
    let asked = request.headers.first(Name::GrpcTimeout);
    let asked = asked.and_then(parse_grpc_timeout);
    let asked = asked.filter(|asked| *asked > Duration::ZERO).map(|asked| {
        // An offset that would leave nothing is not applied, for nothing means no end.
        asked
            .checked_sub(rule.offset)
            .filter(|left| *left > Duration::ZERO)
            .unwrap_or(asked)
    });
    match (asked, rule.max) {
        (Some(asked), Some(max)) => Some(asked.min(max)),
        (asked, max) => asked.or(max),
    }
}

/// Tells a gRPC endpoint of the timeout in its own header, where the route has the older fields.
fn tell_grpc_timeout(forward: &Forward, request: &mut RequestHead, timeout: Duration) {
    if forward.older_grpc_timeout.is_none() || !request.is_grpc() {
        return;
    }
    set_grpc_timeout(request, timeout);
}

fn set_grpc_timeout(request: &mut RequestHead, timeout: Duration) {
    let mut amount = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let mut unit = b'm';
    // At most eight digits.
    for (larger, step) in [(b'S', 1000), (b'M', 60), (b'H', 60)] {
        if amount > 99_999_999 {
            amount /= step;
            unit = larger;
        }
    }
    let mut text = itoa::Buffer::new();
    let mut value = text.format(amount.min(99_999_999)).as_bytes().to_vec();
    value.push(unit);
    request.headers.set(Name::GrpcTimeout, &value);
}

/// Says an extended CONNECT (RFC 8441) as the upgrade that it stands for, since tunnels go to their
/// endpoint over HTTP/1.
pub fn speak_of_upgrade(stream: &mut Stream<'_, '_>) {
    let Some(protocol) = stream.request.protocol.take() else {
        return;
    };
    let request = &mut *stream.request;
    request.method.clear();
    request.method.extend_from_slice(b"GET");
    request.body = BodyLength::None;
    request.headers.push_known(Name::Connection, b"upgrade");
    request.headers.push_known(Name::Upgrade, &protocol);
}

/// The limit that a gRPC client sets itself in `grpc-timeout`, where the route honours it. The
/// endpoint is told of what became of it.
pub fn grpc_timeout(forward: &Forward, request: &mut RequestHead) -> Option<Duration> {
    let rule = forward.grpc_timeout?;
    let asked = parse_grpc_timeout(request.headers.first(Name::GrpcTimeout)?)?;
    let limit = rule.max.map_or(asked, |max| asked.min(max));
    let limit = limit.saturating_sub(rule.offset);
    set_grpc_timeout(request, limit);
    Some(limit)
}

/// gRPC over HTTP/2, "Requests": at most eight digits and a unit.
fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// `include_request_attempt_count`
pub fn count_attempt(stream: &mut Stream<'_, '_>) {
    if stream.host.attempt_count_in_request {
        let mut text = itoa::Buffer::new();
        let text = text.format(stream.info.attempts);
        stream
            .request
            .headers
            .set(Name::XEnvoyAttemptCount, text.as_bytes());
    }
}

/// Applies the route's changes to the head: headers, host (`share` is that of a weighted cluster),
/// path.
///
/// # Errors
///
/// The answer to a request of whose bytes the route makes a host or a path that is none.
pub fn finish(
    stream: &mut Stream<'_, '_>,
    route: &Arc<Route>,
    forward: &Forward,
    share: Option<&[u8]>,
    levels: Levels<'_>,
    timeout: Option<Duration>,
) -> Result<(), LocalReply> {
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
    if let Some(timeout) = timeout {
        tell_grpc_timeout(forward, stream.request, timeout);
    }
    if let Some(host) = share {
        // As with Envoy this comes first and is told to nobody.
        stream.request.authority = host.to_vec();
    }
    for changes in levels.iter().filter_map(HeaderChanges::request) {
        header_changes::remove(&mut stream.request.headers, changes);
        let headers = &stream.request.headers;
        Additions::of(changes, headers, |format, out| stream.render(format, out))
            .apply(&mut stream.request.headers);
    }
    rewrite_host(stream, forward)?;
    if let Some(rewrite) = &forward.rewrite {
        let mut path = Vec::with_capacity(stream.request.path.len());
        let rewritten = route::rewrite_path(
            rewrite,
            &route.matcher,
            &stream.request.path,
            |format, out| stream.render(format, out),
            &mut path,
        );
        // A configured prefix and the rest of a path that was checked need no second look.
        if !matches!(**rewrite, PathRewrite::Prefix(_)) && !grammar::is_target(&path) {
            return Err(LocalReply::invalid_rewrite());
        }
        if rewritten && !stream.context.manager.suppress_envoy_headers {
            let original = std::mem::take(&mut stream.request.path);
            stream
                .request
                .headers
                .set(Name::XEnvoyOriginalPath, &original);
        }
        stream.request.path = path;
    }
    Ok(())
}

fn rewrite_host(stream: &mut Stream<'_, '_>, forward: &Forward) -> Result<(), LocalReply> {
    let host = match &forward.host_rewrite {
        HostRewrite::No | HostRewrite::Auto => return Ok(()),
        HostRewrite::Literal(host) => {
            replace_host(stream, forward, host);
            return Ok(());
        }
        HostRewrite::Header(name) => {
            let mut values = stream.request.headers.named(name);
            values.next().unwrap_or_default().to_vec()
        }
        HostRewrite::PathRegex {
            pattern,
            substitution,
        } => {
            let (path, _) = route::split_query(&stream.request.path);
            pattern.replace_all(path, &**substitution).into_owned()
        }
        HostRewrite::Format(format) => {
            let mut host = Vec::new();
            stream.render(format, &mut host);
            host
        }
    };
    // Made of what the client said: a space in it would end the target of a CONNECT, and a slash
    // would send the request elsewhere than where it was allowed to go.
    if !grammar::is_authority(&host) {
        return Err(LocalReply::invalid_rewrite());
    }
    if !host.is_empty() {
        replace_host(stream, forward, &host);
    }
    Ok(())
}

/// `auto_host_rewrite`: known only when the endpoint is. `original` keeps the client's host for when
/// the request is sent once more, to another endpoint.
pub fn rewrite_host_for_endpoint(
    stream: &mut Stream<'_, '_>,
    forward: &Forward,
    endpoint: &Endpoint,
    original: &mut Option<Vec<u8>>,
) {
    if !matches!(forward.host_rewrite, HostRewrite::Auto) {
        return;
    }
    if let Some(original) = original.take() {
        stream.request.authority = original;
    }
    if !endpoint.hostname.is_empty() {
        *original = Some(replace_host(stream, forward, endpoint.hostname.as_bytes()));
    }
}

/// Replaces the host, and gives the old one back; it is told in the headers that exist for it.
fn replace_host(stream: &mut Stream<'_, '_>, forward: &Forward, host: &[u8]) -> Vec<u8> {
    let request = &mut *stream.request;
    let original = std::mem::replace(&mut request.authority, host.to_vec());
    let told_already = |last: &[u8]| {
        let last = last.rsplit(|byte| *byte == b',').next().unwrap_or_default();
        last.trim_ascii() == original
    };
    if forward.append_x_forwarded_host
        && !original.is_empty()
        && !request
            .headers
            .all(Name::XForwardedHost)
            .last()
            .is_some_and(told_already)
    {
        request
            .headers
            .append_to_list(Name::XForwardedHost, &original);
    }
    if !stream.context.manager.suppress_envoy_headers {
        request
            .headers
            .set_named(b"x-envoy-original-host", &original);
    }
    original
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_eight_digits_and_a_unit() {
        let cases: [(&[u8], Option<Duration>); 7] = [
            (b"2S", Some(Duration::from_secs(2))),
            (b"250m", Some(Duration::from_millis(250))),
            (b"99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            (b"100000000n", None),
            (b"S", None),
            (b"1.5S", None),
            (b"1s", None),
        ];
        for (value, expected) in cases {
            assert_eq!(
                parse_grpc_timeout(value),
                expected,
                "{}",
                value.escape_ascii()
            );
        }
    }
}
