//! The real control plane, in a pod of its own.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::clients::http1::Client;
use crate::netns::{Network, Pod};
use crate::{Process, bins};

/// The name by which sidecars reach it, which is in its certificate.
pub const CONTROL_HOST: &str = "outrider-control.outrider-system.svc";
/// The port of discovery and of the certificate authority.
pub(super) const CONTROL_PORT: u16 = 15012;

/// `outrider-control`, with its directory of YAML and its authority's keys, which outlive it.
pub struct ControlPlane {
    process: Option<Process>,
    flags: Vec<String>,
    directory: PathBuf,
    keys: PathBuf,
    root: PathBuf,
    pod: Pod,
}

impl ControlPlane {
    pub(super) fn new(network: &Network, files: &Path) -> Result<Self> {
        let pod = network.pod("control")?;
        network.add_host(CONTROL_HOST, pod.v4())?;
        let directory = files.join("mesh");
        fs::create_dir(&directory).context("make the mesh's directory")?;
        let keys = files.join("authority");
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&keys)
            .context("make the authority's directory")?;
        Ok(Self {
            process: None,
            flags: Vec::new(),
            directory,
            keys,
            root: files.join("root.pem"),
            pod,
        })
    }

    /// The directory of YAML that it reads.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pod that it runs in.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// The file of the mesh's root certificate.
    pub fn root_file(&self) -> &Path {
        &self.root
    }

    /// The process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    pub(super) fn start(&mut self, flags: &[&str]) -> Result<()> {
        self.flags = flags.iter().map(ToString::to_string).collect();
        // The verb makes the root, so that sidecars have its file from the beginning.
        let root = self.output(&["root"])?;
        fs::write(&self.root, root).context("write the root certificate")?;
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o644))?;
        self.restart()
    }

    /// Starts it again, after [`kill`](Self::kill), with the flags that it had.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self) -> Result<()> {
        let mut command = self.pod.command(bins::path("outrider-control")?);
        command
            .arg("serve")
            .arg("--config-dir")
            .arg(&self.directory)
            .arg("--ca-dir")
            .arg(&self.keys)
            .args(["--serving-name", CONTROL_HOST])
            .args(&self.flags);
        let process = self
            .process
            .insert(Process::start("outrider-control", command)?);
        let pod = &self.pod;
        process.wait_for("ready", Duration::from_secs(20), |_| is_ready(pod))
    }

    /// Kills it, as a machine that dies would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self
            .process
            .take()
            .context("the control plane does not run")?;
        process.kill()?;
        Ok(())
    }

    /// A token of an account, good for an hour.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn token(&self, namespace: &str, account: &str) -> Result<String> {
        let token = self.output(&["token", "--namespace", namespace, "--account", account])?;
        Ok(token.trim().to_owned())
    }

    /// What one of its verbs prints.
    fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(bins::path("outrider-control")?)
            .args(arguments)
            .arg("--ca-dir")
            .arg(&self.keys)
            .output()
            .context("run outrider-control")?;
        ensure!(
            output.status.success(),
            "outrider-control {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).context("the output is not UTF-8")
    }
}

fn is_ready(pod: &Pod) -> bool {
    let answer = || -> Result<u16> {
        Client::connect_from(pod, ("127.0.0.1", 15014))?
            .get("control", "/healthz/ready")?
            .status()
    };
    answer().is_ok_and(|status| status == 200)
}
