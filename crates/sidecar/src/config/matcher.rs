//! String, path and header matchers (`envoy.type.matcher.v3`, `HeaderMatcher`, `QueryParameterMatcher`).

/// `StringMatcher`. Text is compared as bytes.
#[derive(Clone, Debug)]
pub enum StringMatcher {
    /// `exact`
    Exact(Box<[u8]>, Case),
    /// `prefix`
    Prefix(Box<[u8]>, Case),
    /// `suffix`
    Suffix(Box<[u8]>, Case),
    /// `contains`
    Contains(Box<[u8]>, Case),
    /// `safe_regex`: the whole text must match.
    Regex(Regex),
}

impl StringMatcher {
    /// Whether text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            StringMatcher::Exact(wanted, case) => case.equal(text, wanted),
            StringMatcher::Prefix(wanted, case) => text
                .get(..wanted.len())
                .is_some_and(|start| case.equal(start, wanted)),
            StringMatcher::Suffix(wanted, case) => text
                .len()
                .checked_sub(wanted.len())
                .is_some_and(|at| case.equal(&text[at..], wanted)),
            StringMatcher::Contains(wanted, Case::Sensitive) => {
                memchr::memmem::find(text, wanted).is_some()
            }
            StringMatcher::Contains(wanted, Case::Insensitive) => {
                wanted.is_empty()
                    || text
                        .windows(wanted.len())
                        .any(|window| window.eq_ignore_ascii_case(wanted))
            }
            StringMatcher::Regex(regex) => regex.matches(text),
        }
    }
}

/// Whether case matters. With `Insensitive` the pattern is kept in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As written.
    Sensitive,
    /// `ignore_case`
    Insensitive,
}

impl Case {
    /// Compares; without regard to the case of ASCII letters, if insensitive.
    pub fn equal(self, one: &[u8], other: &[u8]) -> bool {
        match self {
            Case::Sensitive => one == other,
            Case::Insensitive => one.eq_ignore_ascii_case(other),
        }
    }
}

/// A regular expression in RE2's syntax that matches the whole text, in linear time.
#[derive(Clone, Debug)]
pub struct Regex {
    pub(super) compiled: regex::bytes::Regex,
}

impl Regex {
    /// Whether the whole text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }
}

/// `HeaderMatcher`.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    /// In lower case; may be a pseudo-header (`:path`, `:method`, `:authority`, `:scheme`).
    pub name: Box<[u8]>,
    /// What the value must be.
    pub condition: HeaderCondition,
    /// `invert_match`
    pub invert: bool,
    /// `treat_missing_header_as_empty`
    pub missing_is_empty: bool,
}

/// What a header's value must be.
#[derive(Clone, Debug)]
pub enum HeaderCondition {
    /// `present_match` (true: there; false: absent)
    Present(bool),
    /// `range_match`: `[start, end)` of a decimal integer
    Range(i64, i64),
    /// `string_match` and the older forms of it
    Text(StringMatcher),
}

/// `QueryParameterMatcher`.
#[derive(Clone, Debug)]
pub struct QueryMatcher {
    /// The parameter's name.
    pub name: Box<[u8]>,
    /// `None`: it need only be there (`present_match: true`).
    pub condition: Option<StringMatcher>,
    /// `present_match: false`: it must be absent.
    pub absent: bool,
}

/// `CookieMatcher`.
#[derive(Clone, Debug)]
pub struct CookieMatcher {
    /// The cookie's name.
    pub name: Box<[u8]>,
    /// What its value must be.
    pub condition: StringMatcher,
    /// `invert_match`
    pub invert: bool,
}
