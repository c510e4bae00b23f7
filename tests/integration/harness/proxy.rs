//! One running proxy.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::clients::http1::Client;
use outrider_testkit::{Process, bins, envoy, eventually};
use serde_json::Value;

use super::{Bootstrap, PATIENCE, closed_address};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Envoy,
}

/// A sidecar or an Envoy with the bootstrap that it was started with.
pub struct Proxy {
    pub kind: Kind,
    pub process: Process,
    pub admin: SocketAddr,
    listeners: Vec<(String, SocketAddr)>,
    log: PathBuf,
    log_read: usize,
    _folder: tempfile::TempDir,
}

impl Proxy {
    /// Starts ours alone and waits until it is ready.
    pub fn ours(bootstrap: &Bootstrap) -> Self {
        Self::spawn(Kind::Ours, bootstrap).ready()
    }

    /// Starts one; [`ready`](Self::ready) waits for it.
    pub fn spawn(kind: Kind, bootstrap: &Bootstrap) -> Self {
        Self::spawn_with(kind, bootstrap, &[])
    }

    /// The same, with more arguments.
    pub fn spawn_with(kind: Kind, bootstrap: &Bootstrap, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("access.log");
        let admin = closed_address();
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.text(admin, &log)).unwrap();
        let mut command = match kind {
            Kind::Ours => Command::new(bins::path("outrider-sidecar").unwrap()),
            Kind::Envoy => {
                let mut command = Command::new(envoy::binary().unwrap());
                command.args(["--use-dynamic-base-id", "--file-flush-interval-msec", "5"]);
                command
            }
        };
        command.arg("-c").arg(&file);
        command.args(["--concurrency", "1", "-l", "warn"]);
        command.args(arguments);
        let name = format!("{kind:?}").to_lowercase();
        Proxy {
            kind,
            process: Process::start(&name, command).unwrap(),
            admin,
            listeners: Vec::new(),
            log,
            log_read: 0,
            _folder: folder,
        }
    }

    /// Waits until it serves, and learns its listeners' addresses.
    pub fn ready(mut self) -> Self {
        let admin = self.admin;
        let ready = || page(admin, "GET", "/ready").is_ok_and(|(status, _)| status == 200);
        self.process
            .wait_for("it is ready", PATIENCE, |_| ready())
            .unwrap();
        let listeners = self.admin_json("/listeners?format=json");
        for listener in listeners["listener_statuses"].as_array().unwrap() {
            let address = &listener["local_address"]["socket_address"];
            let address = format!(
                "{}:{}",
                address["address"].as_str().unwrap(),
                address["port_value"]
            );
            let name = listener["name"].as_str().unwrap().to_owned();
            self.listeners.push((name, address.parse().unwrap()));
        }
        self
    }

    /// The address of the first listener.
    pub fn listener(&self) -> SocketAddr {
        self.listeners[0].1
    }

    /// A connection to the first listener.
    pub fn client(&self) -> Client {
        Client::connect(self.listener()).unwrap()
    }

    /// Asks the admin API; the status and the page.
    pub fn admin(&self, method: &str, path: &str) -> (u16, String) {
        page(self.admin, method, path).unwrap()
    }

    /// A page of the admin API that is JSON.
    pub fn admin_json(&self, path: &str) -> Value {
        let (status, text) = self.admin("GET", path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A counter's or gauge's value, if there is one of that name.
    pub fn stat(&self, name: &str) -> Option<i64> {
        let pattern = name.replace('.', "%5C.");
        let (_, text) = self.admin("GET", &format!("/stats?filter=^{pattern}$"));
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        let (_, value) = lines.find(|(found, _)| *found == name)?;
        value.parse().ok()
    }

    /// Waits until a stat has that value.
    #[track_caller]
    pub fn wait_for_stat(&self, name: &str, value: i64) {
        eventually(Duration::from_secs(5), || {
            let now = self.stat(name);
            ensure!(now == Some(value), "{name} is {now:?}, not {value}");
            Ok(())
        })
        .unwrap();
    }

    /// Waits for the next line of the access log.
    #[track_caller]
    pub fn log_line(&mut self) -> String {
        let (log, from) = (&self.log, self.log_read);
        let line = eventually(Duration::from_secs(5), || {
            let text = std::fs::read(log).context("no access log yet")?;
            let rest = &text[from..];
            let end = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .context("no further line in the access log")?;
            Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
        });
        let line = line.unwrap_or_else(|error| panic!("{:?}: {error:#}", self.kind));
        self.log_read += line.len() + 1;
        line
    }
}

fn page(admin: SocketAddr, method: &str, path: &str) -> Result<(u16, String)> {
    let mut client = Client::connect(admin)?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = client.exchange(request)?;
    Ok((answer.status()?, answer.text()))
}
