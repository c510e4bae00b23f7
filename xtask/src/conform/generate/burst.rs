//! Many connections at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::conform::compare::{comparable, difference};
use crate::conform::file::{Compare, Step};
use crate::conform::play::Pair;
use crate::conform::side::Side;

/// How many are open at a time.
const LANES: usize = 16;
/// How long a connection may say nothing: what takes longer is looked at by itself.
const SILENCE: Duration = Duration::from_millis(400);
/// How many requests whose lines in the log nobody can tell apart are looked at by themselves.
const MOST_ANONYMOUS: usize = 40;

/// A step of which the two sides tell different things, and these.
pub(super) type Suspect = (usize, Vec<String>);

/// Does all steps on both; those of which the two sides tell different things.
///
/// # Errors
/// When a step cannot be done at all.
pub(super) async fn run(
    pair: &mut Pair,
    steps: &[Step],
    compare: &Compare,
) -> Result<Vec<Suspect>> {
    pair.set_patience(SILENCE);
    let lanes = (0..LANES).map(|lane| {
        let pair = &*pair;
        async move {
            let mut told = Vec::new();
            for (index, step) in steps.iter().enumerate().skip(lane).step_by(LANES) {
                let (ours, envoy) = tokio::join!(pair.ours.probe(step), pair.envoy.probe(step));
                told.push((index, ours?, envoy?));
            }
            anyhow::Ok(told)
        }
    });
    let mut differ: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut told: BTreeMap<usize, (Vec<String>, Vec<String>)> = BTreeMap::new();
    for lane in join_all(lanes).await {
        told.extend(
            lane?
                .into_iter()
                .map(|(index, ours, envoy)| (index, (ours, envoy))),
        );
    }
    let (ours, envoy) = logs(pair).await?;
    let none = Vec::new();
    for (index, (mine, theirs)) in &told {
        let key = index.to_string();
        let mut mine = comparable(mine, &pair.ours.names, compare);
        let mut theirs = comparable(theirs, &pair.envoy.names, compare);
        mine.extend(ours.get(&key).unwrap_or(&none).clone());
        theirs.extend(envoy.get(&key).unwrap_or(&none).clone());
        if mine != theirs {
            differ.insert(*index, difference(&mine, &theirs));
        }
    }
    if ours.get("-") != envoy.get("-") {
        let silent = told
            .keys()
            .filter(|index| !envoy.contains_key(&index.to_string()));
        for index in silent.take(MOST_ANONYMOUS) {
            differ.entry(*index).or_default();
        }
    }
    Ok(differ.into_iter().collect())
}

/// The lines of an access log by their first word, sorted.
type Logs = BTreeMap<String, Vec<String>>;

/// The logs of both, when both have written what they have.
async fn logs(pair: &mut Pair) -> Result<(Logs, Logs)> {
    let began = Instant::now();
    let mut last = (0, 0);
    let mut since = began;
    loop {
        let lengths = (pair.ours.log_length(), pair.envoy.log_length());
        if lengths != last {
            (last, since) = (lengths, Instant::now());
        }
        let quiet = since.elapsed();
        let enough = if lengths.0 == lengths.1 { 60 } else { 500 };
        if quiet >= Duration::from_millis(enough) || began.elapsed() > Duration::from_secs(5) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let sorted = |side: &mut Side| -> Result<Logs> {
        let mut logs = Logs::new();
        for line in side.rest(None, true)? {
            if let Some(line) = line.strip_prefix("log: ") {
                let key = line.split(' ').next().unwrap_or_default();
                logs.entry(key.to_owned())
                    .or_default()
                    .push(format!("log: {}", side.names.neutral(line)));
            }
        }
        logs.values_mut().for_each(|lines| lines.sort());
        Ok(logs)
    };
    Ok((sorted(&mut pair.ours)?, sorted(&mut pair.envoy)?))
}
