//! Why a resource is refused.

use std::fmt;

/// One field that cannot be accepted, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For example `filter_chains[2].filters[0].typed_config.route_config.virtual_hosts[0].domains`.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return out.write_str(&self.reason);
        }
        write!(out, "{}: {}", self.path, self.reason)
    }
}

/// What of a resource cannot be accepted: all fields that were found wrong, in the order of the
/// resource, so that its author mends them in one go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// An error at a field.
    pub fn new(path: impl fmt::Display, reason: impl fmt::Display) -> Self {
        let problem = Problem {
            path: path.to_string(),
            reason: reason.to_string(),
        };
        ConfigError {
            problems: vec![problem],
        }
    }

    /// All that is wrong.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The problems of both.
    pub fn and(mut self, other: Self) -> Self {
        self.problems.extend(other.problems);
        self
    }

    /// Puts the parent's path before that of each problem.
    pub fn within(self, parent: impl fmt::Display) -> Self {
        self.at(|path| {
            let join = match path.chars().next() {
                None | Some('[') => "",
                Some(_) => ".",
            };
            format!("{parent}{join}{path}")
        })
    }

    /// Gives each problem another path.
    pub fn at(mut self, path: impl Fn(&str) -> String) -> Self {
        for problem in &mut self.problems {
            problem.path = path(&problem.path);
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(out, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// What a build answers.
pub type Result<T, E = ConfigError> = std::result::Result<T, E>;
