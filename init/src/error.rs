//! What can go wrong, in the words of whoever has to put it right.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::backend::Backend;
use crate::config::Family;
use crate::diagnose::Holder;
use crate::saved::SavedError;

/// Why a verb could not do its work.
#[derive(Debug, Error)]
pub(crate) enum Error {
    /// Options that contradict each other.
    #[error("{0}")]
    Options(String),
    /// The process lacks capabilities.
    #[error(
        "{} missing: changing the rules of a pod needs them. Give the container \
         securityContext.capabilities.add [NET_ADMIN, NET_RAW] (or run it as root)",
        .0.join(" and ")
    )]
    Capabilities(Vec<&'static str>),
    /// The process has the capabilities, but not over this network namespace.
    #[error(
        "{program}: permission denied, although this process has CAP_NET_ADMIN and CAP_NET_RAW: \
         its user namespace does not own this network namespace, or a security profile forbids it"
    )]
    Permission { program: String },
    /// A program of iptables is not installed.
    #[error(
        "{} not found in PATH: install iptables (Debian and Ubuntu: apt-get install iptables; \
         Alpine: apk add iptables iptables-legacy; Fedora: dnf install iptables-nft){hint}",
        .programs.join(" or ")
    )]
    Binary {
        programs: Vec<String>,
        hint: &'static str,
    },
    /// A program could not be run.
    #[error("cannot run {program}")]
    Run {
        program: String,
        #[source]
        source: io::Error,
    },
    /// Another program holds the lock of iptables.
    #[error(
        "the lock of iptables ({path}) was held for all of {} seconds by {holder}. Let it finish, \
         or give more time with --lock-timeout", .waited.as_secs()
    )]
    LockHeld {
        path: String,
        holder: Holder,
        waited: Duration,
    },
    /// The lock file cannot be opened, for example on a read-only root.
    #[error(
        "the lock file of iptables ({path}) cannot be opened: {said}. Mount a writable volume at \
         its folder, or name another file in XTABLES_LOCKFILE"
    )]
    LockFile { path: String, said: String },
    /// Another run of this program is at work on this pod.
    #[error(
        "another outrider-init ({holder}) has been at work in this pod for all of {} seconds. Let \
         it finish, or give more time with --lock-timeout", .waited.as_secs()
    )]
    Busy { holder: Holder, waited: Duration },
    /// The kernel lacks modules.
    #[error(
        "{program}: the kernel of this node lacks {}: run `modprobe {}` on the node, or load it at \
         boot (/etc/modules-load.d){hint}\n{said}",
        .modules.join(" and "), .modules.join(" && modprobe ")
    )]
    Modules {
        program: String,
        modules: Vec<&'static str>,
        hint: &'static str,
        said: String,
    },
    /// The restore was refused for another reason.
    #[error("{program} refused the {family} rules{place}\n{said}")]
    Restore {
        program: String,
        family: Family,
        /// The line at fault, if the program named one.
        place: String,
        said: String,
    },
    /// The present rules could not be listed.
    #[error("{program} cannot list the present rules (exit code {code})\n{said}")]
    Save {
        program: String,
        code: String,
        said: String,
    },
    /// They could be listed but not read.
    #[error("the rules that {program} lists cannot be read")]
    Saved {
        program: String,
        #[source]
        source: SavedError,
    },
    /// Neither backend works.
    #[error("neither backend of iptables works here.\nnft: {nft}\nlegacy: {legacy}")]
    NoBackend { nft: Box<Error>, legacy: Box<Error> },
    /// Rules of ours are in the other backend and cannot be taken away.
    #[error(
        "{family} rules of an earlier run are in the {backend} backend and cannot be removed, so \
         traffic could be redirected twice. Remove them with `outrider-init clean`, or keep using \
         that backend with --backend {backend}"
    )]
    OtherBackend {
        backend: Backend,
        family: Family,
        #[source]
        source: Box<Error>,
    },
    /// What was installed is not there afterwards.
    #[error(
        "the {family} rules of the {backend} backend are not what was installed: another program \
         changes the chains whose names start with OUTRIDER_"
    )]
    NotInForce { backend: Backend, family: Family },
    /// IPv6 was asked for and is not there.
    #[error("--ipv6 on, but {0}. Enable IPv6, or use --ipv6 auto")]
    NoIpv6(String),
    /// A file of the kernel's could not be read.
    #[error("cannot read {path}")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    /// The kernel refused a change of interfaces, addresses or tables.
    #[error("the kernel refused to {action}{hint}")]
    Netlink {
        action: String,
        hint: &'static str,
        #[source]
        source: io::Error,
    },
    /// `check` could not be carried out.
    #[error("the self-test cannot {action}")]
    Check {
        action: String,
        #[source]
        source: io::Error,
    },
    /// `check` would be let through as the proxy is.
    #[error(
        "the self-test runs as the {0} of the proxy, whose connections are let through: run it as \
         root"
    )]
    CheckAsProxy(&'static str),
    /// `check` found a hole.
    #[error("not all traffic is captured: {0}")]
    NotCaptured(String),
    /// Standard output is closed.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl Error {
    /// Whether it says that a backend does not exist here, rather than that it fails.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::Binary { .. } | Self::Modules { .. })
    }

    /// The exit code, as `--help` has it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Options(_) => 2,
            Self::NotCaptured(_) => 3,
            Self::LockHeld { .. } | Self::Busy { .. } => 4,
            Self::OtherBackend { source, .. } => source.exit_code(),
            _ => 1,
        }
    }
}
