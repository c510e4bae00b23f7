//! The `location` of a redirect.

use super::matching::split_query;
use super::rewrite::rewrite_path;
use super::split_port;
use crate::config::route::{Redirect, RouteMatch};
use crate::http::message::RequestHead;
use crate::telemetry::access_log::format::Format;

/// Appends where `redirect` sends a request that `matcher` has matched. `render` writes what a
/// format stands for.
pub fn write_location(
    redirect: &Redirect,
    matcher: &RouteMatch,
    request: &RequestHead,
    render: impl FnOnce(&Format, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    let scheme = redirect
        .scheme
        .as_deref()
        .unwrap_or(request.scheme.as_bytes());
    out.extend_from_slice(scheme);
    out.extend_from_slice(b"://");
    match &redirect.host {
        Some(host) => out.extend_from_slice(host),
        None => out.extend_from_slice(host_of(request, scheme, redirect.port.is_some())),
    }
    if let Some(port) = redirect.port {
        out.push(b':');
        out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
    }
    let (_, query) = split_query(&request.path);
    let start = out.len();
    if let Some(path) = &redirect.path {
        out.extend_from_slice(path);
        // A query of its own replaces the request's, and is never stripped.
        if path.contains(&b'?') {
            return;
        }
        out.extend_from_slice(query);
    } else if let Some(rewrite) = &redirect.rewrite {
        rewrite_path(rewrite, matcher, &request.path, render, out);
    } else {
        out.extend_from_slice(&request.path);
    }
    if redirect.strip_query
        && let Some(at) = memchr::memchr(b'?', &out[start..])
    {
        out.truncate(start + at);
    }
}

/// Appends the same address under https, for virtual hosts that require TLS.
pub fn write_https_location(request: &RequestHead, out: &mut Vec<u8>) {
    write_address("https", request, out);
}

/// Appends the address that was asked for.
pub fn write_own_location(request: &RequestHead, out: &mut Vec<u8>) {
    write_address(request.scheme, request, out);
}

fn write_address(scheme: &str, request: &RequestHead, out: &mut Vec<u8>) {
    out.extend_from_slice(scheme.as_bytes());
    out.extend_from_slice(b"://");
    out.extend_from_slice(&request.authority);
    out.extend_from_slice(&request.path);
}

/// The request's host, without its port where that would be wrong: where the redirect names
/// another, or where it is the old scheme's own and the scheme changes.
fn host_of<'a>(request: &'a RequestHead, new_scheme: &[u8], new_port: bool) -> &'a [u8] {
    let (host, port) = split_port(&request.authority);
    let scheme = request.scheme.as_bytes();
    let own_port = match scheme {
        b"https" => port == b":443",
        _ => port == b":80",
    };
    if new_port || (!new_scheme.eq_ignore_ascii_case(scheme) && own_port) {
        host
    } else {
        &request.authority
    }
}
