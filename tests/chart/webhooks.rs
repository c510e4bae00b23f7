//! Which pods each release's webhooks are asked about: the selectors as the API server applies
//! them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::helm::{NAMESPACE, items, render};

type Labels = BTreeMap<String, String>;

/// `LabelSelectorRequirement` (Kubernetes' apimachinery, `labels.Requirement.Matches`).
fn holds(requirement: &Value, labels: &Labels) -> bool {
    let key = requirement["key"].as_str().unwrap();
    let value = labels.get(key);
    let is_listed = || {
        value.is_some_and(|value| {
            items(&requirement["values"])
                .iter()
                .any(|listed| listed == value)
        })
    };
    match requirement["operator"].as_str().unwrap() {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        other => panic!("operator {other}"),
    }
}

fn selects(selector: &Value, labels: &Labels) -> bool {
    let mut requirements = items(&selector["matchExpressions"]).iter();
    requirements.all(|requirement| holds(requirement, labels))
}

/// `name inject=enabled rev=canary`; a namespace has its name as a label.
fn labels(text: &str, is_namespace: bool) -> Labels {
    let mut labels = Labels::new();
    for word in text.split_whitespace() {
        match word.split_once('=') {
            Some((key, value)) => labels.insert(format!("outrider.dev/{key}"), value.to_owned()),
            None if is_namespace => {
                labels.insert("kubernetes.io/metadata.name".to_owned(), word.to_owned())
            }
            None => panic!("{word}"),
        };
    }
    labels
}

#[test]
fn each_pod_is_asked_of_the_injector_that_its_labels_or_else_its_namespaces_choose() {
    let values: [(&str, &[&str]); 2] = [
        ("default", &["injector.excludedNamespaces={legacy}"]),
        ("canary", &["revision=canary"]),
    ];
    let releases = values.map(|(name, values)| (name, render(values).unwrap()));
    for (namespace, pod, expected) in [
        ("shop", "", ""),
        ("shop inject=enabled", "", "default"),
        ("shop inject=enabled", "inject=disabled", ""),
        ("shop inject=enabled", "inject=enabled", "default"),
        ("shop inject=disabled", "", ""),
        ("shop inject=disabled", "inject=enabled", "default"),
        ("shop", "inject=enabled", "default"),
        // A revision of the namespace, of the pod, of both.
        ("shop inject=enabled rev=canary", "", "canary"),
        ("shop inject=enabled rev=canary", "inject=disabled", ""),
        ("shop rev=canary", "inject=enabled", "canary"),
        ("shop rev=canary", "", ""),
        ("shop inject=enabled", "rev=canary", "canary"),
        ("shop", "inject=enabled rev=canary", "canary"),
        ("shop inject=enabled rev=blue", "rev=canary", "canary"),
        // One that no release has is nobody's, and not the default's.
        ("shop inject=enabled rev=blue", "", ""),
        ("shop inject=enabled rev=canary", "rev=blue", ""),
        // Never, whatever the labels say: an outage would keep the cluster from healing.
        ("kube-system inject=enabled", "inject=enabled", ""),
        ("kube-node-lease inject=enabled rev=canary", "", ""),
        (&format!("{NAMESPACE} inject=enabled"), "", ""),
        ("legacy inject=enabled", "", ""),
    ] {
        let (namespace_labels, pod_labels) = (labels(namespace, true), labels(pod, false));
        let mut asked = Vec::new();
        for (name, objects) in &releases {
            for configuration in objects.of("MutatingWebhookConfiguration") {
                let matching = items(&configuration["webhooks"]).iter().filter(|webhook| {
                    selects(&webhook["namespaceSelector"], &namespace_labels)
                        && selects(&webhook["objectSelector"], &pod_labels)
                });
                asked.extend(matching.map(|_| *name));
            }
        }
        let expected: Vec<&str> = expected.split_whitespace().collect();
        assert_eq!(asked, expected, "namespace `{namespace}`, pod `{pod}`");
    }
}

#[test]
fn a_webhook_fails_closed_and_is_named_as_the_control_plane_finds_it() {
    for (values, suffix, count) in [(&[][..], "", 2), (&["revision=blue"], "-blue", 4)] {
        let objects = render(values).unwrap();
        let name = format!("outrider-injector{suffix}");
        let configuration = objects.one("MutatingWebhookConfiguration", &name);
        let webhooks = items(&configuration["webhooks"]);
        assert_eq!(webhooks.len(), count);
        for webhook in webhooks {
            assert_eq!(webhook["failurePolicy"], "Fail");
            assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
            let service = &webhook["clientConfig"]["service"];
            let port = &objects.one("Service", &name)["spec"]["ports"][0]["port"];
            assert_eq!(service["name"], name.as_str());
            assert_eq!(&service["port"], port);
            // It would be taken away by each upgrade.
            assert!(webhook["clientConfig"].get("caBundle").is_none());
        }
    }
}
