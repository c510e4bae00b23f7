//! YAML files: every kind that has a pod, and back again.

use std::path::Path;

use outrider_injector::config::ConfigError;
use outrider_injector::document::{Edited, NoteKind};
use outrider_injector::{Config, inject_document, uninject_document};
use serde::Deserialize as _;
use serde_json::Value;

fn config() -> Result<Config, ConfigError> {
    let text = "images: {sidecar: s, init: i}\ncontrolAddress: c.m.svc:15012\n";
    Config::from_yaml(text, Path::new("config"))
}

fn injected(yaml: &str) -> Result<Edited, String> {
    let config = config().map_err(|error| error.to_string())?;
    inject_document(yaml, "shop", None, &config).map_err(|error| error.to_string())
}

fn documents(yaml: &str) -> Result<Vec<Value>, serde_norway::Error> {
    serde_norway::Deserializer::from_str(yaml)
        .map(Value::deserialize)
        .filter(|document| !document.as_ref().is_ok_and(Value::is_null))
        .collect()
}

const MANY: &str = "\
# what we run
---
apiVersion: v1
kind: Service   # stays as it is, comments and all
metadata: {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: other}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: app, image: a, livenessProbe: {httpGet: {path: /, port: 80}}, env: [{name: N, value: '1'}]}
--- # the next
apiVersion: batch/v1
kind: CronJob
metadata: {name: tidy}
spec: {schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {containers: [{name: app}]}}}}}
---
apiVersion: v1
kind: List
items:
  - {apiVersion: v1, kind: Pod, metadata: {name: one, labels: {outrider.dev/inject: disabled}}, spec: {containers: []}}
  - {apiVersion: v1, kind: Pod, metadata: {generateName: two-}, spec: {containers: [{name: app}]}}
--- {apiVersion: example/v1, kind: Deployment, spec: {}}
";

#[test]
fn every_kind_is_injected_and_taken_back_and_others_stay_byte_for_byte() {
    let edited = injected(MANY).unwrap();
    let notes: Vec<String> = edited
        .notes
        .iter()
        .map(|note| format!("{}: {}", note.object, note.message))
        .collect();
    assert_eq!(
        notes,
        [
            "Deployment other/web: injected",
            "CronJob shop/tidy: injected",
            "Pod shop/one: it has the label outrider.dev/inject: disabled",
            "Pod shop/two-: injected",
        ]
    );
    assert!(edited.text.starts_with("# what we run\n---\n"));
    assert!(edited.text.contains("kind: Service   # stays as it is"));
    let after = documents(&edited.text).unwrap();
    let sidecar = |pod: &Value| pod["spec"]["initContainers"][1]["name"] == "outrider-sidecar";
    assert!(sidecar(&after[1]["spec"]["template"]));
    assert!(sidecar(
        &after[2]["spec"]["jobTemplate"]["spec"]["template"]
    ));
    assert!(sidecar(&after[3]["items"][1]));

    let again = injected(&edited.text).unwrap();
    assert_eq!(again.text, edited.text);
    assert!(again.notes.iter().all(|note| note.kind == NoteKind::Left));

    let back = uninject_document(&edited.text, "shop").unwrap();
    assert_eq!(documents(&back.text).unwrap(), documents(MANY).unwrap());
    assert_eq!(uninject_document(MANY, "shop").unwrap().text, MANY);
}

#[test]
fn what_cannot_be_read_or_run_is_named() {
    for (yaml, named) in [
        ("a: [", "document 1: "),
        ("---\nkind: X\n---\na: b\n", "document 2: it has no kind"),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
            "Deployment shop/x: it has no spec.template",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: x, annotations: {outrider.dev/concurrency: y}}\n\
             spec: {containers: [{name: a}]}\n",
            "Pod shop/x: annotation outrider.dev/concurrency",
        ),
    ] {
        let error = injected(yaml).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
    let status = "{\"added\":[\"/spec/containers/0\"]}";
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{annotations: {{outrider.dev/status: '{status}'}}}}\n"
    );
    let error = uninject_document(&pod, "shop").unwrap_err().to_string();
    assert!(error.contains("`/spec/containers/0`"), "{error}");
}
