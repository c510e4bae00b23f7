//! `FilterStateMatcher`: what a value of the filter state must be.

use ipnet::IpNet;

use super::matcher::StringMatcher;
use crate::network::filter_state::Value;

/// `FilterStateMatcher`.
#[derive(Clone, Debug)]
pub struct FilterStateMatcher {
    /// `key`
    pub key: Box<str>,
    /// What it must be.
    pub condition: FilterStateCondition,
}

/// `FilterStateMatcher.matcher`.
#[derive(Clone, Debug)]
pub enum FilterStateCondition {
    /// `string_match`: of the value as text.
    Text(StringMatcher),
    /// `address_match`: of a value that is an address.
    Address {
        /// `ranges`
        ranges: Vec<IpNet>,
        /// `invert_match`
        invert: bool,
    },
}

impl FilterStateMatcher {
    /// Whether the value of that key is as wanted.
    pub fn matches(&self, value: &Value) -> bool {
        match &self.condition {
            FilterStateCondition::Text(matcher) => value
                .plain()
                .is_some_and(|text| matcher.matches(text.as_bytes())),
            FilterStateCondition::Address { ranges, invert } => {
                let address = match value {
                    Value::Ip(ip) => *ip,
                    Value::Address(address) => address.ip(),
                    _ => return false,
                };
                ranges.iter().any(|range| range.contains(&address)) != *invert
            }
        }
    }
}
