//! The real Helm, and what it makes of the chart.

use std::path::PathBuf;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use outrider_testkit::cluster::Program;
use serde_json::Value;

/// The namespace of the releases that are rendered.
pub const NAMESPACE: &str = "mesh-system";

/// The chart's folder.
pub fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/outrider")
}

/// Runs Helm to its end.
pub fn helm(arguments: &[&str]) -> Result<Output> {
    let folder = tempfile::tempdir()?;
    Command::new(Program::Helm.path()?)
        .args(arguments)
        // The user's own settings and plugins are no part of this.
        .env("HELM_CONFIG_HOME", folder.path())
        .env("HELM_CACHE_HOME", folder.path())
        .env("HELM_DATA_HOME", folder.path())
        .current_dir(chart())
        .output()
        .context("start helm")
}

/// What a release of these `--set` values is made of.
///
/// # Errors
/// Helm refuses them, or writes what is no object; the error has its words.
pub fn render(values: &[&str]) -> Result<Objects> {
    let mut arguments = vec!["template", "release", ".", "--namespace", NAMESPACE];
    for value in values {
        arguments.extend(["--set", value]);
    }
    let output = helm(&arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{values:?}: {said}");
    let text = String::from_utf8(output.stdout)?;
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(&text) {
        let object: Value = serde::Deserialize::deserialize(document)
            .with_context(|| format!("{values:?}: not YAML"))?;
        // A document of comments alone.
        if object.is_null() {
            continue;
        }
        for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
            let is_there = object.pointer(pointer).is_some_and(Value::is_string);
            ensure!(is_there, "{values:?}: no {pointer} in {object}");
        }
        objects.push(object);
    }
    Ok(Objects(objects))
}

/// The objects of a release.
pub struct Objects(pub Vec<Value>);

impl Objects {
    /// All of a kind.
    pub fn of(&self, kind: &str) -> std::vec::IntoIter<&Value> {
        let objects = self.0.iter().filter(|object| object["kind"] == kind);
        objects.collect::<Vec<_>>().into_iter()
    }

    /// The one of this kind and name.
    pub fn one(&self, kind: &str, name: &str) -> &Value {
        let mut found = self
            .of(kind)
            .filter(|object| object["metadata"]["name"] == name);
        let first = found.next().unwrap_or_else(|| {
            let names = self.of(kind).map(|object| &object["metadata"]["name"]);
            panic!("no {kind} {name} among {:?}", names.collect::<Vec<_>>())
        });
        assert!(found.next().is_none(), "{kind} {name} twice");
        first
    }
}

/// The items of a list, which must be there.
pub fn items(list: &Value) -> &[Value] {
    list.as_array().unwrap_or_else(|| panic!("no list: {list}"))
}
