//! How long and how deep an expression may be. Parsing, looking through, evaluating and dropping one
//! take stack for each of its levels, so it must be known before that there are few of them.

use cel::IdedExpr;

use super::CelError;

/// The longest text, in code points, as in Envoy.
const LONGEST: usize = 100_000;
/// The levels of a tree, as in Envoy.
pub const DEEPEST: u16 = 32;
/// The brackets and conditions that a text may open at once. The parser counts them exactly, but only
/// once it is in them: this is what its stack is sized for.
const OPEN: usize = 2 * DEEPEST as usize;
/// The operators of chains, such as `1+1+1` or `a.b.c`, that the parser may be in at once. It is far
/// above what any good tree has, since it also counts what follows at the same level.
const CHAINED: usize = 1024;
/// The parser's stack: for what is within these limits, some times over, without optimisation.
pub(super) const STACK: usize = 64 << 20;

/// Refuses a text that the parser must not see.
pub(super) fn check_text(text: &str) -> Result<(), CelError> {
    if text.chars().count() > LONGEST {
        return Err(CelError::Long(LONGEST));
    }
    let bytes = text.as_bytes();
    // What is open at each level: conditions, and operators of the chain that goes on.
    let mut levels = vec![(0, 0)];
    let (mut conditions, mut chained) = (0, 0);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let level = levels.len() - 1;
        let here = &mut levels[level];
        at += match byte {
            b'"' | b'\'' => string(&bytes[..at], &bytes[at..])?,
            b'/' if bytes[at..].starts_with(b"//") => {
                let rest = &bytes[at..];
                rest.iter()
                    .position(|&byte| byte == b'\n')
                    .unwrap_or(rest.len())
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                let length = word(&bytes[at..]);
                if &bytes[at..at + length] == b"in" {
                    here.1 += 1;
                    chained += 1;
                }
                length
            }
            b'(' | b'[' | b'{' => {
                // An index or a call is part of the chain around it.
                here.1 += 1;
                chained += 1;
                levels.push((0, 0));
                1
            }
            b')' | b']' | b'}' => {
                if level > 0 {
                    conditions -= here.0;
                    chained -= here.1;
                    levels.pop();
                }
                1
            }
            b',' => {
                conditions -= here.0;
                chained -= here.1;
                *here = (0, 0);
                1
            }
            b'?' => {
                here.0 += 1;
                conditions += 1;
                chained -= std::mem::take(&mut here.1);
                1
            }
            // These are made into trees that are as flat as can be.
            b'&' | b'|' | b':' => {
                chained -= std::mem::take(&mut here.1);
                1
            }
            b'.' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=' | b'!' => {
                here.1 += 1;
                chained += 1;
                1
            }
            _ => 1,
        };
        if levels.len() - 1 + conditions > OPEN || chained > CHAINED {
            return Err(CelError::Deep(DEEPEST));
        }
    }
    Ok(())
}

/// The length of the word that begins here.
fn word(bytes: &[u8]) -> usize {
    let other = |byte: &u8| !(byte.is_ascii_alphanumeric() || *byte == b'_');
    bytes.iter().position(other).unwrap_or(bytes.len())
}

/// The length of the string that begins here. What no string is must be refused here: the parser
/// would go on inside it, and find brackets there that were not counted.
fn string(before: &[u8], bytes: &[u8]) -> Result<usize, CelError> {
    let other = |byte: &u8| !(byte.is_ascii_alphanumeric() || *byte == b'_');
    let start = before.iter().rposition(other).map_or(0, |last| last + 1);
    let raw = match before[start..].to_ascii_lowercase().as_slice() {
        b"" | b"b" => false,
        b"in" if before.ends_with(b"in") => false,
        b"r" | b"br" => true,
        _ => return Err(CelError::Syntax("a string follows a word".to_owned())),
    };
    let quote = bytes[0];
    let three = [quote; 3];
    let is_long = bytes.starts_with(&three);
    let end: &[u8] = if is_long { &three } else { &three[..1] };
    let mut at = end.len();
    loop {
        let rest = &bytes[at..];
        if rest.starts_with(end) {
            return Ok(at + end.len());
        }
        at += match rest.first() {
            None => return Err(CelError::Syntax("a string has no end".to_owned())),
            Some(b'\n' | b'\r') if !is_long => {
                return Err(CelError::Syntax("a string ends with its line".to_owned()));
            }
            Some(b'\\') if !raw => escape(&rest[1..])
                .ok_or_else(|| CelError::Syntax("a string has an unknown escape".to_owned()))?,
            Some(_) => 1,
        };
    }
}

/// The length of an escape with its backslash, by what follows that.
fn escape(rest: &[u8]) -> Option<usize> {
    let digits = match rest.first()? {
        b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' => return Some(2),
        b'"' | b'\'' | b'\\' | b'?' | b'`' => return Some(2),
        b'0'..=b'3' => {
            let octal = rest
                .get(1..3)?
                .iter()
                .all(|byte| matches!(byte, b'0'..=b'7'));
            return octal.then_some(4);
        }
        b'x' | b'X' => 2,
        b'u' => 4,
        b'U' => 8,
        _ => return None,
    };
    let good = rest.get(1..=digits)?.iter().all(u8::is_ascii_hexdigit);
    good.then_some(2 + digits)
}

/// Refuses a tree that is too deep. Comprehensions are refused elsewhere, without a look inside.
pub(super) fn check_tree(expression: &IdedExpr) -> Result<(), CelError> {
    let mut left = vec![(expression, 1_u16)];
    while let Some((one, depth)) = left.pop() {
        if depth > DEEPEST {
            return Err(CelError::Deep(DEEPEST));
        }
        left.extend(super::parts(one).map(|part| (part, depth + 1)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::{CelError, Expression};

    /// Envoy's limits, each by what it accepts last and refuses first.
    #[test]
    fn expressions_are_as_deep_as_in_envoy() {
        type Shape = fn(usize) -> String;
        let shapes: [(&str, usize, Shape); 8] = [
            ("brackets", 32, |n| {
                format!("{}true{}", "(".repeat(n), ")".repeat(n))
            }),
            ("lists", 31, |n| {
                format!("{}{} == []", "[".repeat(n), "]".repeat(n))
            }),
            ("sums", 31, |n| format!("{} == 2", vec!["1"; n].join("+"))),
            ("fields", 29, |n| {
                format!("request.headers{} == 1", ".a".repeat(n))
            }),
            ("calls", 30, |n| {
                format!("request.path{}", ".startsWith('a')".repeat(n))
            }),
            ("conditions", 31, |n| {
                format!("{}true", "true?true:".repeat(n))
            }),
            ("keys", 29, |n| {
                format!("{} == 'a'", vec!["request.headers['a']"; n].join("+"))
            }),
            ("strings", 31, |n| {
                format!("{} == ''", vec![r"'(([[{{ \\ ++'"; n].join("+"))
            }),
        ];
        for (name, last, shape) in shapes {
            let parse = |levels| Expression::parse(&shape(levels));
            parse(last).unwrap_or_else(|error| panic!("{name}: {error}"));
            for levels in [last + 1, 60, 300, 1_000, 20_000] {
                let refused = match parse(levels) {
                    Err(CelError::Syntax(text)) => text.contains("ecursion limit"),
                    Err(CelError::Deep(_) | CelError::Long(_)) => true,
                    _ => false,
                };
                assert!(refused, "{name}, {levels}");
            }
        }
        let many = |count| Expression::parse(&vec!["request.path == '/a'"; count].join(" || "));
        many(1_000).unwrap();
        assert_eq!(many(20_000).unwrap_err(), CelError::Long(100_000));
    }

    /// Where a string is none, its inside could hide brackets from the count.
    #[test]
    fn strings_cannot_hide_brackets() {
        let deep = "(".repeat(20_000);
        let bad = [
            r"'\q@'",
            "'@",
            "'\n@'",
            r#""""@"""#,
            "xr'@'",
            r"1r'@\'",
            "rb'@'",
            r"'\400@'",
            r"'\x0@'",
        ];
        for around in bad {
            let text = around.replace('@', &deep);
            assert!(Expression::parse(&text).is_err(), "{around}");
        }
        let good = [
            "'a' // @",
            r"r'@\' == ''",
            "'''\n@''' == ''",
            "br'@' == b''",
            "'a' in['@']",
        ];
        for around in good {
            let text = around.replace('@', &deep);
            assert!(Expression::parse(&text).is_ok(), "{around}");
        }
    }
}
