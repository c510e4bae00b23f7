//! One pod: a namespace on a network's bridge.

use std::ffi::OsStr;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

use super::{FILES, Namespace, PROGRAMS, Shared, enter, v4, v6};

/// A network namespace with `lo` and `eth0` up, an address of each family and a default route of
/// each. On drop the processes that are still inside are killed, and it is removed.
pub struct Pod {
    label: String,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    files: PathBuf,
    mounts: Vec<(PathBuf, PathBuf)>,
    namespace: Namespace,
    shared: Arc<Shared>,
}

impl Pod {
    pub(super) fn new(shared: Arc<Shared>, label: &str, index: u32) -> Result<Self> {
        let namespace = Namespace::new(&format!("{}-{label}", shared.label))?;
        let files = Path::new(FILES).join(&namespace.name);
        // From here on the destructor undoes whatever was done.
        let mut pod = Self {
            label: label.to_owned(),
            v4: v4(index),
            v6: v6(index),
            files,
            mounts: Vec::new(),
            namespace,
            shared,
        };
        pod.write_files()?;
        enter::run(&pod.namespace.entrance(&[]), prepare_kernel)??;
        // The bridge's side makes the pair, so that neither end is ever seen on the host.
        pod.shared.switch.ip(&format!(
            "link add p{index} type veth peer name eth0 netns {}\n\
             link set p{index} master br0 up\n",
            pod.namespace.name
        ))?;
        pod.namespace.ip(&format!(
            "link set lo up\n\
             address add {}/16 dev eth0\n\
             address add {}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via {}\n\
             route add ::/0 via {}\n",
            pod.v4,
            pod.v6,
            v4(1),
            v6(1)
        ))?;
        Ok(pod)
    }

    /// The pod's own `/etc/hosts` and `/etc/resolv.conf`. The latter names a resolver that is not
    /// there (unless the test starts one), so an unknown name fails at once.
    fn write_files(&mut self) -> Result<()> {
        std::fs::create_dir_all(&self.files)
            .with_context(|| format!("create {}", self.files.display()))?;
        let hosts = self.files.join("hosts");
        let resolver = self.files.join("resolv.conf");
        std::fs::write(
            &resolver,
            "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        )
        .with_context(|| format!("write {}", resolver.display()))?;
        for (file, target) in [(&hosts, "/etc/hosts"), (&resolver, "/etc/resolv.conf")] {
            // A machine without one of them has nothing to hide (and nothing to mount on).
            if let Ok(target) = std::fs::canonicalize(target) {
                self.mounts.push((file.clone(), target));
            }
        }
        let mut names = self.shared.names();
        names.files.insert(hosts);
        names.write_all()
    }

    /// The label that the pod was made with.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The name of the namespace, for `ip netns exec`.
    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }

    /// The pod's IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// The pod's IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Both addresses, IPv4 first.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// A command that runs inside as root. `tokio::process::Command::from` takes it too.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.entrance().command(program.as_ref(), None)
    }

    /// A command that runs inside as `user`, which is both its uid and its gid. A program given
    /// by its absolute path may lie where that user cannot go, as in root's home: it is mounted
    /// where it can.
    ///
    /// # Errors
    /// When the place to mount the program on cannot be made.
    pub fn command_as(&self, user: u32, program: impl AsRef<OsStr>) -> Result<Command> {
        let program = Path::new(program.as_ref());
        let (true, Some(name)) = (program.is_absolute(), program.file_name()) else {
            return Ok(self.entrance().command(program.as_os_str(), Some(user)));
        };
        let folder = Path::new(PROGRAMS).join(&self.namespace.name);
        let place = folder.join(name);
        if !place.exists() {
            std::fs::create_dir_all(&folder)
                .and_then(|()| std::fs::write(&place, ""))
                .with_context(|| format!("create {}", place.display()))?;
        }
        let mut mounts = self.mounts.clone();
        mounts.push((program.to_owned(), place.clone()));
        Ok(self
            .namespace
            .entrance(&mounts)
            .command(place.as_os_str(), Some(user)))
    }

    /// Runs a command inside to its end and returns what it wrote to standard output.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error has its standard error.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .command(program)
            .args(arguments)
            .output()
            .with_context(|| format!("run {program} in {}", self.label))?;
        ensure!(
            output.status.success(),
            "{program} {} in {} failed ({}): {}",
            arguments.join(" "),
            self.label,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).context("the output is not UTF-8")
    }

    /// Runs `work` on a thread inside. Sockets that it makes stay the pod's wherever they are
    /// used afterwards, and threads that it starts are inside too.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    ///
    /// # Panics
    /// When `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter::run(&self.entrance(), work)
    }

    /// Runs the future that `start` makes to its end, on a runtime of its own inside. `start` is
    /// called in the runtime, so it may bind and connect.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the runtime cannot be made.
    ///
    /// # Panics
    /// When the future does.
    pub fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        start: impl FnOnce() -> F + Send,
    ) -> Result<T> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(async { start().await }))
        })?
    }

    fn entrance(&self) -> enter::Entrance {
        self.namespace.entrance(&self.mounts)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.shared.names().files.remove(&self.files.join("hosts"));
    }
}

/// What a pod on Kubernetes finds set: IPv6 is on, and any port may be bound without privilege.
fn prepare_kernel() -> Result<()> {
    for (path, wanted) in [
        ("/proc/sys/net/ipv6/conf/all/disable_ipv6", "0"),
        ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0"),
        ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ] {
        let present = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
        if present.trim() != wanted {
            std::fs::write(path, wanted).with_context(|| format!("write {wanted} to {path}"))?;
        }
    }
    Ok(())
}
