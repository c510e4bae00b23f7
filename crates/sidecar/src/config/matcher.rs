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

/// Whether case matters. With `Insensitive` the pattern is kept in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// As written.
    Sensitive,
    /// `ignore_case`
    Insensitive,
}

/// A regular expression in RE2's syntax that matches the whole text, in linear time.
#[derive(Clone, Debug)]
pub struct Regex {
    pub(super) compiled: regex::bytes::Regex,
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
