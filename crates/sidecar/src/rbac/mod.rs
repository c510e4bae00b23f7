//! Role-based access control: whether policies let a connection or a request through. Filters of
//! connections and of requests ask the same engines; what a connection does not have, such as a
//! path, is never as wanted.

mod rule;

use std::sync::Arc;

pub use self::rule::{Rule, Whose};
use crate::matching::cel::Expression;
use crate::matching::{RecordInputs, Tree};
use crate::telemetry::access_log::record::Record;

/// `RBAC.Action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// ALLOW: what matches is let through, and nothing else.
    Allow,
    /// DENY: what matches is not let through.
    Deny,
    /// LOG: all is let through; metadata tell the access log what matched.
    Log,
}

/// What decides.
#[derive(Debug)]
pub enum Engine {
    /// `rules`
    Policies(Policies),
    /// `matcher`: what no action is found for is not let through.
    Tree {
        /// The tree.
        tree: Tree<NamedAction>,
        /// Whether one of its actions is LOG: all of them then tell the access log whether it was
        /// that one.
        logs: bool,
    },
}

/// `RBAC`.
#[derive(Debug)]
pub struct Policies {
    /// `action`
    pub action: Action,
    /// `policies`, sorted by name: the first that matches is the one that is told of.
    pub policies: Vec<(Arc<str>, Policy)>,
}

/// `Policy`: one of the permissions, and one of the principals.
#[derive(Debug)]
pub struct Policy {
    /// `permissions`
    pub permissions: Vec<Rule>,
    /// `principals`
    pub principals: Vec<Rule>,
    /// `condition` or `checked_condition`, which must hold, too.
    pub condition: Option<Expression>,
}

/// `envoy.config.rbac.v3.Action`, which a tree leads to.
#[derive(Debug)]
pub struct NamedAction {
    /// `name`
    pub name: Arc<str>,
    /// `action`
    pub action: Action,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is let through.
    pub allowed: bool,
    /// The policy that matched.
    pub policy: Option<Arc<str>>,
    /// Where LOG is among the actions whether it was taken: `envoy.common`'s `access_log_hint`.
    pub log_hint: Option<bool>,
}

impl Engine {
    /// Decides on what is known.
    pub fn judge(&self, record: &Record<'_>) -> Verdict {
        match self {
            Engine::Policies(policies) => {
                let mut all = policies.policies.iter();
                let matched = all.find(|(_, policy)| policy.matches(record));
                let allowed = match policies.action {
                    Action::Allow => matched.is_some(),
                    Action::Deny => matched.is_none(),
                    Action::Log => true,
                };
                Verdict {
                    allowed,
                    policy: matched.map(|(name, _)| name.clone()),
                    log_hint: (policies.action == Action::Log).then_some(matched.is_some()),
                }
            }
            Engine::Tree { tree, logs } => match tree.find(&RecordInputs(record)) {
                Some(found) => Verdict {
                    allowed: found.action != Action::Deny,
                    policy: Some(found.name.clone()),
                    log_hint: logs.then_some(found.action == Action::Log),
                },
                None => Verdict {
                    allowed: false,
                    policy: None,
                    log_hint: None,
                },
            },
        }
    }
}

impl Policy {
    fn matches(&self, record: &Record<'_>) -> bool {
        self.permissions.iter().any(|rule| rule.holds(record))
            && self.principals.iter().any(|rule| rule.holds(record))
            && (self.condition.as_ref()).is_none_or(|condition| condition.holds(record))
    }
}
