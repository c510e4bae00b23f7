//! `cargo xtask bench --routes`: a route table of 10,000 virtual hosts of 50 routes each. How long a
//! lookup takes is measured by a test inside the sidecar, how long the table takes to load by having
//! both programs validate the same file.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::shell;

const HOSTS: usize = 10_000;
const ROUTES: usize = 50;
/// The best of so many loads counts.
const LOADS: usize = 3;
const TYPES: &str = "type.googleapis.com/envoy.extensions.filters";

/// Measures both.
///
/// # Errors
/// A lookup costs too much, or the file takes longer to load than Envoy takes.
pub(super) fn run(sidecar: &Path, envoy: &Path) -> Result<()> {
    let lookups = [
        "test",
        "--release",
        "--package",
        "outrider-sidecar",
        "--lib",
        "http::route::measure",
        "--",
        "--ignored",
        "--nocapture",
    ];
    shell::step("measure lookups", shell::cargo(&lookups)?)?;

    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("routes.json");
    let text = serde_json::to_vec(&bootstrap())?;
    std::fs::write(&file, &text).context("write the bootstrap")?;
    println!("a file of {} MB", text.len() / 1_000_000);
    let ours = load("ours", sidecar, &[], &file)?;
    let theirs = load("Envoy", envoy, &["--disable-hot-restart"], &file)?;
    ensure!(
        ours <= theirs,
        "ours loads the table in {ours:?}, and Envoy in {theirs:?}"
    );
    Ok(())
}

fn load(name: &str, program: &Path, arguments: &[&str], file: &Path) -> Result<Duration> {
    let mut best = Duration::MAX;
    for _ in 0..LOADS {
        let begun = Instant::now();
        let output = Command::new(program)
            .args(["--mode", "validate", "--log-level", "error", "-c"])
            .arg(file)
            .args(arguments)
            .output()
            .with_context(|| format!("start {}", program.display()))?;
        ensure!(
            output.status.success(),
            "{name} refuses the file: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        best = best.min(begun.elapsed());
    }
    println!("{name} loads it in {:.2} s", best.as_secs_f64());
    Ok(best)
}

fn bootstrap() -> Value {
    let hosts: Vec<_> = (0..HOSTS).map(host).collect();
    let manager = json!({
        "@type": format!("{TYPES}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "route_config": {"name": "large", "virtual_hosts": hosts},
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": format!("{TYPES}.http.router.v3.Router")},
        }],
    });
    let anywhere = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    json!({
        "admin": {"address": anywhere},
        "static_resources": {
            "listeners": [{
                "name": "in",
                "address": anywhere,
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": [{
                "name": "all",
                "type": "STATIC",
                "load_assignment": {"cluster_name": "all"},
            }],
        },
    })
}

fn host(number: usize) -> Value {
    let routes: Vec<_> = (0..ROUTES).map(route).collect();
    json!({
        "name": format!("host{number}"),
        "domains": [format!("host{number}.example"), format!("*.host{number}.example")],
        "routes": routes,
    })
}

fn route(number: usize) -> Value {
    let matcher = match number % 5 {
        0 => json!({"path": format!("/api/v{number}/item")}),
        4 => json!({"path_separated_prefix": format!("/service{number}")}),
        _ => json!({"prefix": format!("/api/v{number}/")}),
    };
    json!({
        "name": format!("route{number}"),
        "match": matcher,
        "route": {"cluster": "all", "timeout": "5s"},
    })
}
