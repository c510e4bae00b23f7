//! One running proxy, for tests: what fails panics.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use outrider_testkit::clients::http1::Client;
use outrider_testkit::eventually;
pub use outrider_testkit::proxy::Kind;
use serde_json::Value;

use super::Bootstrap;

/// A sidecar or an Envoy with the bootstrap that it was started with.
pub struct Proxy {
    inner: outrider_testkit::Proxy,
    listeners: Vec<(String, SocketAddr)>,
    log: PathBuf,
    log_read: usize,
}

impl Deref for Proxy {
    type Target = outrider_testkit::Proxy;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Proxy {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
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
        let inner = outrider_testkit::Proxy::spawn(kind, arguments, |folder, admin| {
            Ok(bootstrap.text(admin, &folder.join("access.log")))
        })
        .unwrap();
        Proxy {
            log: inner.folder().join("access.log"),
            inner,
            listeners: Vec::new(),
            log_read: 0,
        }
    }

    /// Waits until it serves, and learns its listeners' addresses.
    pub fn ready(mut self) -> Self {
        self.inner.wait_until_ready().unwrap();
        self.listeners = self.inner.listeners().unwrap();
        self
    }

    /// The address of the first listener.
    pub fn listener(&self) -> SocketAddr {
        self.listeners[0].1
    }

    /// The address of the listener of that name.
    pub fn listener_named(&self, name: &str) -> SocketAddr {
        let found = self.listeners.iter().find(|(known, _)| known == name);
        found.unwrap_or(&self.listeners[0]).1
    }

    /// A connection to the first listener.
    pub fn client(&self) -> Client {
        Client::connect(self.listener()).unwrap()
    }

    /// Asks the admin API; the status and the page.
    pub fn admin(&self, method: &str, path: &str) -> (u16, String) {
        let page = self.inner.page(method, path).unwrap();
        (page.status().unwrap(), page.text())
    }

    /// A page of the admin API that is JSON.
    pub fn admin_json(&self, path: &str) -> Value {
        let (status, text) = self.admin("GET", path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A counter's or gauge's value, if there is one of that name.
    pub fn stat(&self, name: &str) -> Option<i64> {
        self.inner.stat(name).unwrap()
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
