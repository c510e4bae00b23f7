//! URI templates that match and rewrite paths (`envoy.path.match.uri_template` and
//! `envoy.path.rewrite.uri_template`): segments that are literal, `*` (one segment), `**` (any
//! number of them), or variables with such a pattern.

use super::fields::refuse;
use super::regex;
use crate::config::error::{ConfigError, Result};
use crate::config::matcher::Regex;
use crate::config::route::TemplatePiece;

/// What a path segment may be made of (RFC 3986, `pchar`), but for the two that are operators here.
const SEGMENT: &str = r"a-zA-Z0-9\-._~%!$&'()+,;:@";
/// As many variables as Envoy allows, and as long a name.
const MOST_VARIABLES: usize = 5;
const LONGEST_NAME: usize = 16;

/// A template as a regular expression whose named groups are the variables.
pub fn pattern(template: &str, field: &str) -> Result<Regex> {
    let invalid = |reason: &str| ConfigError::new(field, format_args!("`{template}`: {reason}"));
    let rest = template
        .strip_prefix('/')
        .ok_or_else(|| invalid("a template begins with a slash"))?;
    let mut parser = Parser {
        rest,
        out: String::from("/"),
        names: Vec::new(),
        after_any: false,
    };
    parser.run().map_err(invalid)?;
    regex::whole(&parser.out, field)
}

struct Parser<'a> {
    rest: &'a str,
    out: String,
    names: Vec<&'a str>,
    /// `**` has come, after which nothing else can stand for text that is not known.
    after_any: bool,
}

impl<'a> Parser<'a> {
    fn run(&mut self) -> Result<(), &'static str> {
        while !self.rest.is_empty() {
            match self.rest.as_bytes()[0] {
                b'*' => self.glob()?,
                b'{' => self.variable()?,
                _ => self.literal()?,
            }
            if self.rest.is_empty() {
                break;
            }
            if let Some(rest) = self.rest.strip_prefix('/') {
                self.out.push('/');
                self.rest = rest;
                continue;
            }
            // Text right behind an operator can only end the template.
            self.literal()?;
            if !self.rest.is_empty() {
                return Err("text behind a * or a variable must be the last of the template");
            }
        }
        Ok(())
    }

    fn glob(&mut self) -> Result<(), &'static str> {
        if self.after_any {
            return Err("nothing but literal text can follow **");
        }
        if let Some(rest) = self.rest.strip_prefix("**") {
            self.rest = rest;
            self.after_any = true;
            self.out.push_str(&format!("[{SEGMENT}/]*"));
        } else {
            self.rest = &self.rest[1..];
            self.out.push_str(&format!("[{SEGMENT}]+"));
        }
        Ok(())
    }

    fn literal(&mut self) -> Result<(), &'static str> {
        let end = self.rest.find('/').unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        if text.is_empty() || !text.bytes().all(is_segment) {
            return Err("a segment is empty, or holds what a path segment cannot hold");
        }
        self.out.push_str(&::regex::escape(text));
        self.rest = rest;
        Ok(())
    }

    fn variable(&mut self) -> Result<(), &'static str> {
        let (inner, rest) = self.rest[1..]
            .split_once('}')
            .ok_or("a variable lacks its closing brace")?;
        let (name, value) = match inner.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (inner, None),
        };
        if !is_name(name) || name.len() > LONGEST_NAME {
            return Err("a variable's name is a letter and up to 15 letters, digits and _");
        }
        if self.names.contains(&name) {
            return Err("a variable has the name of another");
        }
        if self.names.len() == MOST_VARIABLES {
            return Err("has more than 5 variables");
        }
        self.names.push(name);
        self.out.push_str(&format!("(?P<{name}>"));
        let mut inner = Parser {
            rest: value.unwrap_or("*"),
            out: String::new(),
            names: Vec::new(),
            after_any: self.after_any,
        };
        if inner.rest.is_empty() {
            return Err("a variable's pattern is empty");
        }
        inner.run_value()?;
        self.after_any = inner.after_any;
        self.out.push_str(&inner.out);
        self.out.push(')');
        self.rest = rest;
        Ok(())
    }

    /// The pattern of a variable: globs and literals between slashes.
    fn run_value(&mut self) -> Result<(), &'static str> {
        loop {
            if self.rest.starts_with('*') {
                self.glob()?;
            } else {
                self.literal()?;
            }
            if self.rest.is_empty() {
                return Ok(());
            }
            self.rest = self
                .rest
                .strip_prefix('/')
                .filter(|rest| !rest.is_empty())
                .ok_or("a variable's pattern is made of segments between slashes")?;
            self.out.push('/');
        }
    }
}

fn is_segment(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&byte)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A rewrite: literal text with `{variables}` of the template that matched.
pub fn rewrite(text: &str, matched: &Regex, field: &str) -> Result<Vec<TemplatePiece>> {
    let invalid = |reason: &str| ConfigError::new(field, format_args!("`{text}`: {reason}"));
    refuse(
        !text.starts_with('/') || text.contains("//"),
        field,
        "must begin with one slash and have no two in a row",
    )?;
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find('{').unwrap_or(rest.len());
        let (literal, variable) = rest.split_at(end);
        if !literal.bytes().all(|byte| is_segment(byte) || byte == b'/') {
            return Err(invalid("holds what a path cannot hold"));
        }
        if !literal.is_empty() {
            pieces.push(TemplatePiece::Literal(literal.as_bytes().into()));
        }
        if variable.is_empty() {
            break;
        }
        let (name, behind) = variable[1..]
            .split_once('}')
            .ok_or_else(|| invalid("a variable lacks its closing brace"))?;
        let group = matched
            .compiled
            .capture_names()
            .position(|n| n == Some(name));
        let group = group.ok_or_else(|| {
            invalid("names a variable that the template of path_match_policy does not have")
        })?;
        pieces.push(TemplatePiece::Group(group));
        rest = behind;
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_segments() {
        for (template, path, matches) in [
            ("/videos/*/*.m4s", "/videos/1/2.m4s", true),
            ("/videos/*/*.m4s", "/videos/1/2/3.m4s", false),
            ("/a/{b}", "/a/x", true),
            ("/a/{b}", "/a/", false),
            ("/a/{b=x/*}/c", "/a/x/y/c", true),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c", true),
            ("/**.mpd", "/content/123/x.mpd", true),
            ("/a.b", "/axb", false),
            ("/a/", "/a/", true),
        ] {
            let pattern = pattern(template, "t").unwrap();
            assert_eq!(
                pattern.matches(path.as_bytes()),
                matches,
                "{template} {path}"
            );
        }
    }

    #[test]
    fn bad_templates_are_refused() {
        for template in [
            "a",
            "/a//b",
            "/{",
            "/{1}",
            "/{a}/{a}",
            "/{a=}",
            "/{a=b/}",
            "/**/*",
            "/**/{a}",
            "/*a/b",
            "/{a}{b}",
            "/{a}/{b}/{c}/{d}/{e}/{f}",
            "/a b",
        ] {
            assert!(pattern(template, "t").is_err(), "{template}");
        }
        let matched = pattern("/{a}/{b=**}", "t").unwrap();
        assert_eq!(rewrite("/x/{b}/{a}y", &matched, "r").unwrap().len(), 5);
        for text in ["x", "/{c}", "/{a", "//", "/a b"] {
            assert!(rewrite(text, &matched, "r").is_err(), "{text}");
        }
    }
}
