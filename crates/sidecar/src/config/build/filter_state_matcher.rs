//! `FilterStateMatcher`.

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::r#type::matcher::v3 as proto;
use envoy_types::pb::envoy::r#type::matcher::v3::filter_state_matcher::Matcher;
use envoy_types::pb::google::protobuf::UInt32Value;
use envoy_types::pb::xds::core::v3 as xds;
use ipnet::IpNet;

use super::fields::{Together as _, Within as _, cidr, each, named, required};
use super::matcher;
use crate::config::error::Result;
use crate::config::filter_state_matcher::{FilterStateCondition, FilterStateMatcher};

/// `FilterStateMatcher`.
pub fn build(proto: &proto::FilterStateMatcher) -> Result<FilterStateMatcher> {
    let condition = required(&proto.matcher, "string_match").and_then(|matcher| match matcher {
        Matcher::StringMatch(text) => matcher::string(text)
            .map(FilterStateCondition::Text)
            .within("string_match"),
        Matcher::AddressMatch(addresses) => Ok(FilterStateCondition::Address {
            ranges: ranges(&addresses.ranges).within("address_match")?,
            invert: addresses.invert_match,
        }),
    });
    let (key, condition) = (named(&proto.key, "key"), condition).together()?;
    Ok(FilterStateMatcher {
        key: key.into(),
        condition,
    })
}

/// `AddressMatcher.ranges`.
pub fn ranges(proto: &[xds::CidrRange]) -> Result<Vec<IpNet>> {
    each("ranges", proto, |range| {
        // The same message by another name.
        cidr(&CidrRange {
            address_prefix: range.address_prefix.clone(),
            prefix_len: range.prefix_len.as_ref().map(|length| UInt32Value {
                value: length.value,
            }),
        })
    })
}
