//! RE2's syntax, which configuration is written in, as the syntax of the `regex` crate.
//!
//! The two agree on almost everything. What differs is translated where the meaning can be kept,
//! and refused where it cannot: a pattern must never match something else than it did in Envoy.

use regex::bytes::RegexBuilder;

use super::fields::refuse;
use crate::config::error::{ConfigError, Result};
use crate::config::matcher::Regex;

/// The most memory that one compiled pattern may take, bytes.
const SIZE_LIMIT: usize = 4 << 20;

/// A pattern that must match the whole text.
pub fn whole(pattern: &str, field: &str) -> Result<Regex> {
    let translated = translate(pattern, field)?;
    // Once as it is: an unbalanced parenthesis must not be balanced by the anchors around it.
    compile(&translated, field)?;
    Ok(Regex {
        compiled: compile(&format!(r"\A(?:{translated})\z"), field)?,
    })
}

/// A pattern that matches anywhere, for rewriting.
pub fn anywhere(pattern: &str, field: &str) -> Result<regex::bytes::Regex> {
    compile(&translate(pattern, field)?, field)
}

/// RE2's replacement text (`\1`) as the crate's (`${1}`).
pub fn substitution(text: &str, pattern: &regex::bytes::Regex, field: &str) -> Result<Box<[u8]>> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('\\') => out.push('\\'),
                Some(digit @ '0'..='9') => {
                    let group = usize::from(digit as u8 - b'0');
                    refuse(
                        group >= pattern.captures_len(),
                        field,
                        format_args!("\\{group} names a group that the pattern does not have"),
                    )?;
                    out.push_str(&format!("${{{group}}}"));
                }
                _ => {
                    return Err(ConfigError::new(
                        field,
                        "a backslash must be followed by a digit or a backslash",
                    ));
                }
            },
            '$' => out.push_str("$$"),
            other => out.push(other),
        }
    }
    refuse(
        !out.bytes().all(|byte| byte.is_ascii_graphic()),
        field,
        "must hold neither spaces nor control characters",
    )?;
    Ok(out.into_bytes().into())
}

fn compile(pattern: &str, field: &str) -> Result<regex::bytes::Regex> {
    RegexBuilder::new(pattern)
        .size_limit(SIZE_LIMIT)
        .build()
        .map_err(|error| ConfigError::new(field, format_args!("not a regular expression: {error}")))
}

fn translate(pattern: &str, field: &str) -> Result<String> {
    let mut translator = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
        quantified: false,
    };
    translator
        .run()
        .map_err(|reason| ConfigError::new(field, reason))?;
    Ok(translator.out)
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    /// What was read last is a quantifier, which no other may follow.
    quantified: bool,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), &'static str> {
        while let Some(character) = self.next() {
            let quantified = std::mem::take(&mut self.quantified);
            match character {
                '\\' => self.escape(false)?,
                '[' => self.class()?,
                '*' | '+' | '?' => self.quantifier(character, quantified)?,
                '{' => self.repetition(quantified)?,
                '(' => self.group()?,
                other => self.out.push(other),
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<char> {
        let character = self.rest.chars().next()?;
        self.rest = &self.rest[character.len_utf8()..];
        Some(character)
    }

    /// `*`, `+` or `?`, each of which one more `?` makes lazy.
    fn quantifier(&mut self, quantifier: char, after_another: bool) -> Result<(), &'static str> {
        if after_another {
            return Err("not a regular expression: a repetition of a repetition");
        }
        self.out.push(quantifier);
        self.lazy();
        Ok(())
    }

    fn lazy(&mut self) {
        if let Some(rest) = self.rest.strip_prefix('?') {
            self.out.push('?');
            self.rest = rest;
        }
        self.quantified = true;
    }

    /// `{n}`, `{n,}`, `{n,m}`; any other brace is literal in RE2.
    fn repetition(&mut self, after_another: bool) -> Result<(), &'static str> {
        let counts = self.rest.split_once('}').map(|(counts, _)| counts);
        let is_count = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let valid = counts.is_some_and(|counts| match counts.split_once(',') {
            None => is_count(counts),
            Some((least, most)) => is_count(least) && (most.is_empty() || is_count(most)),
        });
        let Some(counts) = counts.filter(|_| valid) else {
            self.out.push_str(r"\{");
            return Ok(());
        };
        if after_another {
            return Err("not a regular expression: a repetition of a repetition");
        }
        let too_many = |count: &str| count.parse::<u32>().is_ok_and(|count| count > 1000);
        if counts.split(',').any(too_many) {
            return Err("not a regular expression: more than 1000 repetitions");
        }
        self.out.push('{');
        self.out.push_str(counts);
        self.out.push('}');
        self.rest = &self.rest[counts.len() + 1..];
        self.lazy();
        Ok(())
    }

    /// After `(`: RE2 knows groups that are named or not captured, and the flags i, m, s and U.
    fn group(&mut self) -> Result<(), &'static str> {
        self.out.push('(');
        let Some(rest) = self.rest.strip_prefix('?') else {
            return Ok(());
        };
        self.out.push('?');
        self.rest = rest;
        if rest.starts_with("P<") || rest.starts_with('<') {
            return Ok(());
        }
        let end = rest
            .find([':', ')'])
            .ok_or("not a regular expression: a group without an end")?;
        let flags = &rest[..end];
        if !flags.chars().all(|flag| "imsU-".contains(flag)) {
            return Err("not a regular expression in RE2's syntax: unknown kind of group");
        }
        self.out.push_str(flags);
        self.rest = &rest[end..];
        Ok(())
    }

    /// After `\`. RE2's \d, \w, \s and \b mean ASCII.
    fn escape(&mut self, in_class: bool) -> Result<(), &'static str> {
        let Some(character) = self.next() else {
            return Err("not a regular expression: a backslash at the end");
        };
        match character {
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("[0-9A-Za-z_]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str(r"[\t\n\f\r ]"),
            'S' => self.out.push_str(r"[^\t\n\f\r ]"),
            'b' | 'B' if !in_class => {
                self.out.push_str("(?-u:\\");
                self.out.push(character);
                self.out.push(')');
            }
            'Q' if !in_class => {
                let (literal, rest) = match self.rest.split_once(r"\E") {
                    Some((literal, rest)) => (literal, rest),
                    None => (self.rest, ""),
                };
                self.out.push_str(&regex::escape(literal));
                self.rest = rest;
            }
            '0'..='7' => {
                let more = self.rest.bytes().take(2);
                let digits = more.take_while(|b| (b'0'..=b'7').contains(b)).count();
                if character != '0' && digits < 2 {
                    return Err("not a regular expression in RE2's syntax: a back reference");
                }
                let (octal, rest) = self.rest.split_at(digits);
                let code = u32::from_str_radix(&format!("{character}{octal}"), 8);
                let code = code.map_err(|_| "not a regular expression: a bad octal escape")?;
                self.out.push_str(&format!(r"\x{{{code:x}}}"));
                self.rest = rest;
            }
            'A' | 'z' if !in_class => {
                self.out.push('\\');
                self.out.push(character);
            }
            'a' | 'f' | 't' | 'n' | 'r' | 'v' => {
                self.out.push('\\');
                self.out.push(character);
            }
            'x' | 'p' | 'P' => {
                self.out.push('\\');
                self.out.push(character);
                if self.rest.starts_with('{') {
                    let (name, rest) = self
                        .rest
                        .split_once('}')
                        .ok_or("not a regular expression: an escape without its }")?;
                    self.out.push_str(name);
                    self.out.push('}');
                    self.rest = rest;
                }
            }
            punctuation if punctuation.is_ascii_punctuation() => {
                // `\<` and `\>` are word boundaries to the crate and plain characters to RE2.
                if !"<>".contains(punctuation) {
                    self.out.push('\\');
                }
                self.out.push(punctuation);
            }
            _ => return Err("not a regular expression in RE2's syntax: unknown escape"),
        }
        Ok(())
    }

    /// After `[`. The crate knows nested classes and operators in classes, RE2 does not.
    fn class(&mut self) -> Result<(), &'static str> {
        const OPEN: &str = "not a regular expression: a character class without an end";
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.out.push('^');
            self.rest = rest;
        }
        let mut first = true;
        loop {
            let before = self.rest;
            match self.next().ok_or(OPEN)? {
                ']' if !first => {
                    self.out.push(']');
                    return Ok(());
                }
                ']' => self.out.push_str(r"\]"),
                '[' if self.rest.starts_with(':') => {
                    let end = self.rest.find(":]").ok_or(OPEN)? + 2;
                    self.out.push_str(&before[..end + 1]);
                    self.rest = &self.rest[end..];
                }
                '-' if self.rest.starts_with('-') => {
                    return Err("`--` in a character class can be read in two ways: write \\-");
                }
                special @ ('[' | '&' | '~') => {
                    self.out.push('\\');
                    self.out.push(special);
                }
                '\\' => self.escape(true)?,
                other => self.out.push(other),
            }
            first = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_re2() {
        for (pattern, matching, other) in [
            (r"/a|/b", "/b", "/bc"),
            (r"/v\d+", "/v12", "/v١"),
            (r"\w+", "ab_1", "é"),
            (r".", "é", "ab"),
            (r"[\d.-]+", "1.2-3", "a"),
            (r"[[a]", "[", "b"),
            (r"[a&&b]+", "a&b", "c"),
            (r"[]a]+", "]a", "b"),
            (r"[[:alpha:]_]+", "ab_", "1"),
            (r"a{,2}", "a{,2}", "aa"),
            (r"a{2,3}?", "aaa", "a"),
            (r"\Qa.b\E+", "a.bb", "axb"),
            (r"\p{Greek}+\pN", "αβ1", "ab1"),
            (r"\x{263a}\x41", "☺A", "A"),
            (r"\101\<", "A<", "A"),
            (r"(?i)abc(?P<tail>x?)", "ABCX", "abd"),
            (r"\bfoo\b", "foo", "foob"),
            (r"^/x$", "/x", "/xy"),
        ] {
            let regex = whole(pattern, "regex").unwrap();
            assert!(regex.matches(matching.as_bytes()), "{pattern} {matching}");
            assert!(!regex.matches(other.as_bytes()), "{pattern} {other}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in [
            r"a++", r"a**", r"a{2}{3}", r"(?=a)", r"(?<=a)", r"(a)\1", r"\C", r"(?x)a b", r"(?u)a",
            r"a)(b", r"[a", r"a{1001}", r"[+--]", r"\Z", r"\", r"(",
        ] {
            assert!(whole(pattern, "regex").is_err(), "{pattern}");
        }
    }

    #[test]
    fn replacements_become_the_crates() {
        let pattern = anywhere("^/service/([^/]+)(/.*)$", "pattern").unwrap();
        let text = substitution(r"\2/instance/\1$\\", &pattern, "s").unwrap();
        assert_eq!(
            &*pattern.replace_all(b"/service/foo/v1/api", &*text),
            b"/v1/api/instance/foo$\\".as_slice()
        );
        for bad in [r"\3", r"\x", "\\", "a b"] {
            assert!(substitution(bad, &pattern, "s").is_err(), "{bad}");
        }
    }
}
