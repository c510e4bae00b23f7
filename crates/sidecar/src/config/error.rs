//! Why a resource is refused.

use std::fmt;

/// One field that cannot be accepted, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For example `filter_chains[2].filters[0].typed_config.route_config.virtual_hosts[0].domains`.
    pub path: String,
    /// What is wrong and what would be right.
    pub reason: String,
    /// Where one field of several is missing: all of them.
    missing: Vec<&'static str>,
}

impl Problem {
    /// Whether it may only follow from what was said of the field at `told`: that lies where this
    /// one is, or within it; or where a field is missing, it is that field, which was left out.
    fn may_follow_from(&self, told: &str) -> bool {
        let rest = match told.strip_prefix(self.path.as_str()) {
            Some(rest) if self.path.is_empty() || rest.is_empty() => rest,
            Some(rest) if rest.starts_with(['.', '[']) => rest,
            _ => return false,
        };
        let field = rest.trim_start_matches('.').split(['.', '[']).next();
        self.missing.is_empty()
            || rest.is_empty()
            || field.is_some_and(|f| self.missing.contains(&f))
    }
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
            missing: Vec::new(),
        };
        ConfigError {
            problems: vec![problem],
        }
    }

    /// The error at a message that has none of several fields, `missing`, one of which it needs.
    pub fn missing(reason: impl fmt::Display, missing: Vec<&'static str>) -> Self {
        let mut error = ConfigError::new("", reason);
        for problem in &mut error.problems {
            problem.missing.clone_from(&missing);
        }
        error
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

/// Problems of a whole file, as its parts are built one after the other.
#[derive(Debug, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// The value; or, where there is none, its default, and the problems are kept.
    pub fn take<T: Default>(&mut self, built: Result<T>) -> T {
        built.unwrap_or_else(|error| {
            self.add(error);
            T::default()
        })
    }

    /// Keeps the problems of an error. Of what lies at a field of which something was said before,
    /// or around it, nothing more is said: it may only follow from that.
    pub fn add(&mut self, error: ConfigError) {
        let before = self.0.len();
        for problem in error.problems {
            let is_told = |told: &Problem| problem.may_follow_from(&told.path);
            if !self.0[..before].iter().any(is_told) && !self.0[before..].contains(&problem) {
                self.0.push(problem);
            }
        }
    }

    /// What was built, if nothing was wrong with it.
    pub fn or<T>(self, built: T) -> Result<T> {
        self.into_error().map(|()| built)
    }

    /// All of them, in the order in which they were found.
    pub fn into_error(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(ConfigError { problems: self.0 })
    }
}

/// What a build answers.
pub type Result<T, E = ConfigError> = std::result::Result<T, E>;
