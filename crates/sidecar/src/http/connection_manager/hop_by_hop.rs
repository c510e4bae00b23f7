//! Header fields that concern one connection only (RFC 9110, section 7.6.1) and the request for an
//! upgrade among them.

use crate::http::headers::{Headers, Name};
use crate::http::message::RequestHead;

/// Whether a comma-separated list has `token`, in any case.
pub fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|b| *b == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}

/// The protocol that an HTTP/1.1 request asks to upgrade to, in lower case.
pub fn upgrade(request: &RequestHead) -> Option<Vec<u8>> {
    if request.version != crate::http::message::Version::Http11 {
        return None;
    }
    let asked = request
        .headers
        .all(Name::Connection)
        .any(|list| has_token(list, b"upgrade"));
    let value = asked
        .then(|| request.headers.first(Name::Upgrade))
        .flatten()?;
    // h2c is never spoken by upgrade: RFC 9113, section 3.1, and Envoy, ignore it.
    let value = value.trim_ascii().to_ascii_lowercase();
    (value != b"h2c" && !value.is_empty()).then_some(value)
}

/// Removes what must not go further; `keep_upgrade` leaves `upgrade`, and the `connection` that asks
/// for it, for a hop that takes part.
pub fn remove(headers: &mut Headers, keep_upgrade: bool) {
    if headers.contains(Name::Connection) {
        remove_listed(headers);
    }
    headers.retain(|name, _, value| match name {
        Name::KeepAlive | Name::ProxyConnection | Name::Http2Settings => false,
        Name::Connection | Name::Upgrade => keep_upgrade,
        // `te: trailers` is what gRPC servers insist on; anything else is ours to answer.
        Name::Te => has_token(value, b"trailers") && value.len() == 8,
        _ => true,
    });
}

/// Removes the fields that `connection` lists. Never those without which the message would mean
/// something else: a client could strip what another hop relies on.
fn remove_listed(headers: &mut Headers) {
    let lists: Vec<_> = headers.all(Name::Connection).collect();
    let lists = lists.join(&b',').to_ascii_lowercase();
    // Sorted, for a client may list thousands, and the fields are gone through once.
    let mut listed: Vec<_> = lists
        .split(|b| *b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| may_be_listed(token))
        .collect();
    if listed.is_empty() {
        return;
    }
    listed.sort_unstable();
    headers.retain(|_, name, _| {
        let lower = || name.iter().map(u8::to_ascii_lowercase);
        listed
            .binary_search_by(|token| token.iter().copied().cmp(lower()))
            .is_err()
    });
}

fn may_be_listed(token: &[u8]) -> bool {
    !matches!(token, b"" | b"close" | b"keep-alive")
        && !matches!(
            Name::recognise(token),
            Name::Upgrade
                | Name::Te
                | Name::Host
                | Name::Cookie
                | Name::XForwardedFor
                | Name::XForwardedProto
                | Name::XForwardedHost
                | Name::XForwardedClientCert
                | Name::XRequestId
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    fn headers(fields: Fields<'_>) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name.as_bytes(), value.as_bytes());
        }
        headers
    }

    fn names(headers: &Headers) -> Vec<String> {
        headers
            .iter()
            .map(|(_, name, _)| String::from_utf8_lossy(name).into_owned())
            .collect()
    }

    #[test]
    fn removes_what_concerns_one_connection() {
        let cases: &[(Fields<'_>, &[&str])] = &[
            (
                &[
                    ("Connection", "close, X-Once"),
                    ("x-once", "1"),
                    ("X-Kept", "2"),
                ],
                &["X-Kept"],
            ),
            (
                &[
                    ("connection", "b, X-A,, z"),
                    ("x-a", "1"),
                    ("Connection", " Y ,host, x-a"),
                    ("y", "2"),
                    ("X-AB", "3"),
                    ("Host", "h"),
                    ("B", "4"),
                ],
                &["X-AB", "Host"],
            ),
            (
                &[
                    ("Keep-Alive", "timeout=5"),
                    ("Proxy-Connection", "x"),
                    ("A", "1"),
                ],
                &["A"],
            ),
            (&[("TE", "trailers")], &["TE"]),
            (&[("TE", "gzip, trailers")], &[]),
            (&[("Upgrade", "websocket"), ("Connection", "upgrade")], &[]),
            (
                &[
                    ("Connection", "x-forwarded-for"),
                    ("X-Forwarded-For", "1.1.1.1"),
                ],
                &["X-Forwarded-For"],
            ),
            (&[("HTTP2-Settings", "AAA"), ("B", "1")], &["B"]),
        ];
        for (input, expected) in cases {
            let mut list = headers(input);
            remove(&mut list, false);
            assert_eq!(names(&list), *expected, "{input:?}");
        }
    }

    #[test]
    fn an_upgrade_needs_both_headers_and_is_never_h2c() {
        let cases: &[(Fields<'_>, Option<&[u8]>)] = &[
            (
                &[
                    ("Connection", "keep-alive, Upgrade"),
                    ("Upgrade", "WebSocket"),
                ],
                Some(b"websocket"),
            ),
            (&[("Upgrade", "websocket")], None),
            (&[("Connection", "upgrade"), ("Upgrade", "h2c")], None),
            (&[("Connection", "upgrade")], None),
        ];
        for (input, expected) in cases {
            let mut request = RequestHead::new();
            request.headers = headers(input);
            assert_eq!(upgrade(&request).as_deref(), *expected, "{input:?}");
        }
    }
}
