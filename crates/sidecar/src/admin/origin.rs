//! Who may ask.

use http::{HeaderMap, header};

/// A web page that a browser on this machine has open must not reach the admin API, neither through
/// a name that it controls (DNS rebinding) nor from its own origin.
pub fn same_origin(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let host = text(header::HOST);
    // `null` is what a page without an origin of its own sends: a stranger's as well.
    let origin = text(header::ORIGIN).map(|origin| origin.rsplit_once("//").map(|(_, host)| host));
    host.is_none_or(is_local)
        && origin.is_none_or(|origin| {
            matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
        })
}

/// Whether an authority is an address, or a name without a dot, which is nobody's domain.
fn is_local(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    !host.contains('.') || host.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_page_may_ask() {
        let cases = [
            (Some("127.0.0.1:15000"), None, true),
            (None, None, true),
            (
                Some("127.0.0.1:15000"),
                Some("http://127.0.0.1:15000"),
                true,
            ),
            (
                Some("LOCALHOST:15000"),
                Some("http://localhost:15000"),
                true,
            ),
            (Some("evil.example:15000"), None, false),
            (Some("127.0.0.1:15000"), Some("http://evil.example"), false),
            (Some("127.0.0.1:15000"), Some("http://203.0.113.5"), false),
            (
                Some("127.0.0.1:15000"),
                Some("http://127.0.0.1:8080"),
                false,
            ),
            (Some("127.0.0.1:15000"), Some("null"), false),
            (None, Some("http://127.0.0.1:15000"), false),
        ];
        for (host, origin, may) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::HOST, host), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, header::HeaderValue::from_static(value));
                }
            }
            assert_eq!(same_origin(&headers), may, "{host:?} {origin:?}");
        }
    }

    #[test]
    fn strangers_are_told_by_their_name() {
        for local in ["localhost", "127.0.0.1:15000", "[::1]:15000", "admin"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["evil.example", "evil.example:15000", "a.b"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
