//! The matching API (`xds.type.matcher.v3.Matcher`): trees that lead from what is known about a
//! connection or a request to an action. Built once with the configuration; finding an action
//! neither allocates nor locks.

pub mod cel;
mod connection;
pub mod input;
mod record;
mod request;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use ipnet::IpNet;

pub use self::connection::{ConnectionInputs, server_name};
use self::input::{Input, Inputs, Known};
pub use self::record::RecordInputs;
pub use self::request::RequestInputs;
use crate::config::matcher::StringMatcher;

/// `Matcher`.
#[derive(Debug)]
pub struct Tree<Action> {
    /// `matcher_type`
    pub kind: Kind<Action>,
    /// `on_no_match`
    pub otherwise: Option<Box<OnMatch<Action>>>,
}

/// `matcher_type`
#[derive(Debug)]
pub enum Kind<Action> {
    /// `matcher_list`: the first whose predicate holds and that leads to an action.
    List(Vec<(Predicate, OnMatch<Action>)>),
    /// `matcher_tree.exact_match_map`
    Exact(Input, HashMap<Box<[u8]>, OnMatch<Action>>),
    /// `matcher_tree.prefix_match_map`, the longest first.
    Prefix(Input, Vec<(Box<[u8]>, OnMatch<Action>)>),
}

/// `OnMatch`.
#[derive(Debug)]
pub enum OnMatch<Action> {
    /// `action`
    Action(Action),
    /// `matcher`
    Tree(Box<Tree<Action>>),
}

/// `Predicate`.
#[derive(Debug)]
pub enum Predicate {
    /// `single_predicate`. An input that is not there is not what is wanted.
    Single(Input, Condition),
    /// `and_matcher`
    All(Vec<Predicate>),
    /// `or_matcher`
    Any(Vec<Predicate>),
    /// `not_matcher`
    Not(Box<Predicate>),
}

/// What a value must be.
#[derive(Debug)]
pub enum Condition {
    /// `value_match`
    Text(StringMatcher),
    /// `custom_match` with `envoy.extensions.matching.input_matchers.ip.v3.Ip`.
    Address(Vec<IpNet>),
}

impl<Action> Tree<Action> {
    /// The action for what is known, if any. Where a nested tree leads nowhere, the search goes on
    /// as if what led into it had not matched.
    pub fn find(&self, inputs: &impl Inputs) -> Option<&Action> {
        let found = match &self.kind {
            Kind::List(matchers) => matchers
                .iter()
                .filter(|(predicate, _)| predicate.holds(inputs))
                .find_map(|(_, on_match)| on_match.find(inputs)),
            Kind::Exact(input, map) => inputs.with(input, |value| {
                value.and_then(|value| map.get(value.text())?.find(inputs))
            }),
            Kind::Prefix(input, prefixes) => inputs.with(input, |value| {
                let value = value?;
                let text = value.text();
                prefixes
                    .iter()
                    .filter(|(prefix, _)| text.starts_with(prefix))
                    .find_map(|(_, on_match)| on_match.find(inputs))
            }),
        };
        found.or_else(|| self.otherwise.as_ref()?.find(inputs))
    }
}

impl<Action> OnMatch<Action> {
    fn find(&self, inputs: &impl Inputs) -> Option<&Action> {
        match self {
            OnMatch::Action(action) => Some(action),
            OnMatch::Tree(tree) => tree.find(inputs),
        }
    }
}

impl Predicate {
    fn holds(&self, inputs: &impl Inputs) -> bool {
        match self {
            Predicate::Single(input, condition) => inputs.with(input, |value| {
                value.is_some_and(|value| condition.holds(&value))
            }),
            Predicate::All(all) => all.iter().all(|predicate| predicate.holds(inputs)),
            Predicate::Any(any) => any.iter().any(|predicate| predicate.holds(inputs)),
            Predicate::Not(predicate) => !predicate.holds(inputs),
        }
    }
}

impl Condition {
    fn holds(&self, value: &Known<'_>) -> bool {
        match self {
            Condition::Text(matcher) => matcher.matches(value.text()),
            Condition::Address(ranges) => value
                .address()
                .is_some_and(|address| ranges.iter().any(|range| range.contains(&address))),
        }
    }
}
