//! That the programs spoke mutual TLS: what they were told, what the sidecars count, and what
//! passed on the wire.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use outrider_testkit::Sniffer;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::mesh::Workload;
use serde_json::Value;

use super::stage::{PORT, Stage};
use super::wire;

/// What the browser asks for: it is in every request and answer of the two hops.
const SECRET: &str = "card-4111-1111-1111-1111";
/// How often the browser asks for it.
const TIMES: usize = 40;

/// Each pair of callers, with what the program that was called was told of the caller.
pub(super) fn identities(stage: &Stage) -> Result<()> {
    let mut client = stage.browse()?;
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    let mut versions = BTreeSet::new();
    let caller = stage.frontend.identity();
    for _ in 0..TIMES {
        let seen = stage.ask(&mut client, "/")?;
        ensure!(
            certificate(&seen).is_none(),
            "the frontend was told of a certificate by a browser without one"
        );
        let called = &seen["called"];
        let server = called["server"].as_str().context("no name in the answer")?;
        let told = certificate(called).with_context(|| format!("{server} was not told"))?;
        let workload = stage
            .reviews
            .iter()
            .find(|workload| workload.name == server)
            .with_context(|| format!("{server} is unknown"))?;
        ensure!(
            told.contains(&format!("URI={caller}")),
            "{server} was told {told}"
        );
        *calls
            .entry(format!("{caller}\n      -> {}", workload.identity()))
            .or_default() += 1;
    }
    println!("    the browser -> frontend: {TIMES} times in plaintext, as `web` permits it");
    for (call, times) in calls {
        println!("    {call}: {times} times, told by x-forwarded-client-cert");
    }
    for workload in &stage.reviews {
        let stats = workload.admin("/stats?filter=ssl.versions")?;
        for line in stats.lines().filter(|line| line.starts_with("listener.")) {
            if let Some((name, count)) = line.split_once(": ")
                && let Some((_, version)) = name.split_once("ssl.versions.")
                && count != "0"
            {
                println!(
                    "    the sidecar of {} counts {count} handshake(s) of {version}",
                    workload.name
                );
                versions.insert(version.to_owned());
            }
        }
    }
    ensure!(
        versions.iter().eq(["TLSv1.3"]),
        "the sidecars count these versions of TLS: {versions:?}"
    );
    Ok(())
}

fn certificate(seen: &Value) -> Option<&str> {
    let headers = seen["headers"].as_array()?;
    let name = Some("x-forwarded-client-cert");
    headers
        .iter()
        .find(|header| header[0].as_str() == name)?
        .get(1)?
        .as_str()
}

/// The recorders of the wires of both versions of `reviews`.
pub(super) struct Wires(Vec<Sniffer>);

impl Wires {
    /// Starts to record, before anything is spoken.
    pub(super) fn record(stage: &Stage) -> Result<Self> {
        let start = |workload: &Workload| Sniffer::start(&workload.pod);
        stage
            .reviews
            .iter()
            .map(start)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Has something secret asked for, looks for it on the wire, and shows what was there instead.
    pub(super) fn show(&self, stage: &Stage) -> Result<()> {
        let plain = Sniffer::start(&stage.browser)?;
        let mut client = stage.browse()?;
        for _ in 0..TIMES {
            let seen = stage.ask(&mut client, &format!("/?q={SECRET}"))?;
            let path = seen["called"]["path"].as_str().unwrap_or("");
            ensure!(path.contains(SECRET), "reviews was asked for {path:?}");
        }
        // The recorder sees plaintext where there is some.
        plain
            .wait_for(SECRET, Duration::from_secs(5))
            .context("between the browser and the frontend")?;
        println!("    browser <-> frontend: {SECRET:?} is there to read, for there is no sidecar");
        let mut bytes = 0;
        for sniffer in &self.0 {
            bytes += sniffer.bytes()?;
            ensure!(
                !sniffer.contains(SECRET)?,
                "{SECRET:?} was on the wire of reviews"
            );
        }
        ensure!(bytes > 0, "nothing passed between the frontend and reviews");
        println!("    the wires of reviews: {bytes} bytes passed, {SECRET:?} in none of them");
        for (workload, sniffer) in stage.reviews.iter().zip(&self.0) {
            // Version 2 may not have been called yet; version 1 was.
            let streams = sniffer.beginnings(4096)?;
            if let Some(lines) = wire::handshake(&streams, (workload.pod.v4(), PORT).into())? {
                println!("    a connection to {}, as it began:", workload.name);
                for line in lines {
                    println!("      {line}");
                }
                return Ok(());
            }
        }
        bail!("there was no handshake on the wire")
    }
}

/// Plaintext from outside never reaches the programs of a strict namespace.
pub(super) fn refusal(stage: &Stage) -> Result<()> {
    for workload in &stage.reviews {
        let mut client = Client::connect_from(&stage.browser, (workload.pod.v4(), PORT))?;
        match client.get("reviews", "/") {
            Ok(answer) => bail!("{} answered: {}", workload.name, answer.text()),
            Err(error) => println!(
                "    browser -> {} ({}:{PORT}): refused, as `books` is strict ({})",
                workload.name,
                workload.pod.v4(),
                error.root_cause()
            ),
        }
    }
    Ok(())
}
