//! `StringMatcher`, `HeaderMatcher`, `QueryParameterMatcher`.

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::r#type::matcher::v3 as matcher;

use super::fields::{Together as _, Within as _, header_name, named, one_of, refuse, required};
use super::regex;
use crate::config::error::{ConfigError, Result};
use crate::config::matcher::{
    Case, CookieMatcher, HeaderCondition, HeaderMatcher, QueryMatcher, Regex, StringMatcher,
};

/// `RegexMatcher`, for the whole text.
pub fn safe_regex(proto: &matcher::RegexMatcher) -> Result<Regex> {
    regex::whole(named(&proto.regex, "regex")?, "regex")
}

/// `StringMatcher`.
pub fn string(proto: &matcher::StringMatcher) -> Result<StringMatcher> {
    use matcher::string_matcher::MatchPattern as Pattern;
    let ignore_case = proto.ignore_case;
    match one_of::<matcher::StringMatcher, _>(&proto.match_pattern, "exact")? {
        Pattern::Exact(text) => Ok(exact(text, ignore_case)),
        Pattern::Prefix(text) => prefix(text, ignore_case, "prefix"),
        Pattern::Suffix(text) => suffix(text, ignore_case, "suffix"),
        Pattern::Contains(text) => contains(text, ignore_case, "contains"),
        Pattern::SafeRegex(proto) => safe_regex(proto)
            .map(StringMatcher::Regex)
            .within("safe_regex"),
        Pattern::Custom(_) => Err(ConfigError::new(
            "custom",
            "matchers that come from extensions are not supported",
        )),
    }
}

fn exact(text: &str, ignore_case: bool) -> StringMatcher {
    let (text, case) = with_case(text, ignore_case);
    StringMatcher::Exact(text, case)
}

fn prefix(text: &str, ignore_case: bool, field: &str) -> Result<StringMatcher> {
    let (text, case) = with_case(named(text, field)?, ignore_case);
    Ok(StringMatcher::Prefix(text, case))
}

fn suffix(text: &str, ignore_case: bool, field: &str) -> Result<StringMatcher> {
    let (text, case) = with_case(named(text, field)?, ignore_case);
    Ok(StringMatcher::Suffix(text, case))
}

fn contains(text: &str, ignore_case: bool, field: &str) -> Result<StringMatcher> {
    let (text, case) = with_case(named(text, field)?, ignore_case);
    Ok(StringMatcher::Contains(text, case))
}

fn with_case(text: &str, ignore_case: bool) -> (Box<[u8]>, Case) {
    if ignore_case {
        let lower = text.to_ascii_lowercase();
        (lower.into_bytes().into(), Case::Insensitive)
    } else {
        (text.as_bytes().into(), Case::Sensitive)
    }
}

/// The name of a header or pseudo-header, in lower case.
pub fn header_or_pseudo(name: &str, field: &str) -> Result<Box<[u8]>> {
    match name.strip_prefix(':') {
        None => header_name(name, field),
        Some(pseudo) => {
            header_name(pseudo, field)?;
            Ok(name.to_ascii_lowercase().into_bytes().into())
        }
    }
}

/// `HeaderMatcher`.
pub fn header(proto: &route::HeaderMatcher) -> Result<HeaderMatcher> {
    let (name, condition) = (
        header_or_pseudo(&proto.name, "name"),
        header_condition(proto),
    )
        .together()?;
    Ok(HeaderMatcher {
        name,
        condition,
        invert: proto.invert_match,
        missing_is_empty: proto.treat_missing_header_as_empty,
    })
}

fn header_condition(proto: &route::HeaderMatcher) -> Result<HeaderCondition> {
    use route::header_matcher::HeaderMatchSpecifier as Specifier;
    Ok(match &proto.header_match_specifier {
        None => HeaderCondition::Present(true),
        Some(Specifier::PresentMatch(present)) => HeaderCondition::Present(*present),
        Some(Specifier::RangeMatch(range)) => {
            refuse(
                range.start >= range.end,
                "range_match",
                "is empty: start must be below end, which is not part of it",
            )?;
            HeaderCondition::Range(range.start, range.end)
        }
        Some(Specifier::StringMatch(matcher)) => {
            HeaderCondition::Text(string(matcher).within("string_match")?)
        }
        Some(Specifier::ExactMatch(text)) => HeaderCondition::Text(exact(text, false)),
        Some(Specifier::PrefixMatch(text)) => {
            HeaderCondition::Text(prefix(text, false, "prefix_match")?)
        }
        Some(Specifier::SuffixMatch(text)) => {
            HeaderCondition::Text(suffix(text, false, "suffix_match")?)
        }
        Some(Specifier::ContainsMatch(text)) => {
            HeaderCondition::Text(contains(text, false, "contains_match")?)
        }
        Some(Specifier::SafeRegexMatch(matcher)) => HeaderCondition::Text(StringMatcher::Regex(
            safe_regex(matcher).within("safe_regex_match")?,
        )),
    })
}

/// `QueryParameterMatcher`.
pub fn query(proto: &route::QueryParameterMatcher) -> Result<QueryMatcher> {
    use route::query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
    let name = named(&proto.name, "name")?.as_bytes().into();
    let (condition, absent) = match &proto.query_parameter_match_specifier {
        None => (None, false),
        Some(Specifier::PresentMatch(present)) => (None, !present),
        Some(Specifier::StringMatch(matcher)) => {
            (Some(string(matcher).within("string_match")?), false)
        }
    };
    Ok(QueryMatcher {
        name,
        condition,
        absent,
    })
}

/// `CookieMatcher`.
pub fn cookie(proto: &route::CookieMatcher) -> Result<CookieMatcher> {
    let condition = required(&proto.string_match, "string_match")
        .and_then(|matcher| string(matcher).within("string_match"));
    let (name, condition) = (cookie_name(&proto.name), condition).together()?;
    Ok(CookieMatcher {
        name,
        condition,
        invert: proto.invert_match,
    })
}

fn cookie_name(name: &str) -> Result<Box<[u8]>> {
    refuse(name.len() > 1024, "name", "is longer than 1024 bytes")?;
    Ok(named(name, "name")?.as_bytes().into())
}
