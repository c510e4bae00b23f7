//! The rules of RFC 9110 and RFC 3986 that tell good bytes from bad ones.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;
const REQUEST_TARGET: u8 = 8;

const CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let mut class = 0;
        // tchar: RFC 9110, section 5.6.2
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            )
        {
            class |= TOKEN;
        }
        // Wider than RFC 3986, as browsers and Envoy have it: everything visible and bytes of
        // UTF-8. A fragment never travels in a request: `#` would split what one peer routes by
        // from what the next one sees.
        if (b > b' ' && b != 0x7f) && b != b'#' {
            class |= TARGET;
        }
        // What a request line may have, as with Envoy: fragments are refused later, in its words.
        if b > b' ' && b < 0x7f {
            class |= REQUEST_TARGET;
        }
        // RFC 3986, section 3.2.2 (reg-name, IP-literal) and the colon before the port.
        if b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b':'
                    | b'['
                    | b']'
            )
        {
            class |= HOST;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

fn all(bytes: &[u8], class: u8) -> bool {
    bytes
        .iter()
        .fold(class, |all, &b| all & CLASSES[b as usize])
        != 0
}

/// `token`: RFC 9110, section 5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TOKEN)
}

/// Bytes that a path with its query may have.
pub fn is_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, TARGET)
}

/// Bytes that the target in a request line may have.
pub fn is_request_target(bytes: &[u8]) -> bool {
    !bytes.is_empty() && all(bytes, REQUEST_TARGET)
}

/// Bytes that the authority of a URI may have, user information included.
pub fn is_uri_authority(bytes: &[u8]) -> bool {
    let mut bytes = bytes.iter();
    bytes.all(|&byte| byte == b'@' || CLASSES[byte as usize] & HOST != 0)
}

/// The methods that Envoy's parser knows.
pub fn is_known_method(method: &[u8]) -> bool {
    matches!(
        method,
        b"GET"
            | b"POST"
            | b"HEAD"
            | b"PUT"
            | b"DELETE"
            | b"OPTIONS"
            | b"PATCH"
            | b"CONNECT"
            | b"TRACE"
            | b"ACL"
            | b"BIND"
            | b"CHECKOUT"
            | b"COPY"
            | b"LINK"
            | b"LOCK"
            | b"MERGE"
            | b"MKACTIVITY"
            | b"MKCALENDAR"
            | b"MKCOL"
            | b"MOVE"
            | b"MSEARCH"
            | b"NOTIFY"
            | b"PROPFIND"
            | b"PROPPATCH"
            | b"PURGE"
            | b"REBIND"
            | b"REPORT"
            | b"SEARCH"
            | b"SOURCE"
            | b"SUBSCRIBE"
            | b"UNBIND"
            | b"UNLINK"
            | b"UNLOCK"
            | b"UNSUBSCRIBE"
    )
}

/// Whether one of those methods begins so.
pub fn begins_known_method(first: u8) -> bool {
    matches!(
        first,
        b'A'..=b'D' | b'G' | b'H' | b'L'..=b'P' | b'R'..=b'U'
    )
}

/// A field value or a reason phrase: no control character but the tab (RFC 9110, section 5.5).
/// Written so that the compiler turns it into vector instructions.
pub fn is_text(bytes: &[u8]) -> bool {
    !bytes.iter().fold(false, |bad, &b| {
        bad | ((b < b' ') & (b != b'\t')) | (b == 0x7f)
    })
}

/// `uri-host [ ":" port ]` without user information; it may be empty.
pub fn is_authority(bytes: &[u8]) -> bool {
    if bytes.is_empty() {
        return true;
    }
    if !all(bytes, HOST) {
        return false;
    }
    let after_host = if bytes[0] == b'[' {
        let Some(close) = memchr::memchr(b']', bytes) else {
            return false;
        };
        let inside = &bytes[1..close];
        if inside.is_empty() || memchr::memchr2(b'[', b']', inside).is_some() {
            return false;
        }
        &bytes[close + 1..]
    } else {
        if memchr::memchr2(b'[', b']', bytes).is_some() {
            return false;
        }
        match memchr::memchr(b':', bytes) {
            Some(0) => return false,
            Some(at) => &bytes[at..],
            None => &[],
        }
    };
    match after_host.split_first() {
        None => true,
        Some((b':', port)) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    }
}

/// Removes spaces and tabs at both ends (OWS).
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether a comma-separated list has a token, compared without regard to case.
pub fn list_has(value: &[u8], token: &[u8]) -> bool {
    value
        .split(|&b| b == b',')
        .any(|item| trim(item).eq_ignore_ascii_case(token))
}

/// `1*DIGIT` that fits.
pub fn decimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 20 {
        return None;
    }
    bytes.iter().try_fold(0u64, |number, &b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// `1*HEXDIG` that fits.
pub fn hexadecimal(bytes: &[u8]) -> Option<u64> {
    if bytes.is_empty() || bytes.len() > 16 {
        return None;
    }
    bytes.iter().try_fold(0u64, |number, &b| {
        let digit = (b as char).to_digit(16)?;
        Some(number << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "",
            "a",
            "a.b:80",
            "a:",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "a_b.c",
            "x%20y",
        ] {
            assert!(is_authority(good.as_bytes()), "{good}");
        }
        for bad in [
            ":80", "a:b", "a:80:80", "user@a", "a/b", "a b", "a\tb", "[::1", "::1]", "[]",
            "[::1]x", "[[::1]]", "a:123456", "a?b", "a#b", "a\\b", "é",
        ] {
            assert!(!is_authority(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for bad in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "0x1",
            "18446744073709551616",
            "1,1",
            "1_0",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(hexadecimal(b"ffffFFFFffffFFFF"), Some(u64::MAX));
        for bad in ["", "g", "+1", "0x1", "00000000000000001", " 1", "1 "] {
            assert_eq!(hexadecimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn every_byte_of_a_value() {
        for byte in 0..=255u8 {
            let good = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            assert_eq!(is_text(&[b'a', byte, b'b']), good, "{byte}");
        }
    }
}
