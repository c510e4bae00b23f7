//! Which messages are wanted.

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};

use super::components::COMPONENTS;

/// Envoy's names of the levels, and ours. `critical` is above `error`, which has no level here.
const LEVELS: &[(&str, LevelFilter)] = &[
    ("trace", LevelFilter::TRACE),
    ("debug", LevelFilter::DEBUG),
    ("info", LevelFilter::INFO),
    ("warning", LevelFilter::WARN),
    ("error", LevelFilter::ERROR),
    ("critical", LevelFilter::ERROR),
    ("off", LevelFilter::OFF),
];

/// Why levels cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// There is no such level.
    #[error("unknown logger level")]
    Level(String),
    /// There is no such component.
    #[error("unknown logger name")]
    Component(String),
    /// It is not of the form `name:level`.
    #[error("`{0}` is not of the form name:level")]
    Pair(String),
    /// `-l` is neither a level nor one by part.
    #[error("`{0}` is neither a level nor a list of parts and levels")]
    Filter(String),
}

/// What of the program's own log is written.
#[derive(Clone, Debug)]
pub struct Levels {
    /// The level of what no component is named for, and levels of our own parts.
    base: Targets,
    /// The level of each of [`COMPONENTS`].
    of: Vec<&'static str>,
}

impl Levels {
    /// From `--log-level`.
    ///
    /// # Errors
    /// It is none.
    pub fn new(text: &str) -> Result<Self, LevelError> {
        let (level, base) = match level(text) {
            Ok((name, level)) => (name, Targets::new().with_default(level)),
            Err(_) => {
                let targets: Targets = text
                    .parse()
                    .map_err(|_| LevelError::Filter(text.to_owned()))?;
                let level = targets.default_level().unwrap_or(LevelFilter::OFF);
                (name_of(level), targets)
            }
        };
        Ok(Levels {
            base,
            of: vec![level; COMPONENTS.len()],
        })
    }

    /// Sets the level of all.
    ///
    /// # Errors
    /// There is no such level.
    pub fn set_all(&mut self, name: &str) -> Result<(), LevelError> {
        level(name)?;
        *self = Levels::new(name)?;
        Ok(())
    }

    /// Sets the level of a component.
    ///
    /// # Errors
    /// There is no such component, or level.
    pub fn set(&mut self, component: &str, to: &str) -> Result<(), LevelError> {
        let (to, _) = level(to)?;
        let mut names = COMPONENTS.iter();
        let at = names.position(|(name, _)| *name == component);
        let at = at.ok_or_else(|| LevelError::Component(component.to_owned()))?;
        self.of[at] = to;
        Ok(())
    }

    /// Sets those of a list such as `upstream:debug,config:trace`, or none of them.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn set_list(&mut self, list: &str) -> Result<(), LevelError> {
        let mut changed = self.clone();
        for pair in list.split(',') {
            let (component, level) = pair
                .split_once(':')
                .ok_or_else(|| LevelError::Pair(pair.to_owned()))?;
            changed.set(component, level)?;
        }
        *self = changed;
        Ok(())
    }

    /// Component and level, in Envoy's order.
    pub fn list(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let names = COMPONENTS.iter().map(|(name, _)| *name);
        names.zip(self.of.iter().copied())
    }

    /// As the log takes it.
    pub fn filter(&self) -> Targets {
        let default = self.base.default_level().unwrap_or(LevelFilter::OFF);
        let mut filter = self.base.clone();
        for ((_, modules), name) in COMPONENTS.iter().zip(&self.of) {
            let level = level(name).map_or(default, |(_, level)| level);
            if level != default {
                for module in *modules {
                    filter = filter.with_target(*module, level);
                }
            }
        }
        // It tells of every event in the folders of watched files: of the log itself, if it is there.
        filter.with_target("notify", Level::WARN)
    }
}

fn level(name: &str) -> Result<(&'static str, LevelFilter), LevelError> {
    let name = if name == "warn" { "warning" } else { name };
    let known = LEVELS.iter().find(|(known, _)| *known == name);
    known
        .copied()
        .ok_or_else(|| LevelError::Level(name.to_owned()))
}

fn name_of(level: LevelFilter) -> &'static str {
    let known = LEVELS.iter().find(|(_, known)| *known == level);
    known.map_or("off", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_have_levels_of_their_own() {
        let mut levels = Levels::new("info").unwrap();
        levels.set_list("upstream:debug,pool:off").unwrap();
        let wants =
            |levels: &Levels, target: &str, level| levels.filter().would_enable(target, &level);
        for (target, level, expected) in [
            ("outrider_sidecar::upstream::lb", Level::DEBUG, true),
            ("outrider_sidecar::upstream::pool", Level::ERROR, false),
            ("outrider_sidecar::http", Level::DEBUG, false),
            ("outrider_sidecar::http", Level::INFO, true),
        ] {
            assert_eq!(wants(&levels, target, level), expected, "{target}");
        }
        for (list, error) in [
            ("upstream:loud", LevelError::Level("loud".into())),
            ("nothing:info", LevelError::Component("nothing".into())),
            ("upstream", LevelError::Pair("upstream".into())),
        ] {
            assert_eq!(levels.set_list(list), Err(error));
        }
        levels.set_all("warning").unwrap();
        assert!(levels.list().all(|(_, level)| level == "warning"));
        let ours = Levels::new("warn,outrider_sidecar::tls=debug").unwrap();
        assert!(wants(&ours, "outrider_sidecar::tls", Level::DEBUG));
        assert!(!wants(&ours, "outrider_sidecar::http", Level::INFO));
        assert!(Levels::new("loud=?").is_err());
    }
}
