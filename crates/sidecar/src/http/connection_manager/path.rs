//! Normalisation of the path before anything is decided by it (failure mode: path tricks around
//! policies). The bytes that routes see are the bytes that go upstream.

use super::local_reply::LocalReply;
use crate::config::http_connection_manager::{EscapedSlashes, HttpConnectionManager};
use crate::telemetry::access_log::flags::Flags;

/// Applies the manager's path options in Envoy's order. `Err` is the reply to give instead.
pub fn normalize(manager: &HttpConnectionManager, path: &mut Vec<u8>) -> Result<(), LocalReply> {
    // A fragment never travels: it would split what one peer routes by from what the next one sees.
    if memchr::memchr(b'#', path).is_some() {
        return Err(refused());
    }
    if !manager.normalize_path
        && !manager.merge_slashes
        && manager.escaped_slashes == EscapedSlashes::Keep
    {
        return Ok(());
    }
    if is_normal(path) {
        return Ok(());
    }
    let query_at = memchr::memchr(b'?', path).unwrap_or(path.len());
    let (plain, query) = path.split_at(query_at);
    let mut plain = plain.to_vec();
    let query = query.to_vec();
    let mut redirect = false;
    if manager.escaped_slashes != EscapedSlashes::Keep {
        let unescaped = unescape_slashes(&plain);
        if unescaped != plain {
            match manager.escaped_slashes {
                EscapedSlashes::Reject => {
                    // What it would have been is what is logged.
                    *path = [unescaped, query].concat();
                    return Err(refused());
                }
                EscapedSlashes::Redirect => redirect = true,
                EscapedSlashes::Forward | EscapedSlashes::Keep => {}
            }
            plain = unescaped;
        }
    }
    if manager.normalize_path {
        plain = remove_dot_segments(&canonical_escapes(&plain)?);
    }
    if manager.merge_slashes {
        // As with Envoy, of nothing but slashes the first and the last stay.
        let keep = plain.len() > 1 && plain.iter().all(|byte| *byte == b'/');
        plain.dedup_by(|next, previous| *next == b'/' && *previous == b'/');
        if keep {
            plain.push(b'/');
        }
    }
    plain.extend_from_slice(&query);
    if redirect {
        let mut reply = LocalReply::new(307, "", "path_normalization_failed", Flags::NONE);
        // Two slashes at the start would name another host.
        let slashes = plain.iter().take_while(|byte| **byte == b'/').count();
        reply.location = Some(plain[slashes.saturating_sub(1)..].to_vec());
        *path = plain;
        return Err(reply);
    }
    *path = plain;
    Ok(())
}

/// Whether no option would change it, as with almost every path: that costs a look at each byte and
/// no memory.
fn is_normal(path: &[u8]) -> bool {
    let mut previous = 0;
    for byte in path {
        match byte {
            b'?' => return true,
            b'/' | b'.' if previous == b'/' => return false,
            b'%' | b'\\' | b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                return false;
            }
            _ => previous = *byte,
        }
    }
    true
}

/// The answer to a path that is refused.
pub fn refused() -> LocalReply {
    LocalReply::new(400, "", "path_normalization_failed", Flags::NONE)
}

/// `%2F`, `%2f` become `/`; `%5C`, `%5c` become `\`.
fn unescape_slashes(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'%', b'2', b'f' | b'F', tail @ ..] => {
                out.push(b'/');
                rest = tail;
            }
            [b'%', b'5', b'c' | b'C', tail @ ..] => {
                out.push(b'\\');
                rest = tail;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// RFC 3986, section 6.2.2.2: an escaped unreserved character means the character itself; what a
/// path may not hold is escaped; a backslash is a slash, as browsers take it. A NUL is refused.
/// What only looks like an escape is left alone.
fn canonical_escapes(path: &[u8]) -> Result<Vec<u8>, LocalReply> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        rest = tail;
        match *first {
            b'\\' => out.push(b'/'),
            b'"' | b'<' | b'>' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f.. => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                let (high, low) = (usize::from(first >> 4), usize::from(first & 15));
                out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
            }
            b'%' => {
                let (Some(high), Some(low)) =
                    (tail.first().and_then(hex), tail.get(1).and_then(hex))
                else {
                    out.push(b'%');
                    continue;
                };
                let byte = high << 4 | low;
                if byte == 0 {
                    return Err(refused());
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    out.push(byte);
                } else {
                    out.extend_from_slice(&[b'%', tail[0], tail[1]]);
                }
                rest = &tail[2..];
            }
            byte => out.push(byte),
        }
    }
    Ok(out)
}

fn hex(digit: &u8) -> Option<u8> {
    (*digit as char).to_digit(16).map(|value| value as u8)
}

/// RFC 3986, section 5.2.4: nothing is above the root.
fn remove_dot_segments(path: &[u8]) -> Vec<u8> {
    if path.first() != Some(&b'/') {
        return path.to_vec();
    }
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_open = false;
    for segment in path[1..].split(|b| *b == b'/') {
        ends_open = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in &segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if ends_open || out.is_empty() {
        out.push(b'/');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        let cases: &[(&str, Option<&str>)] = &[
            ("/a/b", Some("/a/b")),
            ("/a/./b/../c", Some("/a/c")),
            ("/a/%2e%2e/b", Some("/b")),
            ("/..", Some("/")),
            ("/../../a", Some("/a")),
            ("/a/..", Some("/")),
            ("/a/b/.", Some("/a/b/")),
            ("/%41%7e%2fx", Some("/A~%2fx")),
            ("/a%00", None),
            ("/a%zz%", Some("/a%zz%")),
            ("/a|b\u{e9}", Some("/a%7Cb%C3%A9")),
            ("/a\\b", Some("/a/b")),
            ("/", Some("/")),
        ];
        for (input, expected) in cases {
            let got = canonical_escapes(input.as_bytes()).map(|path| remove_dot_segments(&path));
            let got = got
                .ok()
                .map(|path| String::from_utf8_lossy(&path).into_owned());
            assert_eq!(got.as_deref(), *expected, "{input}");
            // What is taken for normal must be what it would become.
            assert!(!is_normal(input.as_bytes()) || got.as_deref() == Some(*input));
        }
        assert!(is_normal(b"/a/b.c/d?e=%2f//.."));
        assert!(!is_normal(b"/a//b"));
    }

    #[test]
    fn escaped_slashes_are_found_in_any_case() {
        assert_eq!(
            unescape_slashes(b"/a%2Fb%2fc%5Cd%5ce%25"),
            b"/a/b/c\\d\\e%25"
        );
    }
}
