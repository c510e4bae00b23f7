//! Runs the built sidecar, alone or beside a real Envoy with the same bootstrap file, and compares
//! what both make of the same bytes.

mod bootstrap;
mod outcome;
mod proxy;
pub mod tls;

pub use bootstrap::{Bootstrap, ROUTES_TO_UP, http_filter};
pub use outcome::{Outcome, comparable, exchange, seen_headers};
pub use proxy::{Kind, Proxy};

use std::fmt::Debug;
use std::net::SocketAddr;
use std::time::Duration;

use outrider_testkit::eventually;

/// The longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The sidecar and an Envoy with the same bootstrap. All that differs is told when it is dropped, so
/// that one run of a table shows every case that fails.
pub struct Pair {
    pub ours: Proxy,
    pub envoy: Proxy,
    differences: Vec<String>,
}

impl Pair {
    /// Starts both and waits until they are ready.
    pub fn start(bootstrap: &Bootstrap) -> Self {
        let ours = Proxy::spawn(Kind::Ours, bootstrap);
        let envoy = Proxy::spawn(Kind::Envoy, bootstrap);
        Pair {
            ours: ours.ready(),
            envoy: envoy.ready(),
            differences: Vec::new(),
        }
    }

    /// Does the same with both and compares the outcomes; answers ours.
    pub fn same<T: PartialEq + Debug>(&mut self, what: &str, act: impl Fn(&mut Proxy) -> T) -> T {
        let ours = act(&mut self.ours);
        let envoy = act(&mut self.envoy);
        if ours != envoy {
            self.differences.push(difference(what, &ours, &envoy));
        }
        ours
    }

    /// Sends the same bytes to the first listener of both, and compares the response, the line in
    /// the access log, and the fate of the connection.
    pub fn check(&mut self, request: &str) -> Outcome {
        self.check_with(request, |_| {})
    }

    /// The same, with a change to both outcomes that takes out what is meant to differ.
    pub fn check_with(&mut self, request: &str, adjust: impl Fn(&mut Outcome)) -> Outcome {
        self.same(request, |proxy| {
            let mut outcome = exchange(proxy.listener(), request.as_bytes());
            outcome.set_log(proxy.log_line());
            if outcome.kept {
                // What the probe left.
                proxy.log_line();
            }
            adjust(&mut outcome);
            outcome
        })
    }

    /// Waits until the named stats of both agree, and insists that they do.
    pub fn same_stats(&mut self, names: &[&str]) {
        let both = || {
            let of = |proxy: &Proxy| -> Vec<(String, Option<i64>)> {
                let name = |name: &&str| ((*name).to_owned(), proxy.stat(name));
                names.iter().map(name).collect()
            };
            (of(&self.ours), of(&self.envoy))
        };
        let agreed = eventually(Duration::from_secs(3), || {
            let (ours, envoy) = both();
            anyhow::ensure!(ours == envoy, "not yet");
            Ok(())
        });
        if agreed.is_err() {
            let (ours, envoy) = both();
            let differ: Vec<_> = ours.iter().zip(&envoy).filter(|(a, b)| a != b).collect();
            self.differences
                .push(format!("stats (ours, Envoy's): {differ:#?}"));
        }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if !self.differences.is_empty() && !std::thread::panicking() {
            panic!(
                "{} differences from Envoy:\n\n{}",
                self.differences.len(),
                self.differences.join("\n\n")
            );
        }
    }
}

/// The lines that differ of two values' texts.
fn difference(what: &str, ours: &impl Debug, envoy: &impl Debug) -> String {
    let (ours, envoy) = (format!("{ours:#?}"), format!("{envoy:#?}"));
    let compact = |text: &str| -> Vec<String> {
        let text = text
            .replace("\n            ", " ")
            .replace("\n        )", " )");
        text.lines().map(str::to_owned).collect()
    };
    let (ours, envoy) = (compact(&ours), compact(&envoy));
    let mut text = format!("{what:?}");
    for line in ours.iter().filter(|line| !envoy.contains(line)) {
        text.push_str(&format!("\n  ours:  {}", line.trim()));
    }
    for line in envoy.iter().filter(|line| !ours.contains(line)) {
        text.push_str(&format!("\n  Envoy: {}", line.trim()));
    }
    text
}

/// A listener of this process on a free port.
pub fn bind() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

/// An address at which nothing listens.
pub fn closed_address() -> SocketAddr {
    outrider_testkit::proxy::closed_address().unwrap()
}
