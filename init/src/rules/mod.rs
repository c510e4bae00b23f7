//! From the configuration to the rules that are wanted: pure, and the one place that decides.
//!
//! The order of the rules is that of the mesh that users know, so what they know of it holds here.

mod filter;
mod nat;
mod raw;
#[cfg(test)]
mod tests;

use crate::config::{Config, Family, Ipv6};

pub(crate) use nat::{OUTPUT, TO_INBOUND, TO_OUTBOUND};

/// What the names of all of our chains start with; by it they are found again.
pub(crate) const PREFIX: &str = "OUTRIDER_";

/// The tables that we use, in the order in which they are applied: `raw` before `nat`, so that no
/// query is redirected without its zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableName {
    Raw,
    Nat,
    Filter,
}

impl TableName {
    pub(crate) const ALL: [Self; 3] = [Self::Raw, Self::Nat, Self::Filter];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// One rule of a chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// What follows `-A CHAIN`, as `iptables-save` writes it.
    pub(crate) spec: String,
    /// Why it is there.
    pub(crate) comment: String,
}

/// The one rule outside of our chains that leads into one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Jump {
    /// The kernel's own chain.
    pub(crate) from: &'static str,
    /// What has to match, with a space behind it, or nothing.
    pub(crate) matches: &'static str,
}

/// A chain of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    /// What it is for.
    pub(crate) comment: &'static str,
    /// None: only our own chains lead here.
    pub(crate) jump: Option<Jump>,
    pub(crate) rules: Vec<Rule>,
}

/// What we want of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) chains: Vec<Chain>,
}

/// What is wanted of both families. Tables are in the order of [`TableName`]; one that is not here
/// is wanted without any chain of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RuleSet {
    v4: Vec<Table>,
    v6: Vec<Table>,
}

impl RuleSet {
    pub(crate) fn family(&self, family: Family) -> &[Table] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

/// The rules that the configuration asks for.
pub(crate) fn rules(config: &Config) -> RuleSet {
    RuleSet {
        v4: capture(config, Family::V4),
        v6: match config.ipv6 {
            Ipv6::Capture => capture(config, Family::V6),
            Ipv6::Reject => vec![filter::refuse(config)],
            Ipv6::Absent => Vec::new(),
        },
    }
}

fn capture(config: &Config, family: Family) -> Vec<Table> {
    [
        raw::zones(config),
        Some(nat::redirects(config, family)),
        filter::drop_invalid(config),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Collects the rules of one chain.
#[derive(Default)]
struct Rules(Vec<Rule>);

impl Rules {
    fn add(&mut self, spec: impl Into<String>, comment: impl Into<String>) {
        self.0.push(Rule {
            spec: spec.into(),
            comment: comment.into(),
        });
    }
}

/// What makes a rule match the packets of the proxy's sockets: the word for it, and the option.
fn owners(config: &Config) -> [(&'static str, String); 2] {
    [
        ("uid", format!("--uid-owner {}", config.proxy_uid)),
        ("gid", format!("--gid-owner {}", config.proxy_gid)),
    ]
}
