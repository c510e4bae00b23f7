//! Who may ask.

use http::{HeaderMap, header};

/// A web page that a browser on this machine has open must not reach the admin API, neither through
/// a name that it controls (DNS rebinding) nor from its own origin.
pub fn same_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return true;
    };
    let origin = headers.get(header::ORIGIN);
    let origin = origin.map(|origin| origin.to_str().unwrap_or("a.b"));
    // `null` is what a page without an origin of its own sends: a stranger's as well.
    let origin = origin.map(|origin| origin.rsplit_once("//").map_or("a.b", |(_, host)| host));
    is_local(host) && origin.is_none_or(is_local)
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
    fn strangers_are_told_by_their_name() {
        for local in ["localhost", "127.0.0.1:15000", "[::1]:15000", "admin"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in ["evil.example", "evil.example:15000", "a.b"] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
