//! `check`: proof by real connections that what is to be captured is.
//!
//! A connection out goes to an address beyond a pair of interfaces that exists only for the test
//! and has nobody at its other end, so it can only succeed if it is redirected. A connection in
//! cannot be made by an ordinary socket of the same namespace (the kernel would keep it on
//! loopback, where PREROUTING's redirects do not apply), so its packets are written to the far end
//! of the pair by hand.

mod frame;
mod inbound;
mod outbound;
mod receiver;
mod rig;
mod target;

use std::net::SocketAddr;
use std::time::Duration;

use crate::backend::{Tables, choose};
use crate::config::{Config, DNS_PORT, Family, Ipv6};
use crate::error::Error;
use crate::options::RunOptions;
use receiver::Receivers;
use rig::Rig;

/// How long a packet may take to come round. Nothing leaves the machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// One line for each thing that was tried.
    pub(crate) lines: Vec<String>,
    holes: Vec<String>,
}

impl Outcome {
    /// # Errors
    /// When something is not captured that should be.
    pub(crate) fn result(self) -> Result<(), Error> {
        if self.holes.is_empty() {
            Ok(())
        } else {
            Err(Error::NotCaptured(self.holes.join(", ")))
        }
    }

    fn add(&mut self, what: &str, family: Family, verdict: Verdict) {
        let (word, why) = match verdict {
            Verdict::Closed(why) => ("ok", why),
            Verdict::Untested(why) => ("not tested", why),
            Verdict::Open(why) => {
                self.holes.push(format!("{what} {family}"));
                ("NOT CAPTURED", why)
            }
        };
        self.lines.push(format!("{what} {family}: {word}: {why}"));
    }
}

/// What one try says.
enum Verdict {
    /// Captured, or refused if that is what is wanted.
    Closed(String),
    /// Neither, though it should be.
    Open(String),
    /// The configuration, or the pod, leaves nothing to try.
    Untested(String),
}

fn failed(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let action = action.into();
    move |source| Error::Check { action, source }
}

/// Tries all directions and families.
///
/// # Errors
/// When something cannot be tried. What was tried and found open is in the outcome.
pub(crate) fn check(config: &Config, run: &RunOptions) -> Result<Outcome, Error> {
    if nix::unistd::geteuid().as_raw() == config.proxy_uid {
        return Err(Error::CheckAsProxy("user"));
    }
    if nix::unistd::getegid().as_raw() == config.proxy_gid {
        return Err(Error::CheckAsProxy("group"));
    }
    let backend = choose(run.backend)?;
    let rig = Rig::build(config)?;
    let mut outcome = Outcome::default();
    for family in Family::BOTH {
        let is_refused = family == Family::V6 && config.ipv6 == Ipv6::Reject;
        if family == Family::V6 && config.ipv6 == Ipv6::Absent {
            let why = || Verdict::Untested("the kernel has no IPv6".to_owned());
            outcome.add("outbound", family, why());
            outcome.add("inbound", family, why());
            continue;
        }
        match rig.add_family(family) {
            Ok(()) => {}
            // Then no packet can leave or arrive by any new interface either.
            Err(_) if is_refused => {
                let why = || Verdict::Untested("IPv6 is disabled on new interfaces".to_owned());
                outcome.add("outbound", family, why());
                outcome.add("inbound", family, why());
                continue;
            }
            Err(error) => return Err(error),
        }
        if is_refused {
            outcome.add("outbound", family, outbound::refused(family)?);
            outcome.add("inbound", family, inbound::refused(family)?);
            continue;
        }
        let receivers = Receivers::new(Tables::find(backend, family)?);
        try_outbound(&mut outcome, config, family, &rig, &receivers)?;
        outcome.add(
            "inbound",
            family,
            match target::inbound(config) {
                Some(port) => inbound::captured(family, port, config.inbound_port, &receivers)?,
                None => Verdict::Untested("the options exclude every port".to_owned()),
            },
        );
    }
    Ok(outcome)
}

fn try_outbound(
    outcome: &mut Outcome,
    config: &Config,
    family: Family,
    rig: &Rig,
    receivers: &Receivers,
) -> Result<(), Error> {
    let verdict = match target::outbound(config, family) {
        Some(target) => {
            rig.route_to(target.ip())?;
            outbound::captured(target, config.outbound_port, receivers)?
        }
        None => Verdict::Untested("the options exclude every destination".to_owned()),
    };
    outcome.add("outbound", family, verdict);
    if let Some(port) = config.dns_port {
        let server = SocketAddr::new(rig::far(family), DNS_PORT);
        outcome.add(
            "DNS over TCP",
            family,
            outbound::captured(server, port, receivers)?,
        );
        outcome.add(
            "DNS over UDP",
            family,
            outbound::dns_captured(server, port, receivers)?,
        );
    }
    Ok(())
}

/// Removes the interfaces that a test left behind when it was killed.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn remove_leftovers() -> Result<(), Error> {
    rig::remove()
}
