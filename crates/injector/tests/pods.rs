//! Pods before and after: one file of `tests/pods` for each feature.
//!
//! A file is a list of cases: `about`; what differs from the standard `config`; the `server`'s
//! version and the level of `podSecurity`, if they matter; the `pod`; and what becomes of it:
//! the whole `result`, what it `contains` (objects by the keys that are named, lists of named things
//! by name, null for what must not be there), why it is `left`, or why it is `refused`.
//!
//! Whatever the feature, an injected pod is left alone when it comes again, and is what it was
//! before once it is uninjected.

use std::collections::BTreeMap;
use std::path::Path;

use outrider_injector::config::ServerVersion;
use outrider_injector::{Config, HookSecret, Left, Outcome, Surroundings, inject, uninject};
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    about: String,
    #[serde(default)]
    config: Map<String, Value>,
    server: Option<String>,
    pod_security: Option<String>,
    pod: Value,
    result: Option<Value>,
    contains: Option<Value>,
    left: Option<String>,
    refused: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[test]
fn every_case_of_every_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pods");
    let mut failures = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let cases: Vec<Case> =
            serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        for case in cases {
            count += 1;
            if let Err(failure) = case.check() {
                failures.push(format!("{name}: {}: {failure}", case.about));
            }
        }
    }
    assert!(count > 30, "{count} cases");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

impl Case {
    fn check(&self) -> Result<(), String> {
        let config = self.config()?;
        let server = self.server.as_ref().and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            ServerVersion::parse(major, minor)
        });
        let surroundings = Surroundings {
            server,
            pod_security: self.pod_security.as_deref(),
            hook_secret: HookSecret::from(0xabc),
        };
        let outcome = inject(&self.pod, surroundings, &config);
        let (operations, warnings) = match outcome {
            Outcome::Left(left) => return same(self.left.as_ref(), "left", &left.to_string()),
            Outcome::Refused(refusal) => {
                return same(self.refused.as_ref(), "refused", &refusal.to_string());
            }
            Outcome::Patch {
                operations,
                warnings,
            } => (operations, warnings),
        };
        let mut result = self.pod.clone();
        json_patch::patch(&mut result, &operations).map_err(|error| error.to_string())?;
        let mut differences = Vec::new();
        if let Some(expected) = &self.result {
            // Its text is checked by what it does when it is taken back.
            let mut shown = result.clone();
            let annotations = shown["metadata"]["annotations"].as_object_mut();
            annotations
                .ok_or("it has no annotations")?
                .remove("outrider.dev/status")
                .ok_or("it has no status")?;
            compare(expected, &shown, "", true, &mut differences);
        } else if let Some(expected) = &self.contains {
            compare(expected, &result, "", false, &mut differences);
        } else {
            return Err("it was injected".to_owned());
        }
        if warnings.len() != self.warnings.len()
            || !warnings
                .iter()
                .zip(&self.warnings)
                .all(|(w, e)| w.contains(e))
        {
            differences.push(format!("warnings: {warnings:?}"));
        }
        let later = Surroundings {
            hook_secret: HookSecret::from(0xdef),
            ..surroundings
        };
        match inject(&result, later, &config) {
            Outcome::Left(Left::AlreadyInjected) => {}
            again => differences.push(format!("when it comes again: {again:?}")),
        }
        // A second call for a pod that had a sidecar is not what is taken back.
        let fresh = self
            .pod
            .pointer("/metadata/annotations/outrider.dev~1status");
        match uninject(&result) {
            Ok(Some(before)) if fresh.is_some() || before == self.pod => {}
            before => differences.push(format!("taken back: {before:?}")),
        }
        match differences.is_empty() {
            true => Ok(()),
            false => Err(differences.join("\n    ")),
        }
    }

    fn config(&self) -> Result<Config, String> {
        let standard = "images: {sidecar: 'example/sidecar:1', init: 'example/init:1'}\n\
                        controlAddress: outrider-control.outrider-system.svc:15012\n";
        let mut fields: BTreeMap<String, Value> =
            serde_norway::from_str(standard).map_err(|error| error.to_string())?;
        fields.extend(self.config.clone());
        let text = serde_norway::to_string(&fields).map_err(|error| error.to_string())?;
        Config::from_yaml(&text, Path::new("config")).map_err(|error| error.to_string())
    }
}

fn same(expected: Option<&String>, what: &str, reason: &str) -> Result<(), String> {
    match expected {
        Some(expected) if reason.contains(expected.as_str()) => Ok(()),
        _ => Err(format!("it was {what}: {reason}")),
    }
}

fn compare(expected: &Value, actual: &Value, at: &str, exactly: bool, out: &mut Vec<String>) {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, expected) in expected {
                let actual = actual.get(key).unwrap_or(&Value::Null);
                compare(expected, actual, &format!("{at}.{key}"), exactly, out);
            }
            for key in actual
                .keys()
                .filter(|key| exactly && !expected.contains_key(*key))
            {
                out.push(format!("{at}.{key} is there"));
            }
        }
        (Value::Array(expected), Value::Array(actual)) => {
            let named = expected.iter().all(|item| item.get("name").is_some());
            if named && !exactly {
                for expected in expected {
                    let name = &expected["name"];
                    let found = actual.iter().find(|item| item["name"] == *name);
                    match found {
                        Some(found) => {
                            compare(expected, found, &format!("{at}[{name}]"), false, out)
                        }
                        None => out.push(format!("{at} has no {name}")),
                    }
                }
            } else if expected.len() == actual.len() {
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    compare(expected, actual, &format!("{at}[{index}]"), exactly, out);
                }
            } else {
                out.push(format!(
                    "{at}: {} items, not {}",
                    actual.len(),
                    expected.len()
                ));
            }
        }
        _ if expected == actual => {}
        _ => out.push(format!("{at}: {actual}, not {expected}")),
    }
}
