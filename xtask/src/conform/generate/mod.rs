//! Cases by the thousand, from a seed: random configurations, and on each some hundred random
//! connections, many at a time. What differs is done again by itself, step by step as a written case
//! is, and made as small as it can be while it still differs.

mod burst;
mod http;
mod listener;
mod random;
mod route;
mod shrink;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Tally;
use super::differences::Differences;
use super::file::{Compare, Setup, Step};
use super::play::Pair;
use random::Random;

/// Connections on one configuration: as many as pay for the start of two proxies.
const OF_A_WORLD: usize = 400;
/// How long a generated connection may say nothing.
const SILENCE: Duration = Duration::from_millis(1500);
/// The access log of generated managers. The first word says whose line it is.
const LOG: &str = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL% \
    %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %ROUTE_NAME% %UPSTREAM_CLUSTER% %BYTES_RECEIVED% \
    %BYTES_SENT%\n";

/// What to make.
pub(super) struct Plan {
    pub(super) count: usize,
    pub(super) seed: u64,
    /// The area.
    pub(super) filter: String,
    /// How many configurations run at a time.
    pub(super) jobs: usize,
    /// How many kinds of differences are made small and shown.
    pub(super) shrink: usize,
    /// Where every difference is written, a line of JSON each.
    pub(super) findings: Option<PathBuf>,
}

/// A configuration and what is done with it.
pub(super) struct World {
    area: &'static str,
    /// The keys of a file of cases.
    setup: Value,
    compare: Value,
    /// Steps, each a case of its own.
    probes: Vec<Value>,
}

/// What came of a world.
struct Report {
    area: &'static str,
    tally: Tally,
    /// Differences that nobody has explained.
    findings: Vec<String>,
    /// Differed among others, and not by themselves.
    passing: usize,
    /// How many cases each meant difference explains.
    explained: BTreeMap<&'static str, usize>,
    /// Every difference, as a line of JSON.
    all: Vec<String>,
}

impl Report {
    /// Takes a difference down; `key` says which meant one it is.
    fn add(&mut self, probe: &Value, found: &[String], key: Option<&'static str>) {
        if let Some(key) = key {
            self.tally.explained += 1;
            *self.explained.entry(key).or_default() += 1;
        }
        let line = json!({ "area": self.area, "meant": key, "probe": probe, "found": found });
        self.all.push(line.to_string());
    }
}

/// The kinds of differences that were found, and how often each.
#[derive(Default)]
struct Known(Mutex<BTreeMap<String, usize>>);

impl Known {
    fn kinds(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the kind is known; counts it then.
    fn count_again(&self, signature: &str) -> bool {
        match self.kinds().get_mut(signature) {
            Some(times) => {
                *times += 1;
                true
            }
            None => false,
        }
    }

    /// Adds a kind; whether it is new, and among the first `most`.
    fn is_new(&self, signature: &str, most: usize) -> bool {
        let mut kinds = self.kinds();
        let times = kinds.entry(signature.to_owned()).or_default();
        *times += 1;
        *times == 1 && kinds.len() <= most
    }
}

/// Gives a connection manager the access log of generated ones.
fn add_log(http: &mut Value) {
    http["access_log"] = json!([{
        "name": "file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "${log}",
            "log_format": { "text_format_source": { "inline_string": LOG } },
        },
    }]);
}

/// Makes and runs about `count` cases; the tallies by area.
///
/// # Errors
/// When a world cannot be run at all.
pub(super) async fn run(
    plan: Plan,
    differences: Arc<Differences>,
) -> Result<BTreeMap<String, Tally>> {
    let worlds = worlds(&plan)?;
    let total = worlds.len();
    let permits = Arc::new(Semaphore::new(plan.jobs.max(1)));
    let known: Arc<Known> = Arc::default();
    let mut running = JoinSet::new();
    for world in worlds {
        let (permits, known, differences) = (
            Arc::clone(&permits),
            Arc::clone(&known),
            Arc::clone(&differences),
        );
        running.spawn(async move {
            let _permit = permits.acquire().await;
            one(world, plan.shrink, &known, &differences).await
        });
    }
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut explained: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut all = Vec::new();
    let mut done = 0;
    while let Some(finished) = running.join_next().await {
        let report = finished.context("a generated run panicked")??;
        done += 1;
        let mut note = String::new();
        if report.tally.explained > 0 {
            note.push_str(&format!(", {} explained", report.tally.explained));
        }
        if report.passing > 0 {
            note.push_str(&format!(", {} only among others", report.passing));
        }
        println!(
            "[{done}/{total}] generated {}: {}/{}{note}",
            report.area, report.tally.agreed, report.tally.total
        );
        for finding in report.findings {
            println!("{finding}");
        }
        let sum = tallies.entry(format!("~{}", report.area)).or_default();
        sum.add(&report.tally);
        for (key, times) in report.explained {
            *explained.entry(key).or_default() += times;
        }
        all.extend(report.all);
    }
    if let Some(file) = &plan.findings {
        let write = std::fs::write(file, all.join("\n") + "\n");
        write.with_context(|| format!("write {}", file.display()))?;
    }
    for (key, times) in &explained {
        println!("  {times} times, as meant: {key}");
    }
    for (signature, times) in known.kinds().iter() {
        println!("  {times} times: {signature}");
    }
    Ok(tallies)
}

/// The worlds of a seed, by turns of each kind.
fn worlds(plan: &Plan) -> Result<Vec<World>> {
    let mut worlds = Vec::new();
    let mut left = plan.count;
    let mut number = 0;
    while left > 0 {
        let size = left.min(OF_A_WORLD);
        let mut random = Random::new(plan.seed.wrapping_mul(0x1_0000_0001).wrapping_add(number));
        let world = match number % 7 {
            0 | 2 | 4 => route::world(&mut random, size),
            1 | 3 | 5 => http::world(&mut random, size),
            _ => listener::world(&mut random, size)?,
        };
        number += 1;
        let area = plan.filter.trim_end_matches('/');
        if area.is_empty() || world.area.starts_with(area) {
            worlds.push(world);
            left -= size;
        }
    }
    Ok(worlds)
}

async fn one(
    world: World,
    shrink: usize,
    known: &Known,
    differences: &Differences,
) -> Result<Report> {
    let setup: Setup = serde_json::from_value(world.setup.clone()).context("a generated setup")?;
    let compare: Compare = serde_json::from_value(world.compare.clone())?;
    let steps: Vec<Step> = world
        .probes
        .iter()
        .map(|probe| serde_json::from_value(probe.clone()).context("a generated step"))
        .collect::<Result<_>>()?;
    let mut report = Report {
        area: world.area,
        tally: Tally {
            total: steps.len(),
            ..Tally::default()
        },
        findings: Vec::new(),
        passing: 0,
        explained: BTreeMap::new(),
        all: Vec::new(),
    };
    let mut pair = match Pair::start(&setup) {
        Ok(pair) => pair,
        Err(error) => {
            // A configuration that only one takes is one finding; none of its cases agrees.
            let text = format!("{error:#}\n{}", serde_norway::to_string(&world.setup)?);
            report.findings.push(text);
            return Ok(report);
        }
    };
    let suspects = burst::run(&mut pair, &steps, &compare).await?;
    report.tally.agreed = steps.len() - suspects.len();
    pair.set_patience(SILENCE);
    for (index, among_others) in suspects {
        let step = &steps[index];
        let probe = &world.probes[index];
        if let Some(key) = differences.explains(step, &among_others) {
            report.add(probe, &among_others, Some(key));
            continue;
        }
        // What has been found to differ by itself need not be proved again.
        let quick = signature(&among_others);
        if !quick.is_empty() && known.count_again(&quick) {
            report.add(probe, &among_others, None);
            continue;
        }
        let found = match pair.play(std::slice::from_ref(step), &compare).await {
            Ok(found) => found,
            Err(error) => {
                // One of them has ended.
                pair = Pair::start(&setup)?;
                pair.set_patience(SILENCE);
                vec![format!("      {error:#}")]
            }
        };
        if found.is_empty() {
            report.passing += 1;
            report.tally.agreed += 1;
            continue;
        }
        let key = differences.explains(step, &found);
        report.add(probe, &found, key);
        if key.is_some() {
            continue;
        }
        let signature = if quick.is_empty() {
            signature(&found)
        } else {
            quick
        };
        if known.is_new(&signature, shrink) {
            report
                .findings
                .push(shrink::smallest(&world, index, pair, &compare).await?);
            pair = Pair::start(&setup)?;
            pair.set_patience(SILENCE);
        }
    }
    Ok(report)
}

/// What differs, without what is peculiar to a case: the beginnings of the first two lines.
fn signature(found: &[String]) -> String {
    let differing = found
        .iter()
        .map(|line| line.trim())
        .filter(|line| line.starts_with("ours: ") || line.starts_with("Envoy: "));
    let parts: Vec<String> = differing
        .take(2)
        .map(|line| {
            let line: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
            let long = if line.contains(" location: ") { 30 } else { 60 };
            match line.split_once("path_normalization_failed") {
                Some((before, _)) => before.to_owned(),
                None => line.chars().take(long).collect(),
            }
        })
        .collect();
    parts.join(" | ")
}
