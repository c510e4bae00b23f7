//! What a request of HTTP/1 must not have, and Envoy takes: the reasons for which ours may refuse a
//! head that Envoy answers. RFC 9112 has a rule against each.

/// All that are in the bytes of a connection.
pub(super) fn oddities(raw: &str) -> Vec<&'static str> {
    let text = raw.trim_start_matches("\r\n");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let fields: Vec<&str> = lines.collect();
    let value = |name: &'static str| {
        fields.iter().filter_map(move |field| {
            let (known, value) = field.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let words: Vec<&str> = first.split(' ').collect();
    let version = words.get(2).copied().unwrap_or_default();
    let chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    let checks = [
        (
            "a line ends with LF alone",
            bare(head, '\n') || body_has_bare_line_feeds(body),
        ),
        ("a CR within a line", bare(head, '\r')),
        (
            "blanks in the request line",
            words.len() != 3 || first.contains('\t'),
        ),
        (
            "another version",
            !["HTTP/1.1", "HTTP/1.0"].contains(&version),
        ),
        (
            "a folded field",
            fields.iter().any(|field| field.starts_with([' ', '\t'])),
        ),
        ("two hosts", value("host").count() > 1),
        (
            "a host that is none",
            value("host").any(|host| !is_host(host))
                || words.get(1).is_some_and(|target| target.contains('@')),
        ),
        (
            "chunks in HTTP/1.0",
            version == "HTTP/1.0" && value("transfer-encoding").any(chunked),
        ),
        (
            "a chunk that is not of its size",
            value("transfer-encoding").any(chunked) && !are_chunks(body),
        ),
    ];
    let there = checks.iter().filter(|(_, there)| *there);
    there.map(|(name, _)| *name).collect()
}

/// Whether a CR or an LF is there without the other.
fn bare(text: &str, which: char) -> bool {
    text.replace("\r\n", "").contains(which)
}

/// What ends a head may be such a line, too.
fn body_has_bare_line_feeds(body: &str) -> bool {
    bare(body, '\n')
}

/// A name or an address with or without a port.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(':') {
        Some(at) if !host[at..].contains(']') => (&host[..at], &host[at + 1..]),
        _ => (host, ""),
    };
    port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && !name.contains(['@', ' '])
        && name.starts_with('[') == name.ends_with(']')
}

/// Whether a body is chunks of the sizes that they name, as far as it goes.
fn are_chunks(body: &str) -> bool {
    let mut rest = body;
    while let Some((size, data)) = rest.split_once("\r\n") {
        let digits = size.split(';').next().unwrap_or_default();
        let Ok(size) = usize::from_str_radix(digits, 16) else {
            return false;
        };
        if size == 0 {
            return true;
        }
        match data.get(size..) {
            Some(after) if after.starts_with("\r\n") => rest = &after[2..],
            Some(_) => return false,
            None => return true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_odd() {
        for (raw, expect) in [
            ("GET / HTTP/1.1\r\nhost: a:80\r\n\r\n", &[][..]),
            ("\r\nPOST / HTTP/1.0\r\nhost: [::1]:8\r\n\r\nabc", &[]),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                &[],
            ),
            (
                "GET / HTTP/1.1\nhost: a\r\n\r\n",
                &[
                    "a line ends with LF alone",
                    "blanks in the request line",
                    "another version",
                ],
            ),
            ("GET / HTTP/1.1\r\nx: a\rb\r\n\r\n", &["a CR within a line"]),
            (
                "GET  / HTTP/1.1\r\n\r\n",
                &["blanks in the request line", "another version"],
            ),
            ("GET / HTTP/1.2\r\n\r\n", &["another version"]),
            ("GET / HTTP/1.1\r\nx: a\r\n b\r\n\r\n", &["a folded field"]),
            (
                "GET / HTTP/1.1\r\nhost: a\r\nHost: a\r\n\r\n",
                &["two hosts"],
            ),
            (
                "GET / HTTP/1.1\r\nhost: a:99999x\r\n\r\n",
                &["a host that is none"],
            ),
            (
                "GET / HTTP/1.1\r\nhost: [::1\r\n\r\n",
                &["a host that is none"],
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
                &["a chunk that is not of its size"],
            ),
        ] {
            assert_eq!(oddities(raw), expect, "{raw:?}");
        }
    }
}
