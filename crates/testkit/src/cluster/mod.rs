//! A real one-node Kubernetes on this machine, which `cargo xtask cluster up` brings up.
//!
//! All of it is in one network namespace, [`NAMESPACE`], which the host's own networking does not
//! reach; so whatever talks to it is run inside, by [`Cluster::command`].
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use outrider_testkit::cluster::Cluster;
//! let cluster = Cluster::running()?;
//! cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
//! println!("{}", cluster.kubectl(&["get", "namespaces"])?);
//! # Ok(()) }
//! ```

mod go;
mod programs;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};

pub use programs::{KUBERNETES, Program};

use crate::netns::enter::{self, Entrance};

/// Where everything that the cluster keeps is: certificates, logs, data, sockets. On a disk, since
/// the layers of images are mounted from it, which not every file system can be used for.
pub const STATE: &str = "/var/lib/outrider-cluster";
/// The network namespace of the node.
pub const NAMESPACE: &str = "/run/netns/outrider-node";
/// The network's name in the container network interface's records.
pub const NETWORK: &str = "outrider-cluster";
/// Where the library of the container network interface records what it did, which cannot be
/// told otherwise.
pub const NETWORK_RECORDS: &str = "/var/lib/cni/results";

/// A cluster that runs.
#[derive(Clone)]
pub struct Cluster {
    entrance: Entrance,
    kubectl: PathBuf,
}

impl Cluster {
    /// The cluster of this machine.
    ///
    /// # Errors
    /// When there is none, or its programs cannot be had.
    pub fn running() -> Result<Self> {
        let present = Path::new(NAMESPACE).exists() && kubeconfig().is_file();
        ensure!(present, "no cluster runs here: cargo xtask cluster up");
        let namespace = File::open(NAMESPACE).with_context(|| format!("open {NAMESPACE}"))?;
        Ok(Self {
            entrance: Entrance::new(Arc::new(namespace), &[]),
            kubectl: Program::Kubectl.path()?,
        })
    }

    /// A command inside the node's network namespace, with the rights of the administrator.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.entrance.command(program.as_ref(), None);
        command.env("KUBECONFIG", kubeconfig());
        // Helm keeps what it caches and reads with the cluster, not with the user.
        for (variable, folder) in [
            ("HELM_CACHE_HOME", "cache"),
            ("HELM_CONFIG_HOME", "configuration"),
            ("HELM_DATA_HOME", "data"),
        ] {
            command.env(variable, Path::new(STATE).join("helm").join(folder));
        }
        command
    }

    /// Runs `work` on a thread inside the node's network namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        enter::run(&self.entrance, work)
    }

    /// Runs `kubectl` and returns its standard output.
    ///
    /// # Errors
    /// It fails; the error has the command and its standard error.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.kubectl_command(arguments), "")
    }

    /// A `kubectl` to be run as the caller likes.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.kubectl);
        command.args(arguments);
        command
    }

    /// Applies documents of YAML, on the server's side, as the owner of every field of theirs.
    ///
    /// # Errors
    /// The API server refuses one of them; the error has its words.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        output(self.kubectl_command(&arguments), yaml).map(drop)
    }

    /// Runs `helm` and returns its standard output.
    ///
    /// # Errors
    /// It fails; the error has the command and its standard error.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(Program::Helm.path()?);
        command.args(arguments);
        output(command, "")
    }

    /// Gives the node the images of an OCI layout in a tar.
    ///
    /// # Errors
    /// It is none, or containerd does not take it.
    pub fn load_image(&self, path: &Path) -> Result<()> {
        let mut command = self.containerd(&["images", "import"]);
        command.arg(path);
        output(command, "").with_context(|| format!("load the image {}", path.display()))?;
        Ok(())
    }

    /// A command to the node's containerd, among what the kubelet has there.
    pub fn containerd(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("ctr");
        command
            .arg("--address")
            .arg(containerd_socket())
            .args(["--namespace", "k8s.io"])
            .args(arguments);
        command
    }

    /// The node's end of the cable of the pod that has this address.
    ///
    /// # Errors
    /// No pod has it.
    pub fn cable(&self, pod: IpAddr) -> Result<String> {
        let address = format!("\"{pod}/");
        for record in network_records()? {
            let text = fs::read_to_string(&record).unwrap_or_default();
            if !text.contains(&address) {
                continue;
            }
            let record: serde_json::Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", record.display()))?;
            let interfaces = record["result"]["interfaces"].as_array();
            let names = interfaces.into_iter().flatten();
            let mut names = names.filter_map(|interface| interface["name"].as_str());
            if let Some(name) = names.find(|name| name.starts_with("veth")) {
                return Ok(name.to_owned());
            }
        }
        anyhow::bail!("no pod has the address {pod}")
    }
}

/// The administrator's kubeconfig.
pub fn kubeconfig() -> PathBuf {
    Path::new(STATE).join("kubeconfig")
}

/// The socket of the node's containerd.
pub fn containerd_socket() -> PathBuf {
    Path::new(STATE).join("containerd.sock")
}

/// The records of the cluster's pods.
///
/// # Errors
/// They cannot be read; that there are none is no error.
pub fn network_records() -> Result<Vec<PathBuf>> {
    if !Path::new(NETWORK_RECORDS).exists() {
        return Ok(Vec::new());
    }
    let prefix = format!("{NETWORK}-");
    let mut records = Vec::new();
    for entry in fs::read_dir(NETWORK_RECORDS).context("read the network's records")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            records.push(entry.path());
        }
    }
    Ok(records)
}

/// Runs a command with `input` as its standard input to its end, and returns its output.
fn output(mut command: Command, input: &str) -> Result<String> {
    let shown = shown(&command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that fails early reads nothing; its own words say why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context("wait for it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{shown}: {}: {}{}",
        output.status,
        said.trim(),
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).with_context(|| format!("{shown} wrote what is not UTF-8"))
}

/// `kubectl get pods`, without the program's folder.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let mut text = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}
