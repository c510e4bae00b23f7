//! `MetadataMatcher` and `ValueMatcher`.

use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::double_matcher::MatchPattern as Double;
use envoy_types::pb::envoy::r#type::matcher::v3::list_matcher::MatchPattern as List;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::PathSegment;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::path_segment::Segment;
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;

use super::fields::{Together as _, Within as _, each, named, one_of, refuse, required};
use super::matcher;
use crate::config::error::Result;
use crate::config::metadata_matcher::{MetadataMatcher, ValueMatcher};

/// `MetadataMatcher`.
pub fn build(proto: &proto::MetadataMatcher) -> Result<MetadataMatcher> {
    let (namespace, path, value, _) = (
        named(&proto.filter, "filter"),
        each("path", &proto.path, |segment| {
            let Segment::Key(key) = one_of::<PathSegment, _>(&segment.segment, "key")?;
            Ok(named(key, "key")?.into())
        }),
        required(&proto.value, "value").and_then(|proto| value(proto).within("value")),
        refuse(proto.path.is_empty(), "path", "must not be empty"),
    )
        .together()?;
    Ok(MetadataMatcher {
        namespace: namespace.into(),
        path: path.into(),
        value,
        invert: proto.invert,
    })
}

fn value(proto: &proto::ValueMatcher) -> Result<ValueMatcher> {
    Ok(
        match one_of::<proto::ValueMatcher, _>(&proto.match_pattern, "null_match")? {
            MatchPattern::NullMatch(_) => ValueMatcher::Null,
            MatchPattern::BoolMatch(flag) => ValueMatcher::Flag(*flag),
            MatchPattern::PresentMatch(present) => ValueMatcher::Present(*present),
            MatchPattern::StringMatch(text) => {
                ValueMatcher::Text(matcher::string(text).within("string_match")?)
            }
            MatchPattern::DoubleMatch(number) => {
                let pattern = one_of::<proto::DoubleMatcher, _>(&number.match_pattern, "range");
                match pattern.within("double_match")? {
                    Double::Range(range) => ValueMatcher::Range(range.start, range.end),
                    Double::Exact(number) => ValueMatcher::Number(*number),
                }
            }
            MatchPattern::ListMatch(list) => {
                let pattern = one_of::<proto::ListMatcher, _>(&list.match_pattern, "one_of");
                let List::OneOf(one) = pattern.within("list_match")?;
                ValueMatcher::OneOf(Box::new(value(one).within("list_match.one_of")?))
            }
            MatchPattern::OrMatch(any) => {
                refuse(
                    any.value_matchers.len() < 2,
                    "or_match.value_matchers",
                    "must have at least two",
                )?;
                let all = each("value_matchers", &any.value_matchers, value);
                ValueMatcher::Any(all.within("or_match")?)
            }
        },
    )
}
