//! Makes a case that differs as small as it can be while it differs in the same way.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::{SILENCE, World};
use crate::conform::file::{Compare, Setup, Step};
use crate::conform::play::Pair;

/// How long one may take.
const TIME: Duration = Duration::from_secs(25);

/// The case of one probe as a file of cases, as small as the time allows.
///
/// # Errors
/// When the case cannot be run any more.
pub(super) async fn smallest(
    world: &World,
    index: usize,
    mut pair: Pair,
    compare: &Compare,
) -> Result<String> {
    let deadline = Instant::now() + TIME;
    let mut probe = world.probes[index].clone();
    // The bytes first: that needs no other proxies.
    let mut again = true;
    while again && Instant::now() < deadline {
        again = false;
        for candidate in smaller_probes(&probe) {
            if Instant::now() >= deadline {
                break;
            }
            if differs(&mut pair, &candidate, compare).await {
                probe = candidate;
                again = true;
                break;
            }
        }
    }
    drop(pair);
    let mut setup = world.setup.clone();
    let mut again = true;
    while again && Instant::now() < deadline {
        again = false;
        for path in removable(&setup) {
            if Instant::now() >= deadline {
                break;
            }
            let mut candidate = setup.clone();
            remove(&mut candidate, &path);
            let Ok(parsed) = serde_json::from_value::<Setup>(candidate.clone()) else {
                continue;
            };
            let Ok(mut pair) = Pair::start(&parsed) else {
                continue;
            };
            pair.set_patience(SILENCE);
            if differs(&mut pair, &probe, compare).await {
                setup = candidate;
                again = true;
                break;
            }
        }
    }
    let parsed: Setup = serde_json::from_value(setup.clone())?;
    let mut pair = Pair::start(&parsed)?;
    pair.set_patience(SILENCE);
    let step: Step = serde_json::from_value(probe.clone())?;
    let found = pair.play(std::slice::from_ref(&step), compare).await;
    let found = found.unwrap_or_else(|error| vec![format!("      {error:#}")]);
    let mut file = json!({ "about": format!("Generated: {}", world.area) });
    if let (Some(file), Some(setup)) = (file.as_object_mut(), setup.as_object()) {
        file.extend(setup.clone());
        file.insert("steps".to_owned(), json!([probe]));
        if world.compare != json!({}) {
            file.insert("compare".to_owned(), world.compare.clone());
        }
    }
    Ok(format!(
        "{}\n--- the case\n{}---",
        found.join("\n"),
        serde_norway::to_string(&file)?
    ))
}

async fn differs(pair: &mut Pair, probe: &Value, compare: &Compare) -> bool {
    let Ok(step) = serde_json::from_value::<Step>(probe.clone()) else {
        return false;
    };
    let found = pair.play(std::slice::from_ref(&step), compare).await;
    found.is_ok_and(|found| !found.is_empty())
}

/// The probe with a little less each.
fn smaller_probes(probe: &Value) -> Vec<Value> {
    let mut smaller = Vec::new();
    if let Some(headers) = probe["headers"].as_array() {
        for index in 0..headers.len() {
            let header = headers[index].as_str().unwrap_or_default();
            if header == "connection: close" {
                continue;
            }
            let mut less = headers.clone();
            less.remove(index);
            let mut candidate = probe.clone();
            candidate["headers"] = json!(less);
            smaller.push(candidate);
        }
    }
    if probe.get("body").is_some() {
        let mut candidate = probe.clone();
        candidate.as_object_mut().map(|step| step.remove("body"));
        smaller.push(candidate);
    }
    if let Some(raw) = probe["raw"].as_str() {
        let lines: Vec<&str> = raw.split_inclusive('\n').collect();
        for index in 0..lines.len() {
            let mut less = lines.clone();
            less.remove(index);
            let mut candidate = probe.clone();
            candidate["raw"] = json!(less.concat());
            smaller.push(candidate);
        }
    }
    smaller
}

/// Paths of what a configuration may do without: items of lists, and fields.
fn removable(setup: &Value) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    collect(&setup["http"], &mut vec!["http".to_owned()], &mut paths);
    collect(&setup["config"], &mut vec!["config".to_owned()], &mut paths);
    // The large parts first.
    paths.sort_by_key(Vec::len);
    paths
}

fn collect(value: &Value, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    const NEEDED: [&str; 9] = [
        "route_config",
        "virtual_hosts",
        "domains",
        "match",
        "name",
        "@type",
        "access_log",
        "address",
        "filters",
    ];
    let mut visit = |key: String, item: &Value, keep: bool, paths: &mut Vec<Vec<String>>| {
        path.push(key);
        if !keep {
            paths.push(path.clone());
        }
        collect(item, path, paths);
        path.pop();
    };
    match value {
        Value::Object(map) => {
            for (key, item) in map.iter().filter(|(key, _)| *key != "access_log") {
                visit(key.clone(), item, NEEDED.contains(&key.as_str()), paths);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate().rev() {
                visit(index.to_string(), item, false, paths);
            }
        }
        _ => {}
    }
}

fn remove(value: &mut Value, path: &[String]) {
    match (path, value) {
        ([last], Value::Object(map)) => {
            map.remove(last);
        }
        ([last], Value::Array(items)) => {
            if let Ok(index) = last.parse::<usize>() {
                items.remove(index);
            }
        }
        ([first, rest @ ..], Value::Object(map)) => {
            if let Some(item) = map.get_mut(first) {
                remove(item, rest);
            }
        }
        ([first, rest @ ..], Value::Array(items)) => {
            if let Some(item) = first
                .parse::<usize>()
                .ok()
                .and_then(|index| items.get_mut(index))
            {
                remove(item, rest);
            }
        }
        _ => {}
    }
}
