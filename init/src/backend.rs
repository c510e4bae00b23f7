//! The two kinds of iptables: which one this node uses, and running their programs.

use std::fmt;
use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::config::Family;
use crate::diagnose;
use crate::error::Error;
use crate::options::BackendChoice;
use crate::plan::has_ours;
use crate::saved::Saved;

/// Where rules are kept: in the kernel's nftables, or in its older tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Nft,
    Legacy,
}

impl Backend {
    pub(crate) const BOTH: [Self; 2] = [Self::Nft, Self::Legacy];

    pub(crate) fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }

    /// What the program prints behind its version if it is of this kind.
    fn mark(self) -> &'static str {
        match self {
            Self::Nft => "(nf_tables)",
            Self::Legacy => "(legacy)",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        })
    }
}

/// One family of one backend: the pair of programs that lists and restores its rules.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    pub(crate) backend: Backend,
    pub(crate) family: Family,
    save: String,
    restore: String,
}

impl Tables {
    /// Finds the programs: those named after the backend, else those of the plain name if they are
    /// of this kind.
    ///
    /// # Errors
    /// When there are none.
    pub(crate) fn find(backend: Backend, family: Family) -> Result<Self, Error> {
        let start = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        let named = format!("{start}-{backend}");
        for name in [named.as_str(), start] {
            let tables = Self {
                backend,
                family,
                save: format!("{name}-save"),
                restore: format!("{name}-restore"),
            };
            match run(Command::new(&tables.restore).arg("--version"), "") {
                Ok(output) => {
                    let version = String::from_utf8_lossy(&output.stdout).into_owned();
                    if name == named || version.contains(backend.mark()) {
                        return Ok(tables);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => {
                    let program = tables.restore;
                    return Err(Error::Run { program, source });
                }
            }
        }
        Err(Error::Binary {
            programs: vec![format!("{named}-restore"), format!("{start}-restore")],
            hint: match family {
                Family::V4 => "",
                Family::V6 => ". It is needed for IPv6 even to refuse it",
            },
        })
    }

    /// Lists what is there.
    ///
    /// # Errors
    /// When the program cannot be run or fails, or what it lists cannot be read.
    pub(crate) fn saved(&self) -> Result<Saved, Error> {
        self.list(&[])
    }

    /// Lists what is there with the number of packets that each rule has matched.
    ///
    /// # Errors
    /// As [`saved`](Self::saved).
    pub(crate) fn counted(&self) -> Result<Saved, Error> {
        self.list(&["-c"])
    }

    fn list(&self, arguments: &[&str]) -> Result<Saved, Error> {
        let output =
            run(Command::new(&self.save).args(arguments), "").map_err(|source| Error::Run {
                program: self.save.clone(),
                source,
            })?;
        if !output.status.success() {
            return Err(diagnose::save_error(
                self.family,
                self.backend,
                &self.save,
                &output,
            ));
        }
        Saved::parse(&String::from_utf8_lossy(&output.stdout)).map_err(|source| Error::Saved {
            program: self.save.clone(),
            source,
        })
    }

    /// Applies a text, waiting for other programs that change rules for at most `wait`.
    ///
    /// # Errors
    /// When the program cannot be run or refuses the text; the error names the cause.
    pub(crate) fn restore(&self, text: &str, wait: Duration) -> Result<(), Error> {
        let output = self.run_restore(text, wait)?;
        if output.status.success() {
            return Ok(());
        }
        let is_accepted = |text: &str| {
            let output = self.run_restore(text, wait)?;
            Ok(output.status.success())
        };
        Err(diagnose::restore_error(
            self.family,
            self.backend,
            &self.restore,
            text,
            wait,
            &output,
            &is_accepted,
        ))
    }

    fn run_restore(&self, text: &str, wait: Duration) -> Result<Output, Error> {
        let mut command = Command::new(&self.restore);
        command.args(["--noflush", "-w", &wait.as_secs().to_string()]);
        run(&mut command, text).map_err(|source| Error::Run {
            program: self.restore.clone(),
            source,
        })
    }
}

fn run(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // It has given up before the end; its exit code and message say why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
    }
    child.wait_with_output()
}

/// The backend to use.
///
/// # Errors
/// When neither works, with what is the matter with each.
pub(crate) fn choose(choice: BackendChoice) -> Result<Backend, Error> {
    let survey = |backend| Survey::of(backend);
    match choice {
        BackendChoice::Nft => survey(Backend::Nft).map(|_| Backend::Nft),
        BackendChoice::Legacy => survey(Backend::Legacy).map(|_| Backend::Legacy),
        BackendChoice::Auto => match (survey(Backend::Nft), survey(Backend::Legacy)) {
            (Err(nft), Err(legacy)) => Err(Error::NoBackend {
                nft: Box::new(nft),
                legacy: Box::new(legacy),
            }),
            (Ok(_), Err(error)) if error.is_absence() => Ok(Backend::Nft),
            (Err(error), Ok(_)) if error.is_absence() => Ok(Backend::Legacy),
            // It is there and does not work: whoever knows that the other will do can say so.
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => Err(error),
            (Ok(nft), Ok(legacy)) => Ok(prefer(nft, legacy, is_node_legacy())),
        },
    }
}

/// What one backend holds in this namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Survey {
    /// Rules and chains of others.
    foreign: usize,
    /// Rules and chains of ours.
    ours: usize,
}

impl Survey {
    fn of(backend: Backend) -> Result<Self, Error> {
        let saved = Tables::find(backend, Family::V4)?.saved()?;
        let has_any = saved.tables.iter().any(has_ours);
        let foreign: usize = saved
            .tables
            .iter()
            .map(|table| {
                let rules = table.rules.iter().filter(|rule| {
                    let ours = |name: &str| name.starts_with(crate::rules::PREFIX);
                    !ours(&rule.chain) && !rule.target.as_deref().is_some_and(ours)
                });
                rules.count()
            })
            .sum();
        Ok(Self {
            foreign,
            ours: if has_any { saved.size() } else { 0 },
        })
    }
}

/// The one with more rules of others (a container runtime's, a network plugin's), for that is what
/// the node uses. Where there are none, what the node's kernel is set up for; where that does not
/// say either, ours stay where they are.
fn prefer(nft: Survey, legacy: Survey, is_node_legacy: bool) -> Backend {
    if nft.foreign != legacy.foreign {
        return if nft.foreign > legacy.foreign {
            Backend::Nft
        } else {
            Backend::Legacy
        };
    }
    if is_node_legacy || (legacy.ours > 0 && nft.ours == 0) {
        Backend::Legacy
    } else {
        Backend::Nft
    }
}

/// Whether the node has the older tables loaded and not nftables. Modules are the kernel's, so a
/// pod sees those of its node; a kernel that has them built in does not tell.
fn is_node_legacy() -> bool {
    let modules = std::fs::read_to_string("/proc/modules").unwrap_or_default();
    let is_loaded = |name: &str| {
        modules
            .lines()
            .any(|line| line.split(' ').next() == Some(name))
    };
    is_loaded("iptable_nat") && !is_loaded("nf_tables")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_with_rules_wins_then_the_nodes_then_ours() {
        let survey = |foreign, ours| Survey { foreign, ours };
        for (nft, legacy, is_node_legacy, expected) in [
            (survey(0, 0), survey(0, 0), false, Backend::Nft),
            (survey(0, 0), survey(0, 0), true, Backend::Legacy),
            (survey(1, 0), survey(5, 0), false, Backend::Legacy),
            (survey(5, 0), survey(1, 0), true, Backend::Nft),
            (survey(0, 0), survey(0, 9), false, Backend::Legacy),
            (survey(0, 9), survey(0, 9), false, Backend::Nft),
            (survey(2, 0), survey(0, 9), false, Backend::Nft),
        ] {
            assert_eq!(
                prefer(nft, legacy, is_node_legacy),
                expected,
                "{nft:?} {legacy:?}"
            );
        }
    }
}
