//! One running proxy: a built sidecar or a real Envoy, each with the same kind of bootstrap.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::clients::http1::Client;
use crate::message::Message;
use crate::{Process, bins, envoy};

/// The longest that a start may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The sidecar that the workspace built.
    Ours,
    /// The real Envoy.
    Envoy,
}

/// A proxy that runs, with a folder of its own for its bootstrap and its logs.
pub struct Proxy {
    /// Which of the two it is.
    pub kind: Kind,
    /// The process.
    pub process: Process,
    /// Where its admin API listens.
    pub admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts one; [`wait_until_ready`](Self::wait_until_ready) waits for it. `bootstrap` makes the
    /// file's text (JSON or YAML) for its folder and its admin address.
    ///
    /// # Errors
    /// When the program is missing or its files cannot be written.
    pub fn spawn(
        kind: Kind,
        arguments: &[&str],
        bootstrap: impl FnOnce(&Path, SocketAddr) -> Result<String>,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the proxy")?;
        let admin = closed_address()?;
        let file = folder.path().join("bootstrap.yaml");
        std::fs::write(&file, bootstrap(folder.path(), admin)?)
            .with_context(|| format!("write {}", file.display()))?;
        let mut command = program(kind)?;
        if kind == Kind::Envoy {
            command.args(["--use-dynamic-base-id", "--file-flush-interval-msec", "5"]);
        }
        command.arg("-c").arg(&file);
        command.args(["-l", "warn"]);
        if !arguments.contains(&"--concurrency") {
            command.args(["--concurrency", "1"]);
        }
        command.args(arguments);
        let name = format!("{kind:?}").to_lowercase();
        Ok(Self {
            kind,
            process: Process::start(&name, command)?,
            admin,
            folder,
        })
    }

    /// Waits until it serves.
    ///
    /// # Errors
    /// When it ends before, or takes too long; the error has what it wrote.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let admin = self.admin;
        let ready =
            || page(admin, "GET", "/ready").is_ok_and(|page| page.status().ok() == Some(200));
        self.process.wait_for("it is ready", PATIENCE, |_| ready())
    }

    /// Its own folder: where its bootstrap is, and its logs may be.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The names and addresses of its listeners on IP sockets, in their order.
    ///
    /// # Errors
    /// When the admin API does not tell.
    pub fn listeners(&self) -> Result<Vec<(String, SocketAddr)>> {
        let page = self.page("GET", "/listeners?format=json")?.json()?;
        let mut listeners = Vec::new();
        let statuses = page["listener_statuses"].as_array();
        for listener in statuses.map(Vec::as_slice).unwrap_or_default() {
            let name = listener["name"].as_str().unwrap_or_default();
            let mut add = |name: String, address: &Value| -> Result<()> {
                let socket = &address["socket_address"];
                if let Some(ip) = socket["address"].as_str() {
                    let port = socket["port_value"].as_u64().unwrap_or_default();
                    let ip = ip.parse().with_context(|| format!("address {ip:?}"))?;
                    listeners.push((name, SocketAddr::new(ip, u16::try_from(port)?)));
                }
                Ok(())
            };
            add(name.to_owned(), &listener["local_address"])?;
            let more = listener["additional_local_addresses"].as_array();
            for (index, address) in more
                .map(Vec::as_slice)
                .unwrap_or_default()
                .iter()
                .enumerate()
            {
                add(format!("{name}.{}", index + 1), address)?;
            }
        }
        Ok(listeners)
    }

    /// Asks the admin API.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn page(&self, method: &str, path: &str) -> Result<Message> {
        page(self.admin, method, path)
    }

    /// A counter's or gauge's value, if there is one of that name.
    ///
    /// # Errors
    /// When the admin API does not answer.
    pub fn stat(&self, name: &str) -> Result<Option<i64>> {
        let pattern = name.replace('.', "%5C.");
        let page = self.page("GET", &format!("/stats?filter=^{pattern}$"))?;
        let text = page.text();
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        let value = lines.find(|(found, _)| *found == name);
        Ok(value.and_then(|(_, value)| value.parse().ok()))
    }
}

/// A command of the program, without arguments.
///
/// # Errors
/// When it is not built, or cannot be fetched.
pub fn program(kind: Kind) -> Result<Command> {
    Ok(Command::new(match kind {
        Kind::Ours => bins::path("outrider-sidecar")?,
        Kind::Envoy => envoy::binary()?,
    }))
}

/// An address at which nothing listens, and which nobody is given meanwhile: its port is below those
/// that the system gives out by itself, and each call answers another one.
///
/// # Errors
/// When no port is free.
pub fn closed_address() -> Result<SocketAddr> {
    const PORTS: Range<u32> = 10_000..30_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at once begin at different ones.
    let first = std::process::id().wrapping_mul(101);
    let count = PORTS.end - PORTS.start;
    for _ in PORTS {
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(PORTS.start + place)?;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener.local_addr()?);
        }
    }
    bail!("no port of {PORTS:?} is free")
}

fn page(admin: SocketAddr, method: &str, path: &str) -> Result<Message> {
    let mut client = Client::connect(admin)?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let page = client.exchange(request)?;
    ensure!(page.status()? > 0, "no status");
    Ok(page)
}
