//! `RedirectAction`, `DirectResponseAction`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};

use super::data_source;
use super::fields::{Together as _, Within as _, enumeration, port, refuse, uri_text};
use super::http_connection_manager::local_reply;
use super::path_rewrite;
use crate::config::error::{ConfigError, Result};
use crate::config::route::{DirectResponse, PathRewrite, Redirect};

/// `redirect`.
pub fn redirect(proto: &route::RedirectAction) -> Result<Redirect> {
    let port = match proto.port_redirect {
        0 => Ok(None),
        other => port(other, false, "port_redirect").map(Some),
    };
    let (code, scheme, (path, rewrite), host, port) = (
        enumeration(proto.response_code, "response_code"),
        scheme(&proto.scheme_rewrite_specifier),
        path(&proto.path_rewrite_specifier),
        uri_text(&proto.host_redirect, "host_redirect"),
        port,
    )
        .together()?;
    Ok(Redirect {
        status: match code {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
        scheme,
        host: (!host.is_empty()).then(|| host.into()),
        port,
        path,
        rewrite,
        strip_query: proto.strip_query,
    })
}

fn scheme(proto: &Option<SchemeRewriteSpecifier>) -> Result<Option<Box<[u8]>>> {
    Ok(match proto {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(b"https".as_slice().into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) if scheme.is_empty() => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            // RFC 3986, section 3.1.
            let valid = |(at, byte): (usize, u8)| {
                byte.is_ascii_alphabetic()
                    || (at > 0 && (byte.is_ascii_digit() || b"+-.".contains(&byte)))
            };
            refuse(
                !scheme.bytes().enumerate().all(valid),
                "scheme_redirect",
                "is not a URI scheme",
            )?;
            Some(scheme.as_bytes().into())
        }
    })
}

/// The whole path, or what becomes of the request's.
type Path = (Option<Box<[u8]>>, Option<PathRewrite>);

fn path(proto: &Option<PathRewriteSpecifier>) -> Result<Path> {
    Ok(match proto {
        None => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(path)) if path.is_empty() => (None, None),
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            refuse(
                !path.starts_with('/'),
                "path_redirect",
                "must begin with a slash",
            )?;
            (Some(uri_text(path, "path_redirect")?.into()), None)
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) if prefix.is_empty() => (None, None),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            (None, Some(path_rewrite::prefix_rewrite(prefix)?))
        }
        Some(PathRewriteSpecifier::RegexRewrite(regex)) => {
            let rewrite = path_rewrite::regex_rewrite(regex).within("regex_rewrite")?;
            (None, Some(rewrite))
        }
        Some(PathRewriteSpecifier::PathRewrite(path)) if path.is_empty() => (None, None),
        Some(PathRewriteSpecifier::PathRewrite(path)) => {
            (None, Some(path_rewrite::format(path, "path_rewrite")?))
        }
    })
}

/// `direct_response`, with a body of at most `limit` bytes.
pub fn direct_response(
    proto: &route::DirectResponseAction,
    limit: usize,
) -> Result<DirectResponse> {
    let status = u16::try_from(proto.status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .ok_or_else(|| {
            ConfigError::new(
                "status",
                format_args!("{} is not between 200 and 599", proto.status),
            )
        });
    let format = local_reply::body_format(&proto.body_format, "body_format");
    let (status, body, format) = (status, body(proto, limit), format).together()?;
    Ok(DirectResponse {
        status,
        body,
        format: format.map(Box::new),
    })
}

fn body(proto: &route::DirectResponseAction, limit: usize) -> Result<Arc<[u8]>> {
    let body: Arc<[u8]> = match &proto.body {
        None => Arc::default(),
        Some(source) => data_source::read_once(source)
            .within("body")?
            .map(|data| data.bytes.into())
            .unwrap_or_default(),
    };
    refuse(
        body.len() > limit,
        "body",
        format_args!(
            "has {} bytes, and max_direct_response_body_size_bytes is {limit}",
            body.len()
        ),
    )?;
    Ok(body)
}
