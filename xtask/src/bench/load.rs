//! The loads, and reading what their programs report.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;

use super::bootstrap::{BULK_PORT, HTTP1_PORT, HTTP2_PORT};
use super::stage::Stage;
use crate::shell::output;

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Load {
    /// HTTP/1, 1 connection
    #[value(name = "http1-1")]
    Http1One,
    /// HTTP/1, 64 connections
    #[value(name = "http1-64")]
    Http1Many,
    /// HTTP/2, 8 connections of 16 streams
    #[value(name = "http2")]
    Http2,
    /// A new client connection for each request
    #[value(name = "connect")]
    Connect,
    /// Bulk TCP
    #[value(name = "bulk")]
    Bulk,
}

/// What a load's program reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Requests (MiB in bulk) that were completed.
    pub(super) count: f64,
    /// How long it took, in seconds.
    pub(super) seconds: f64,
    /// The median and the 99th percentile of the latency, in milliseconds; bulk has none.
    pub(super) latency: Option<[f64; 2]>,
}

impl Load {
    /// All of them, in the order in which they are run: memory under 64 connections is read after
    /// the second, before anything larger has raised the peak.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        [
            Self::Http1One,
            Self::Http1Many,
            Self::Http2,
            Self::Connect,
            Self::Bulk,
        ]
        .into_iter()
    }

    /// The name for flags and files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http1One => "http1-1",
            Self::Http1Many => "http1-64",
            Self::Http2 => "http2",
            Self::Connect => "connect",
            Self::Bulk => "bulk",
        }
    }

    /// The name for readers.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Http1One => "HTTP/1, 1 connection",
            Self::Http1Many => "HTTP/1, 64 connections",
            Self::Http2 => "HTTP/2, 8 x 16 streams",
            Self::Connect => "a connection per request",
            Self::Bulk => "bulk TCP",
        }
    }

    /// What is counted.
    pub(super) fn unit(self) -> &'static str {
        if self == Self::Bulk { "MiB" } else { "request" }
    }

    /// The most that our pair's CPU per unit may be, as a part of Envoy's.
    pub(super) fn target(self) -> f64 {
        match self {
            Self::Http1One | Self::Http2 => 0.45,
            Self::Http1Many => 0.38,
            Self::Connect => 0.48,
            Self::Bulk => 0.75,
        }
    }

    /// Runs it in the client's pod.
    pub(super) fn run(self, stage: &Stage, seconds: u32) -> Result<Outcome> {
        match self {
            Self::Http1One => wrk(stage, 1, seconds, &[]),
            Self::Http1Many => wrk(stage, 64, seconds, &[]),
            Self::Connect => wrk(stage, 16, seconds, &["--header", "Connection: close"]),
            Self::Http2 => h2load(stage, seconds),
            Self::Bulk => iperf3(stage, seconds),
        }
    }
}

/// What wrk runs at its end: one line of JSON instead of a text for people.
const WRK_SCRIPT: &str = r#"
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"microseconds":%d,"p50":%f,"p99":%f,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"#;

fn wrk(stage: &Stage, connections: u32, seconds: u32, arguments: &[&str]) -> Result<Outcome> {
    let script = stage.file("wrk.lua");
    std::fs::write(&script, WRK_SCRIPT).context("write wrk's script")?;
    let mut command = stage.client.command("wrk");
    command.args(["--threads", "1", "--timeout", "10s", "--connections"]);
    command
        .arg(connections.to_string())
        .arg(format!("--duration={seconds}s"));
    command
        .arg("--script")
        .arg(&script)
        .args(arguments)
        .arg(stage.url(HTTP1_PORT));
    let text = output(command)?;
    let line = text
        .lines()
        .rev()
        .find(|line| line.starts_with('{'))
        .context("wrk said nothing")?;
    let report: BTreeMap<String, f64> = serde_json::from_str(line).context("wrk's report")?;
    let field = |name: &str| {
        report
            .get(name)
            .copied()
            .with_context(|| format!("wrk: no {name}"))
    };
    ensure!(field("failed")? == 0.0, "wrk: requests failed:\n{text}");
    ensure!(
        field("requests")? > 0.0,
        "wrk: no request was answered:\n{text}"
    );
    Ok(Outcome {
        count: field("requests")?,
        seconds: field("microseconds")? / 1e6,
        latency: Some([field("p50")? / 1e3, field("p99")? / 1e3]),
    })
}

fn h2load(stage: &Stage, seconds: u32) -> Result<Outcome> {
    let log = stage.file("h2load.log");
    // It appends.
    if log.exists() {
        std::fs::remove_file(&log).context("remove h2load's old log")?;
    }
    let mut command = stage.client.command("h2load");
    command.args(["--clients=8", "--max-concurrent-streams=16", "--threads=1"]);
    command
        .arg(format!("--duration={seconds}"))
        .arg(format!("--log-file={}", log.display()));
    command.arg(stage.url(HTTP2_PORT));
    let text = output(command)?;
    let latencies = read_h2load_log(&log).with_context(|| text.clone())?;
    // "requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout"
    let line = text
        .lines()
        .find(|line| line.starts_with("requests:"))
        .context("h2load's report")?;
    for failure in ["failed", "errored", "timeout"] {
        let clean = line.contains(&format!(" 0 {failure}"));
        ensure!(clean, "h2load: requests failed:\n{text}");
    }
    let count = latencies.len();
    ensure!(count > 0, "h2load: no request was answered:\n{text}");
    Ok(Outcome {
        count: count as f64,
        seconds: seconds.into(),
        latency: Some([
            latencies[count / 2] / 1e3,
            latencies[count * 99 / 100] / 1e3,
        ]),
    })
}

/// The latencies in microseconds, sorted. A line is start, status and latency, tab-separated.
fn read_h2load_log(path: &Path) -> Result<Vec<f64>> {
    let text = std::fs::read_to_string(path).context("read h2load's log")?;
    let mut latencies = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('\t').skip(1);
        let status = fields.next().context("a line without a status")?;
        ensure!(status == "200", "h2load: status {status}");
        let latency: f64 = fields.next().context("a line without a latency")?.parse()?;
        latencies.push(latency);
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

fn iperf3(stage: &Stage, seconds: u32) -> Result<Outcome> {
    let mut command: Command = stage.client.command("iperf3");
    command.arg("--client").arg(stage.server.v4().to_string());
    command.arg("--port").arg(BULK_PORT.to_string());
    command.arg("--time").arg(seconds.to_string()).arg("--json");
    let text = output(command)?;
    let report: serde_json::Value = serde_json::from_str(&text).context("iperf3's report")?;
    if let Some(error) = report.get("error") {
        bail!("iperf3: {error}");
    }
    let field = |name: &str| {
        let pointer = format!("/end/sum_received/{name}");
        let number = report.pointer(&pointer).and_then(serde_json::Value::as_f64);
        number.with_context(|| format!("iperf3: no {pointer}"))
    };
    let bytes = field("bytes")?;
    ensure!(bytes > 0.0, "iperf3: nothing was received");
    Ok(Outcome {
        count: bytes / 1024.0 / 1024.0,
        seconds: field("seconds")?,
        latency: None,
    })
}
