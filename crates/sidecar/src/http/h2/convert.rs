//! Heads and trailers between the `http` crate's types and ours.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};

use crate::http::error::StreamError;
use crate::http::h1::decoder::is_forbidden_trailer;
use crate::http::h1::{Limits, grammar};
use crate::http::headers::{Headers, Name};
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};

/// Why a head that came by HTTP/2 is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Malformed (RFC 9113, section 8.1.1): the stream is reset.
    Malformed(&'static str),
    /// More fields than the limit: answered with 431.
    TooManyFields,
}

/// The `http` crate's names for ours, by number: of bytes it makes them by comparing, and allocates
/// for those that are not in its own table. ([`Name::Other`] has one that is not used.)
static KNOWN: LazyLock<Vec<HeaderName>> = LazyLock::new(|| {
    let texts = Name::ALL.iter().map(|name| name.as_str());
    texts
        .map(|text| HeaderName::from_static(if text.is_empty() { "x" } else { text }))
        .collect()
});

/// A request as it came, into a head that is reused. `scheme` is the connection's, for a request
/// that has no `:authority`; `ended`: nothing follows.
pub fn request_head(
    request: &Request<::h2::RecvStream>,
    scheme: &'static str,
    ended: bool,
    limits: &Limits,
    mut head: RequestHead,
) -> Result<RequestHead, Refusal> {
    crate::http::h1::request::clear(&mut head, scheme);
    head.version = Version::Http2;
    head.method
        .extend_from_slice(request.method().as_str().as_bytes());
    let uri = request.uri();
    head.scheme = match uri.scheme_str() {
        Some("http") => "http",
        Some("https") => "https",
        Some(_) => return Err(Refusal::Malformed(":scheme is neither http nor https")),
        None => scheme,
    };
    head.protocol = request
        .extensions()
        .get::<::h2::ext::Protocol>()
        .map(|protocol| protocol.as_str().as_bytes().to_vec());
    if request.method() != Method::CONNECT || head.protocol.is_some() {
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        // RFC 9113, section 8.3.1. HTTP/1 behind us would get a request line that it refuses.
        let asterisk = path == "*" && request.method() == Method::OPTIONS;
        if !path.starts_with('/') && !asterisk {
            return Err(Refusal::Malformed(":path does not begin with a slash"));
        }
        head.path.extend_from_slice(path.as_bytes());
    }
    if let Some(authority) = uri.authority() {
        head.authority
            .extend_from_slice(authority.as_str().as_bytes());
    }
    // As with Envoy these count, too.
    let pseudo = 1
        + usize::from(uri.scheme().is_some())
        + usize::from(uri.authority().is_some())
        + usize::from(!head.path.is_empty())
        + usize::from(head.protocol.is_some());
    if request.headers().len() + pseudo > limits.headers {
        return Err(Refusal::TooManyFields);
    }
    let length = take_fields(request.headers(), limits, true, &mut head.headers)?;
    authority_of(&mut head)?;
    head.body = match length {
        Some(length) => BodyLength::Sized(length),
        None if ended => BodyLength::None,
        None => BodyLength::Streamed,
    };
    Ok(head)
}

/// `Host` may stand in for `:authority` and must not contradict it (RFC 9113, section 8.3.1).
fn authority_of(head: &mut RequestHead) -> Result<(), Refusal> {
    match head.headers.all(Name::Host).count() {
        0 => head.hostless = head.authority.is_empty(),
        1 => {
            let host = head.headers.first(Name::Host).unwrap_or_default();
            if head.authority.is_empty() {
                head.authority.extend_from_slice(host);
            } else if !head.authority.eq_ignore_ascii_case(host) {
                return Err(Refusal::Malformed("host contradicts :authority"));
            }
            head.headers.remove(Name::Host);
        }
        _ => return Err(Refusal::Malformed("host is there twice")),
    }
    // HTTP/1 behind us takes no more than this, so nothing else is let in.
    if !grammar::is_authority(&head.authority) {
        return Err(Refusal::Malformed(":authority is not a host and port"));
    }
    Ok(())
}

/// A response as it came, into a head that is reused. `bodiless`: the answer to HEAD.
pub fn response_head(
    status: StatusCode,
    fields: &HeaderMap,
    ended: bool,
    bodiless: bool,
    limits: &Limits,
    head: &mut ResponseHead,
) -> Result<(), StreamError> {
    crate::http::h1::response::clear(head);
    head.version = Version::Http2;
    head.status = status.as_u16();
    if head.status == 101 {
        return Err(StreamError::Protocol("101 in HTTP/2"));
    }
    let bodiless = bodiless || head.status < 200 || matches!(head.status, 204 | 304);
    let length =
        take_fields(fields, limits, !bodiless, &mut head.headers).map_err(
            |refusal| match refusal {
                Refusal::Malformed(rule) => StreamError::Protocol(rule),
                Refusal::TooManyFields => {
                    StreamError::LimitExceeded("the number of response headers")
                }
            },
        )?;
    head.body = match length {
        _ if bodiless => BodyLength::None,
        Some(length) => BodyLength::Sized(length),
        None if ended => BodyLength::None,
        None => BodyLength::Streamed,
    };
    Ok(())
}

/// Trailers as they came; what must not be one is dropped.
pub fn trailers(fields: &HeaderMap, limits: &Limits) -> Result<Headers, StreamError> {
    if fields.len() > limits.headers {
        return Err(StreamError::LimitExceeded("the number of trailers"));
    }
    let mut headers = Headers::new();
    for (name, value) in fields {
        let text = name.as_str().as_bytes();
        let known = Name::recognise(text);
        if !is_forbidden_trailer(known, text) {
            headers.push_recognised(known, text, grammar::trim(value.as_bytes()));
        }
    }
    Ok(headers)
}

/// Copies the fields; with `take_length` without `content-length`, which is returned instead.
fn take_fields(
    fields: &HeaderMap,
    limits: &Limits,
    take_length: bool,
    headers: &mut Headers,
) -> Result<Option<u64>, Refusal> {
    if fields.len() > limits.headers {
        return Err(Refusal::TooManyFields);
    }
    // Room for the few that a proxy adds, too.
    let bytes: usize = fields
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    headers.reserve(fields.len() + 8, bytes + 256);
    let mut length = None;
    for (name, value) in fields {
        let text = name.as_str().as_bytes();
        // HTTP/1 behind us does not count spaces at the ends as part of a value, so what decides
        // here must not either.
        let value = grammar::trim(value.as_bytes());
        let known = Name::recognise(text);
        match known {
            Name::ContentLength => {
                if length.is_some() {
                    return Err(Refusal::Malformed("content-length is there twice"));
                }
                length = grammar::decimal(value);
                if length.is_none() {
                    return Err(Refusal::Malformed("content-length is not a number"));
                }
                if take_length {
                    continue;
                }
            }
            // RFC 9113, section 8.2.2. The h2 crate refuses them too; this is what counts.
            Name::Connection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::KeepAlive
            | Name::ProxyConnection => {
                return Err(Refusal::Malformed("a connection-specific field in HTTP/2"));
            }
            Name::Te if value != b"trailers" => {
                return Err(Refusal::Malformed("te other than trailers in HTTP/2"));
            }
            _ => {}
        }
        headers.push_recognised(known, text, value);
    }
    Ok(length)
}

/// A request to be sent.
pub fn request(head: &RequestHead) -> Result<Request<()>, StreamError> {
    let bad_path = StreamError::Unrepresentable("a path that HTTP/2 cannot carry");
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(&head.method)
        .map_err(|_| StreamError::Unrepresentable("a method that HTTP/2 cannot carry"))?;
    let (fields, [authority, path]) =
        shared_fields(&head.headers, head.body, [&head.authority, &head.path])?;
    let mut parts = http::uri::Parts::default();
    if !head.authority.is_empty() {
        let authority = Authority::from_maybe_shared(authority)
            .map_err(|_| StreamError::Unrepresentable("an authority that HTTP/2 cannot carry"))?;
        parts.authority = Some(authority);
    }
    if head.method != b"CONNECT" || head.protocol.is_some() {
        let path = if path.is_empty() {
            PathAndQuery::from_static("/")
        } else {
            PathAndQuery::from_maybe_shared(path).map_err(|_| bad_path)?
        };
        if path.as_str().len() != head.path.len().max(1) {
            return Err(StreamError::Unrepresentable("a path with a fragment"));
        }
        parts.path_and_query = Some(path);
        if parts.authority.is_some() {
            parts.scheme = Some(match head.scheme {
                "https" => Scheme::HTTPS,
                _ => Scheme::HTTP,
            });
        }
    }
    // Without an authority the crate wants to be told that the request comes from HTTP/1.
    *request.version_mut() = match parts.authority {
        Some(_) => http::Version::HTTP_2,
        None => http::Version::HTTP_11,
    };
    *request.uri_mut() = Uri::from_parts(parts)
        .map_err(|_| StreamError::Unrepresentable("a target that HTTP/2 cannot carry"))?;
    if let Some(protocol) = &head.protocol {
        let protocol = std::str::from_utf8(protocol)
            .map_err(|_| StreamError::Unrepresentable("a protocol that is not UTF-8"))?;
        request
            .extensions_mut()
            .insert(::h2::ext::Protocol::from(protocol));
    }
    *request.headers_mut() = fields;
    Ok(request)
}

/// A response to be sent.
pub fn response(head: &ResponseHead) -> Result<Response<()>, StreamError> {
    let mut response = Response::new(());
    *response.version_mut() = http::Version::HTTP_2;
    *response.status_mut() = StatusCode::from_u16(head.status)
        .map_err(|_| StreamError::Unrepresentable("a status outside 100 to 999"))?;
    *response.headers_mut() = header_map(&head.headers, head.body)?;
    Ok(response)
}

/// Fields to be sent.
pub fn header_map(headers: &Headers, body: BodyLength) -> Result<HeaderMap, StreamError> {
    shared_fields(headers, body, [b"", b""]).map(|(map, _)| map)
}

/// Fields to be sent. All values, and the other texts of the head, share one allocation.
fn shared_fields(
    headers: &Headers,
    body: BodyLength,
    others: [&[u8]; 2],
) -> Result<(HeaderMap, [Bytes; 2]), StreamError> {
    let mut map = HeaderMap::with_capacity(headers.len() + 1);
    let room = headers.byte_len() + others[0].len() + others[1].len() + 20;
    let mut values = BytesMut::with_capacity(room);
    for other in others {
        values.extend_from_slice(other);
    }
    for (_, _, value) in headers.iter() {
        values.extend_from_slice(value);
    }
    let mut length = itoa::Buffer::new();
    if let BodyLength::Sized(n) = body {
        values.extend_from_slice(length.format(n).as_bytes());
    }
    let mut values = values.freeze();
    let others = others.map(|other| values.split_to(other.len()));
    for (name, text, value) in headers.iter() {
        let value = values.split_to(value.len());
        match name {
            // What belongs to one HTTP/1 connection (RFC 9113, section 8.2.2), and `host`, which
            // is `:authority` here.
            Name::Connection
            | Name::TransferEncoding
            | Name::Upgrade
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Http2Settings
            | Name::Host => continue,
            Name::ContentLength if matches!(body, BodyLength::Sized(_)) => continue,
            Name::Te if &value[..] != b"trailers" => continue,
            _ => {}
        }
        append(&mut map, name, text, value)?;
    }
    if !values.is_empty() {
        append(&mut map, Name::ContentLength, b"", values)?;
    }
    Ok((map, others))
}

fn append(map: &mut HeaderMap, known: Name, text: &[u8], value: Bytes) -> Result<(), StreamError> {
    let name = match known {
        Name::Other => HeaderName::from_bytes(text)
            .map_err(|_| StreamError::Unrepresentable("a field name that HTTP/2 cannot carry"))?,
        _ => KNOWN[known as usize].clone(),
    };
    let mut value = HeaderValue::from_maybe_shared(value)
        .map_err(|_| StreamError::Unrepresentable("a field value that HTTP/2 cannot carry"))?;
    // No two requests have the same: in the table of HPACK it would only take the place of others.
    value.set_sensitive(known == Name::XRequestId);
    map.try_append(name, value)
        .map_err(|_| StreamError::Unrepresentable("too many fields"))?;
    Ok(())
}
