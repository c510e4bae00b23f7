//! The grammar of requests in tables; each case is also split at every byte.

use super::*;

fn once(text: &[u8], splits: &[usize], limits: &Limits) -> (Result<usize, String>, RequestHead) {
    let mut head = RequestHead::new();
    clear(&mut head, "http");
    let mut parser = RequestParser::default();
    let mut taken = 0;
    for &end in splits {
        match parser.parse(&text[..end], &mut taken, &mut head, limits) {
            Ok(true) => return (Ok(taken), head),
            Ok(false) => {}
            Err(error) => {
                return (
                    Err(format!("{} {error}", error.status().unwrap_or(0))),
                    head,
                );
            }
        }
    }
    (Err("incomplete".to_owned()), head)
}

/// Parses the text whole and split at every byte; all must agree.
fn parse_with(text: &[u8], limits: &Limits) -> Result<(RequestHead, usize), String> {
    let (result, head) = once(text, &[text.len()], limits);
    for split in 0..text.len() {
        let (again, other) = once(text, &[split, text.len()], limits);
        assert_eq!(again, result, "split at {split} of {}", text.escape_ascii());
        if result.is_ok() {
            assert_eq!(format!("{other:?}"), format!("{head:?}"));
        }
    }
    let every: Vec<usize> = (0..=text.len()).collect();
    assert_eq!(once(text, &every, limits).0, result);
    result.map(|taken| (head, taken))
}

fn parse(text: &str) -> Result<(RequestHead, usize), String> {
    parse_with(text.as_bytes(), &Limits::default())
}

fn shown(head: &RequestHead) -> String {
    let mut text = format!(
        "{} {} {} {} {:?}",
        head.version.as_str(),
        head.method.escape_ascii(),
        head.authority.escape_ascii(),
        head.path.escape_ascii(),
        head.body
    );
    for (_, name, value) in head.headers.iter() {
        text += &format!(" | {}={}", name.escape_ascii(), value.escape_ascii());
    }
    text
}

#[test]
fn valid() {
    for (text, expect) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 GET a / None"),
        (
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 GET a / None",
        ),
        // Refused later: see `hostless` and the manager's path options.
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 GET  / None"),
        (
            "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 GET a /#f None",
        ),
        (
            "GET /x?y=/{z}|\"%2f HTTP/1.1\r\nhOST:a:80 \r\n\r\n",
            "HTTP/1.1 GET a:80 /x?y=/{z}|\\\"%2f None",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 GET  / None"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "HTTP/1.1 GET  / None"),
        (
            "GET http://b/p HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 GET b /p None",
        ),
        (
            "GET HTTPS://b:8?q HTTP/1.1\r\nHost: b:8\r\n\r\n",
            "HTTP/1.1 GET b:8 /?q None",
        ),
        (
            "OPTIONS http://b HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 OPTIONS b * None",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 OPTIONS b * None",
        ),
        (
            "CONNECT b:443 HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 CONNECT b:443  None",
        ),
        (
            "CONNECT [::1]:443 HTTP/1.1\r\nHost: b\r\n\r\n",
            "HTTP/1.1 CONNECT [::1]:443  None",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX-A:\t b c \t\r\nx-a:\r\n\r\n",
            "HTTP/1.1 POST a / Sized(12) | X-A=b c | x-a=",
        ),
        (
            "PoSt / HTTP/1.1\r\nTransfer-encoding: CHUNKED\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
            "HTTP/1.1 PoSt a / Streamed | Expect=100-continue",
        ),
        (
            "G!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 G!#$%&\\'*+-.^_`|~9 a / None | Connection=close",
        ),
    ] {
        let (head, taken) = parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
        assert_eq!(shown(&head), expect, "{text:?}");
        assert_eq!(taken, text.len());
    }
    // A later request is left alone.
    let (_, taken) = parse("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET").unwrap();
    assert_eq!(taken, 27);
}

#[test]
fn refused() {
    let cases: &[(u16, &str)] = &[
        // The request line
        (400, "GET /\r\n\r\n"),
        (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT [::1] HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/11.1\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
        (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (400, "\u{16}\u{3}\u{1}\0\u{5}"),
        (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        // Line ends and folding
        (400, "GET / HTTP/1.1\nHost: a\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n"),
        (400, "GET / HTTP/1.1\rHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\n X: b\r\nHost: a\r\n\r\n"),
        // Names and values
        (400, "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX\u{e9}: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a\r\nX: \x1b[2J\r\n\r\n"),
        // Host
        (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
        (400, "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        // Framing: the smuggler's corpus
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
        ),
        (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        ),
        (
            501,
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            400,
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        ),
    ];
    for (status, text) in cases {
        let error = match parse(text) {
            Err(error) => error,
            Ok((head, _)) => panic!("{text:?} was taken: {}", shown(&head)),
        };
        assert!(error.starts_with(&status.to_string()), "{text:?}: {error}");
    }
}

#[test]
fn limits() {
    let limits = Limits {
        head_bytes: 100,
        headers: 3,
        trailers: true,
        accept_http_10: false,
        ..Limits::default()
    };
    let of = |text: &str| parse_with(text.as_bytes(), &limits).map(|(_, taken)| taken);
    let fit = |n: usize| format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(n));
    assert_eq!(of(&fit(74)), Ok(100));
    assert!(of(&fit(75)).unwrap_err().starts_with("431"));
    assert!(of(&"G".repeat(101)).unwrap_err().starts_with("431"));
    assert_eq!(of(&"G".repeat(100)).unwrap_err(), "incomplete");
    assert!(of("GET / HTTP/1.1\r\nHost: a\r\nb:\r\nc:\r\n\r\n").is_ok());
    let four = of("GET / HTTP/1.1\r\nHost: a\r\nb:\r\nc:\r\nd:\r\n\r\n");
    assert!(four.unwrap_err().starts_with("431"));
    assert!(of("GET / HTTP/1.0\r\n\r\n").unwrap_err().starts_with("426"));
}

#[test]
fn persistence() {
    for (version, connection, persists) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        let mut head = RequestHead::new();
        let mut parser = RequestParser::default();
        let mut taken = 0;
        let done = parser.parse(text.as_bytes(), &mut taken, &mut head, &Limits::default());
        assert!(done.unwrap());
        assert_eq!(parser.persists(head.version), persists, "{text:?}");
    }
}

/// Mutants of good heads: whatever they are, no panic, and the same answer however they come.
#[test]
fn mutants_are_judged_alike_whole_and_in_pieces() {
    use rand::RngExt;
    let seeds: [&[u8]; 3] = [
        b"POST /p?q HTTP/1.1\r\nHost: a:80\r\nContent-Length: 12\r\nConnection: close\r\n\r\n",
        b"GET http://[::1]:8/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nHost: b\r\n\r\n",
        b"CONNECT c:443 HTTP/1.0\r\nA: b\r\n\r\n",
    ];
    let alphabet = b"\r\n\t\0 :;,/?#[]@*%\x7f\xff0aZ";
    let mut random = rand::rng();
    let limits = Limits {
        head_bytes: 80,
        headers: 3,
        trailers: true,
        accept_http_10: true,
        ..Limits::default()
    };
    for round in 0..20_000 {
        let mut text = seeds[round % seeds.len()].to_vec();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..text.len());
            let byte = alphabet[random.random_range(0..alphabet.len())];
            match random.random_range(0..3) {
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                _ => drop(text.remove(at)),
            }
        }
        let (whole, head) = once(&text, &[text.len()], &limits);
        let first = random.random_range(0..=text.len());
        let second = random.random_range(first..=text.len());
        let (pieces, other) = once(&text, &[first, second, text.len()], &limits);
        assert_eq!(
            whole,
            pieces,
            "{} at {first}, {second}",
            text.escape_ascii()
        );
        if whole.is_ok() {
            assert_eq!(format!("{head:?}"), format!("{other:?}"));
            // What was taken cannot be read in another way by the next one.
            assert!(!head.headers.contains(Name::TransferEncoding));
            assert!(!head.headers.contains(Name::ContentLength));
            assert!(head.path.iter().all(|&b| b > b' ' && b != 0x7f));
            assert!(head.headers.iter().all(|(_, n, v)| {
                grammar::is_token(n) && !v.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))
            }));
        }
    }
}
