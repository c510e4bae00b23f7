//! A workload: its pod, and its sidecar once it is injected.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::control::{CONTROL_HOST, CONTROL_PORT, ControlPlane};
use super::{TRUST_DOMAIN, bootstrap};
use crate::clients::http1::Client;
use crate::netns::{PROXY_UID, Pod};
use crate::{Process, bins, envoy};

/// How long a sidecar may take until it has its whole first configuration.
const START: Duration = Duration::from_secs(30);

/// Whose sidecar it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecar {
    /// `outrider-sidecar`.
    Outrider,
    /// A real Envoy, with an agent beside it that gets its certificates.
    Envoy,
}

/// A pod of the mesh.
pub struct Workload {
    /// The pod.
    pub pod: Pod,
    /// The namespace of its account.
    pub namespace: String,
    /// Its name, which is its account's too.
    pub name: String,
    app: String,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    injected: Option<Injected>,
}

struct Injected {
    proxy: Process,
    /// What gets the certificates where the proxy does not.
    agent: Option<Process>,
}

impl Workload {
    pub(super) fn new(pod: Pod, namespace: &str, name: &str, app: &str, files: &Path) -> Self {
        Self {
            pod,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            app: app.to_owned(),
            folder: files.join(name),
            environment: Vec::new(),
            injected: None,
        }
    }

    /// Its SPIFFE id.
    pub fn identity(&self) -> String {
        format!("{TRUST_DOMAIN}ns/{}/sa/{}", self.namespace, self.name)
    }

    /// Sets a variable of the environment in which our sidecar is started next, besides those that
    /// say who it is.
    pub fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.environment.push((variable, value.into()));
    }

    /// The folder in which our sidecar keeps what it needs to start while the control plane is down.
    pub fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The sidecar's process.
    ///
    /// # Errors
    /// When none was injected.
    pub fn proxy(&mut self) -> Result<&mut Process> {
        let injected = self.injected.as_mut();
        Ok(&mut injected.context("the workload has no sidecar")?.proxy)
    }

    /// The agent's process; `None` where the sidecar gets its certificates itself.
    pub fn agent(&mut self) -> Option<&mut Process> {
        self.injected.as_mut()?.agent.as_mut()
    }

    /// What the admin port answers to a GET, whatever its status.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn admin(&self, path: &str) -> Result<String> {
        let mut client = Client::connect_from(&self.pod, ("127.0.0.1", 15000))?;
        Ok(client.get("localhost", path)?.text())
    }

    /// A counter or gauge of `/stats`; 0 where it is not (yet) there.
    ///
    /// # Errors
    /// When the admin port does not answer, or the value is no number.
    pub fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.admin("/stats")?;
        let value = stats.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            (found == name).then_some(value)
        });
        value.map_or(Ok(0), |value| {
            value
                .trim()
                .parse()
                .with_context(|| format!("{name}: {value}"))
        })
    }

    pub(super) fn inject(&mut self, control: &ControlPlane, sidecar: Sidecar) -> Result<()> {
        ensure!(self.injected.is_none(), "{} has a sidecar", self.name);
        if !self.folder.exists() {
            self.prepare(control)?;
        }
        let init = bins::path("outrider-init")?;
        let output = self.pod.command(init).arg("apply").output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "outrider-init failed: {said}");
        self.start(control, sidecar)
    }

    /// The folder, with the token and the labels: the proxy's own.
    fn prepare(&self, control: &ControlPlane) -> Result<()> {
        for folder in [&self.folder, &self.state_folder()] {
            fs::create_dir(folder).context("make the workload's folder")?;
            chown(folder, Some(PROXY_UID), Some(PROXY_UID)).context("give it to the proxy")?;
        }
        self.write_secret("labels", &format!("app=\"{}\"\n", self.app))?;
        let token = control.token(&self.namespace, &self.name)?;
        self.write_secret("token", &token)
    }

    /// Starts the sidecar, again if need be, without anything of the redirects.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(&mut self, control: &ControlPlane, sidecar: Sidecar) -> Result<()> {
        self.injected = None;
        let (agent, command) = match sidecar {
            Sidecar::Outrider => (None, self.outrider(control)?),
            Sidecar::Envoy => (Some(self.start_agent(control)?), self.envoy(control)?),
        };
        let name = format!("{}'s {sidecar:?}", self.name);
        let mut proxy = Process::start(&name, command)?;
        let pod = &self.pod;
        proxy.wait_for("ready", START, |_| is_ready(pod, sidecar))?;
        self.injected = Some(Injected { proxy, agent });
        Ok(())
    }

    /// Our sidecar, as the injector starts it.
    fn outrider(&self, control: &ControlPlane) -> Result<Command> {
        let program = bins::path("outrider-sidecar")?;
        let mut command = self.pod.command_as(PROXY_UID, program)?;
        let [v4, v6] = self.pod.addresses();
        command
            .args(["--concurrency", "2", "--drain-time-s", "10"])
            .args(["--log-level", "info"])
            .env("POD_NAME", &self.name)
            .env("POD_NAMESPACE", &self.namespace)
            .env("POD_IPS", format!("{v4},{v6}"))
            .env("SERVICE_ACCOUNT", &self.name)
            .env("NODE_NAME", "here")
            .env(
                "OUTRIDER_CA_ADDRESS",
                format!("{CONTROL_HOST}:{CONTROL_PORT}"),
            )
            .env("OUTRIDER_TOKEN_FILE", self.folder.join("token"))
            .env("OUTRIDER_ROOT_FILE", control.root_file())
            .env("OUTRIDER_LABELS_FILE", self.folder.join("labels"))
            .env("OUTRIDER_STATE_DIR", self.state_folder())
            .env("OUTRIDER_SDS_SOCKET", self.folder.join("sds.sock"));
        for (variable, value) in &self.environment {
            command.env(variable, value);
        }
        Ok(command)
    }

    /// A real Envoy, with a bootstrap that does the same.
    fn envoy(&self, control: &ControlPlane) -> Result<Command> {
        let token = fs::read_to_string(self.folder.join("token"))?;
        let node = bootstrap::Node {
            name: &self.name,
            namespace: &self.namespace,
            app: &self.app,
            addresses: self.pod.addresses(),
        };
        let bootstrap = bootstrap::envoy(&node, control, &token, &self.folder);
        self.write_secret("bootstrap.json", &serde_json::to_string_pretty(&bootstrap)?)?;
        let mut command = self.pod.command_as(PROXY_UID, envoy::binary()?)?;
        command
            .arg("-c")
            .arg(self.folder.join("bootstrap.json"))
            .args(["--concurrency", "2", "--drain-time-s", "10"])
            .args(["--log-level", "warn", "--disable-hot-restart"]);
        Ok(command)
    }

    /// Runs as the proxy's user, whose connections no redirect takes.
    fn start_agent(&self, control: &ControlPlane) -> Result<Process> {
        let socket = self.folder.join("sds.sock");
        let mut command = self
            .pod
            .command_as(PROXY_UID, bins::path("outrider-testapp")?)?;
        command
            .arg("agent")
            .args(["--authority", &format!("{CONTROL_HOST}:{CONTROL_PORT}")])
            .arg("--root-file")
            .arg(control.root_file())
            .arg("--token-file")
            .arg(self.folder.join("token"))
            .arg("--socket")
            .arg(&socket);
        let mut agent = Process::start(&format!("{}'s agent", self.name), command)?;
        agent.wait_for("its socket", START, |_| socket.exists())?;
        Ok(agent)
    }

    /// Writes a file that only the proxy's user can read.
    fn write_secret(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            chown(&path, Some(PROXY_UID), Some(PROXY_UID))
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

fn is_ready(pod: &Pod, sidecar: Sidecar) -> bool {
    let (port, path) = match sidecar {
        Sidecar::Outrider => (15021, "/healthz/ready"),
        Sidecar::Envoy => (15000, "/ready"),
    };
    let answer = || -> Result<u16> {
        Client::connect_from(pod, ("127.0.0.1", port))?
            .get("localhost", path)?
            .status()
    };
    answer().is_ok_and(|status| status == 200)
}
