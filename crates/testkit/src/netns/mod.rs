//! Pods as network namespaces on real Linux.
//!
//! A [`Network`] is a bridge in a namespace of its own (the "switch"), so nothing of the host's
//! own networking changes. A [`Pod`] is a namespace with one veth end, `eth0`, the other end being
//! a port of the bridge. It has an IPv4 and an IPv6 address, a default route of each family
//! towards the switch (where everything that no pod owns ends), and its own `/etc/hosts` and
//! `/etc/resolv.conf`, kept where `ip netns exec` finds them too.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use outrider_testkit::netns::{self, Network};
//! if !netns::require_root() {
//!     return Ok(());
//! }
//! let network = Network::new("shop")?;
//! let cart = network.pod("cart")?;
//! network.add_host("cart.default.svc.cluster.local", cart.v4())?;
//! let listener = cart.run(|| std::net::TcpListener::bind("0.0.0.0:8080"))??;
//! let status = cart.command("ip").args(["addr", "show"]).status()?;
//! # drop((listener, status)); Ok(()) }
//! ```

pub(crate) mod enter;
mod pod;
mod sweep;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};

pub use pod::Pod;

/// Where iproute2 keeps the namespaces that have names.
const NAMED: &str = "/run/netns";
/// Where iproute2 looks for the files that a namespace has instead of those in `/etc`.
const FILES: &str = "/etc/netns";
/// Where programs are mounted that lie where their user cannot go. Not in [`FILES`], of which
/// `ip netns exec` mounts all over `/etc`.
const PROGRAMS: &str = "/run/outrider-testkit";
/// The uid and gid that the proxy runs as, whose traffic the redirects leave alone.
pub const PROXY_UID: u32 = 1337;

/// Whether the test can make namespaces. Without that privilege a test says that it is skipped,
/// and fails where `CI` is set, so that no suite passes because nothing of it ran.
///
/// # Panics
/// When `CI` is set and the process is not root.
#[must_use]
pub fn require_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    let reason = "network namespaces need root (run it again with sudo -E)";
    assert!(std::env::var_os("CI").is_none(), "{reason}");
    eprintln!("skipped: {reason}");
    false
}

/// A bridge in a namespace of its own, and the pods on it. Removed on drop, after its pods.
pub struct Network {
    shared: Arc<Shared>,
    next: AtomicU32,
}

/// What the pods keep alive: the bridge, and the names that all of them resolve.
struct Shared {
    /// The label that the caller gave, part of the names of the namespaces.
    label: String,
    switch: Namespace,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    /// Address and name, in the order in which they were added.
    entries: Vec<(IpAddr, String)>,
    /// The hosts files of the pods that exist.
    files: BTreeSet<PathBuf>,
}

impl Network {
    /// Makes a network of its own. `label` appears in the names of its namespaces
    /// (`outrider-PID-SEQUENCE-LABEL`), for the reader of `ip netns`.
    ///
    /// # Errors
    /// When the process is not root, when `ip` is missing, or when the kernel refuses.
    pub fn new(label: &str) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root (run it again with sudo -E)"
        );
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep::sweep);

        let switch = Namespace::new(&format!("{label}-switch"))?;
        switch.ip(&format!(
            "link set lo up\n\
             link add br0 type bridge stp_state 0 mcast_snooping 0\n\
             address add {}/16 dev br0\n\
             address add {}/64 dev br0 nodad\n\
             link set br0 up\n",
            v4(1),
            v6(1)
        ))?;
        let shared = Shared {
            label: label.to_owned(),
            switch,
            names: Mutex::default(),
        };
        // .1 is the switch.
        Ok(Self {
            shared: Arc::new(shared),
            next: AtomicU32::new(2),
        })
    }

    /// Adds a pod. `label` is part of the name of its namespace and is its host name's entry in
    /// every hosts file of this network.
    ///
    /// # Errors
    /// When the kernel refuses one of the steps, which the error names.
    pub fn pod(&self, label: &str) -> Result<Pod> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let pod = Pod::new(Arc::clone(&self.shared), label, index)?;
        self.add_host(label, pod.v4())?;
        self.add_host(label, pod.v6())?;
        Ok(pod)
    }

    /// Makes `name` resolve to `address` in every pod of this network, those to come included.
    /// A name may have several addresses.
    ///
    /// # Errors
    /// When a hosts file cannot be written.
    pub fn add_host(&self, name: &str, address: impl Into<IpAddr>) -> Result<()> {
        let mut names = self.shared.names();
        names.entries.push((address.into(), name.to_owned()));
        names.write_all()
    }

    /// The name of the namespace that the bridge is in, for `ip netns exec`.
    pub fn switch_name(&self) -> &str {
        &self.shared.switch.name
    }

    /// Runs `work` on a thread inside the switch's namespace: the place of whatever stands
    /// outside of every pod.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run_in_switch<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter::run(&self.shared.switch.entrance(&[]), work)
    }
}

impl Shared {
    fn names(&self) -> std::sync::MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    /// Rewrites the files in place: a process of the pod has the file itself mounted, and would
    /// never see one that was renamed over it.
    fn write_all(&self) -> Result<()> {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (address, name) in &self.entries {
            text.push_str(&format!("{address} {name}\n"));
        }
        for file in &self.files {
            std::fs::write(file, &text).with_context(|| format!("write {}", file.display()))?;
        }
        Ok(())
    }
}

/// The IPv4 address of the `index`th member of a network.
fn v4(index: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a4d_0000 + index)
}

/// The IPv6 address of the `index`th member of a network.
fn v6(index: u32) -> Ipv6Addr {
    Ipv6Addr::from(0xfd4d_0000_0000_0000_0000_0000_0000_0000 + u128::from(index))
}

/// A named namespace, removed on drop with the processes that are still in it.
struct Namespace {
    name: String,
    handle: Arc<std::fs::File>,
}

impl Namespace {
    fn new(label: &str) -> Result<Self> {
        static SEQUENCE: AtomicU32 = AtomicU32::new(0);
        let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{sequence}-{label}", sweep::PREFIX, std::process::id());
        run_ip(&["netns", "add", &name], "")?;
        let path = format!("{NAMED}/{name}");
        let handle = match std::fs::File::open(&path) {
            Ok(handle) => Arc::new(handle),
            Err(error) => {
                sweep::remove(&name);
                return Err(error).with_context(|| format!("open {path}"));
            }
        };
        Ok(Self { name, handle })
    }

    /// Runs a batch of `ip` commands inside.
    fn ip(&self, batch: &str) -> Result<()> {
        run_ip(&["-n", &self.name, "-batch", "-"], batch)
    }

    fn entrance(&self, mounts: &[(PathBuf, PathBuf)]) -> enter::Entrance {
        enter::Entrance::new(Arc::clone(&self.handle), mounts)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        sweep::remove(&self.name);
    }
}

/// Runs `ip` with `input` as its standard input.
fn run_ip(arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run `ip` (install it with: apt-get install iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("write to `ip`")?;
    }
    let output = child.wait_with_output().context("wait for `ip`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {} failed: {}{input}", arguments.join(" "), said);
    }
    Ok(())
}
