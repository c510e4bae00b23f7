//! The objects of a release: what they are named, what they may do, and that they fit together.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::helm::{NAMESPACE, Objects, items, render};

/// Kinds that are in no namespace.
const CLUSTER_KINDS: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
];
/// What all revisions share, beside the definitions.
const SHARED_SECRET: &str = "outrider-ca";

fn names(objects: &Objects) -> BTreeSet<String> {
    let key = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        format!(
            "{}/{}",
            text(&object["kind"]),
            text(&object["metadata"]["name"])
        )
    };
    let keys: Vec<String> = objects.0.iter().map(key).collect();
    let unique: BTreeSet<String> = keys.iter().cloned().collect();
    assert_eq!(unique.len(), keys.len(), "an object twice: {keys:?}");
    unique
}

#[test]
fn a_revision_has_objects_of_its_own_beside_the_default_ones_and_nothing_that_is_shared() {
    let default = render(&[]).unwrap();
    let revision = render(&["revision=blue"]).unwrap();
    let (default_names, revision_names) = (names(&default), names(&revision));
    assert!(default_names.is_disjoint(&revision_names));
    assert!(default_names.contains(&format!("Secret/{SHARED_SECRET}")));
    for name in &default_names {
        let is_shared = name == &format!("Secret/{SHARED_SECRET}")
            || name.starts_with("CustomResourceDefinition/");
        let counterpart = format!("{name}-blue");
        assert_eq!(revision_names.contains(&counterpart), !is_shared, "{name}");
    }
    // Both may be made to share or not.
    let kept = names(&render(&["revision=blue", "shared.create=true"]).unwrap());
    assert!(kept.contains(&format!("Secret/{SHARED_SECRET}")));
    let left = names(&render(&["shared.create=false"]).unwrap());
    assert!(!left.contains(&format!("Secret/{SHARED_SECRET}")));
}

#[test]
fn every_object_is_in_the_releases_namespace_and_says_what_it_is_part_of() {
    for object in &render(&["mutualTLS.mode=STRICT"]).unwrap().0 {
        let kind = object["kind"].as_str().unwrap();
        if kind == "CustomResourceDefinition" {
            continue;
        }
        let metadata = &object["metadata"];
        if !CLUSTER_KINDS.contains(&kind) {
            assert_eq!(metadata["namespace"], NAMESPACE, "{kind}");
        }
        let labels = &metadata["labels"];
        assert_eq!(labels["app.kubernetes.io/part-of"], "outrider", "{kind}");
    }
}

#[test]
fn a_given_authority_is_read_and_neither_made_nor_written() {
    let objects = render(&["ca.existingSecret=corporate"]).unwrap();
    assert!(!names(&objects).contains(&format!("Secret/{SHARED_SECRET}")));
    assert!(arguments(&objects, "outrider-control").contains(&"--ca-secret=corporate".to_owned()));
    let role = objects.one("Role", "outrider-control");
    let rule = items(&role["rules"])
        .iter()
        .find(|rule| rule["resourceNames"] == serde_json::json!(["corporate"]))
        .unwrap();
    assert_eq!(rule["verbs"], serde_json::json!(["get", "list", "watch"]));
}

#[test]
fn what_the_control_plane_fills_is_rendered_without_data() {
    for secret in render(&[]).unwrap().of("Secret") {
        assert!(secret.get("data").is_none() && secret.get("stringData").is_none());
    }
}

fn pod(objects: &Objects, name: &str) -> Value {
    objects.one("Deployment", name)["spec"]["template"]["spec"].clone()
}

fn arguments(objects: &Objects, name: &str) -> Vec<String> {
    let pod = pod(objects, name);
    let arguments = items(&pod["containers"][0]["args"]);
    arguments
        .iter()
        .map(|argument| argument.as_str().unwrap().to_owned())
        .collect()
}

/// By a flag, which a rollback carries with the pods: an object of the release would come and go.
#[test]
fn the_mode_of_the_mesh_is_told_to_the_control_plane() {
    for (values, mode) in [
        (&[][..], "PERMISSIVE"),
        (&["mutualTLS.mode=STRICT"][..], "STRICT"),
    ] {
        let objects = render(values).unwrap();
        let flag = format!("--mutual-tls={mode}");
        assert!(arguments(&objects, "outrider-control").contains(&flag));
        assert_eq!(objects.of("PeerAuthentication").count(), 0);
    }
}

#[test]
fn every_pod_of_ours_is_held_to_the_restricted_standard() {
    let objects = render(&[]).unwrap();
    let mut specs: Vec<Value> = objects.of("Pod").map(|pod| pod["spec"].clone()).collect();
    assert_eq!(specs.len(), 1, "the one of helm test");
    specs.extend(["outrider-control", "outrider-injector"].map(|name| pod(&objects, name)));
    for spec in specs {
        let pod = &spec["securityContext"];
        assert_eq!(pod["runAsNonRoot"], true);
        assert_eq!(pod["runAsUser"], 65532);
        assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault");
        for container in items(&spec["containers"]) {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
            assert!(container["resources"]["requests"]["memory"].is_string());
        }
    }
}

#[test]
fn no_role_has_more_than_it_needs() {
    let objects = render(&[]).unwrap();
    for kind in ["ClusterRole", "Role"] {
        for role in objects.of(kind) {
            for rule in items(&role["rules"]) {
                let words = ["apiGroups", "resources", "verbs"].map(|field| items(&rule[field]));
                assert!(!words.concat().contains(&Value::from("*")), "{rule}");
                let is_secret = words[1].contains(&Value::from("secrets"));
                assert!(!is_secret || rule.get("resourceNames").is_some(), "{rule}");
                assert!(
                    !is_secret || kind == "Role",
                    "a Secret of any namespace: {rule}"
                );
                assert!(!words[2].contains(&Value::from("delete")), "{rule}");
                let makes_pods = words[1].contains(&Value::from("pods"))
                    && words[2].contains(&Value::from("create"));
                assert!(!makes_pods, "a pod may be of any account: {rule}");
            }
        }
    }
}

#[test]
fn both_components_are_two_pods_that_go_one_at_a_time_and_are_reached_by_their_ports() {
    let objects = render(&[]).unwrap();
    for (name, port) in [("outrider-control", 15012), ("outrider-injector", 15017)] {
        let deployment = objects.one("Deployment", name);
        assert_eq!(deployment["spec"]["replicas"], 2);
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let selectors = [
            &deployment["spec"]["selector"]["matchLabels"],
            &objects.one("Service", name)["spec"]["selector"],
            &objects.one("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
            &objects.one("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"],
        ];
        for selector in selectors {
            for (key, value) in selector.as_object().unwrap() {
                assert_eq!(&labels[key], value, "{name}");
            }
        }
        let policy = objects.one("NetworkPolicy", name);
        assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], port);
        let container = &pod(&objects, name)["containers"][0];
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "monitoring", "{name}");
        }
    }
    // A budget of one pod would let no node be drained.
    let single = render(&["control.replicas=1", "networkPolicy.create=false"]).unwrap();
    assert_eq!(single.of("PodDisruptionBudget").count(), 1);
    assert_eq!(single.of("NetworkPolicy").count(), 0);
}

#[test]
fn sidecars_and_the_control_plane_hear_the_same_of_where_and_who_they_are() {
    let values = [
        "revision=blue",
        "trustDomain=a.example",
        "clusterDomain=b.example",
    ];
    let objects = render(&values).unwrap();
    let arguments = arguments(&objects, "outrider-control-blue");
    let host = format!("outrider-control-blue.{NAMESPACE}.svc");
    for argument in [
        "--kubernetes".to_owned(),
        "--revision=blue".to_owned(),
        "--webhook=outrider-injector-blue".to_owned(),
        format!("--serving-name={host},{host}.b.example"),
        format!("--root-namespace={NAMESPACE}"),
        "--trust-domain=a.example".to_owned(),
        "--cluster-domain=b.example".to_owned(),
    ] {
        assert!(arguments.contains(&argument), "{argument}: {arguments:?}");
    }
    let config = objects.one("ConfigMap", "outrider-injector-blue");
    let config = config["data"]["config.yaml"].as_str().unwrap();
    let config: Value = serde_norway::from_str(config).unwrap();
    assert_eq!(config["controlAddress"], format!("{host}:15012"));
    assert_eq!(config["trustDomain"], "a.example");
    assert_eq!(config["clusterDomain"], "b.example");
}

#[test]
fn the_charts_version_and_its_images_are_the_workspaces() {
    let objects = render(&[]).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    let image = |name: &str| format!("ghcr.io/outrider/outrider-{name}:{version}");
    for name in ["control", "injector"] {
        let pod = pod(&objects, &format!("outrider-{name}"));
        assert_eq!(pod["containers"][0]["image"], image(name));
    }
    let check = objects.of("Pod").next().unwrap();
    assert_eq!(check["spec"]["containers"][0]["image"], image("cli"));
    let config = objects.one("ConfigMap", "outrider-injector");
    let config = config["data"]["config.yaml"].as_str().unwrap();
    assert!(config.contains(&image("sidecar")) && config.contains(&image("init")));
    let label = &check["metadata"]["labels"]["helm.sh/chart"];
    assert_eq!(label, &format!("outrider-{version}"));
}

/// The arguments of every container of ours, by its program.
fn all_arguments(objects: &Objects) -> Vec<(&'static str, Vec<String>)> {
    let check = objects.of("Pod").next().unwrap();
    let mut all = vec![("outrider", check["spec"].clone())];
    for deployment in objects.of("Deployment") {
        let name = deployment["metadata"]["name"].as_str().unwrap();
        let program = match name.starts_with("outrider-control") {
            true => "outrider-control",
            false => "outrider-injector",
        };
        all.push((program, deployment["spec"]["template"]["spec"].clone()));
    }
    let text = |argument: &Value| argument.as_str().unwrap().to_owned();
    all.into_iter()
        .map(|(program, spec)| {
            let arguments = items(&spec["containers"][0]["args"]);
            (program, arguments.iter().map(text).collect())
        })
        .collect()
}

const MANY: &[&str] = &[
    "revision=blue",
    "ca.existingSecret=corporate",
    "ca.certificateLifetime=1h30m",
    "ca.rootPropagation=5m",
    "control.logLevel=info\\,outrider_control=debug",
    "image.pullPolicy=Never",
    "image.pullSecrets={key}",
    "sidecar.accessLog=true",
    "sidecar.native=false",
    "sidecar.concurrency=3",
    "sidecar.drainSeconds=40",
    "sidecar.logLevel=debug",
    "sidecar.resources.limits.cpu=2",
    "sidecar.capture.includeCidrs=*",
    "sidecar.capture.excludeInboundPorts=22\\,9000",
];

#[test]
fn the_programs_know_the_flags_that_they_are_given() {
    for values in [&[][..], MANY] {
        let objects = render(values).unwrap();
        let all = all_arguments(&objects);
        assert_eq!(all.len(), 3);
        for (program, arguments) in all {
            let path = outrider_testkit::bins::path(program).unwrap();
            // Help is given once all that comes before it was understood.
            let output = std::process::Command::new(path)
                .args(&arguments)
                .arg("--help")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{program} {arguments:?}: {said}");
        }
    }
}

#[test]
fn the_injector_takes_its_configuration() {
    for (values, suffix) in [(&[][..], ""), (MANY, "-blue")] {
        let objects = render(values).unwrap();
        let name = format!("outrider-injector{suffix}");
        let text = &objects.one("ConfigMap", &name)["data"]["config.yaml"];
        let text = text.as_str().unwrap();
        let config = outrider_injector::Config::from_yaml(text, name.as_ref()).unwrap();
        assert_eq!(config.concurrency, (!suffix.is_empty()).then_some(3));
        assert_eq!(config.capture.len(), if suffix.is_empty() { 0 } else { 2 });
    }
}

/// `outrider inject` without a cluster does what the webhook of an untouched installation does.
#[test]
fn the_command_has_the_charts_values_built_in() {
    let objects = render(&[]).unwrap();
    let config = objects.one("ConfigMap", "outrider-injector");
    let config = config["data"]["config.yaml"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (config_file, pod_file) = (folder.path().join("config"), folder.path().join("pod"));
    std::fs::write(&config_file, config).unwrap();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: a}]}}";
    std::fs::write(&pod_file, pod).unwrap();
    let inject = |arguments: &[&str]| {
        let outrider = outrider_testkit::bins::path("outrider").unwrap();
        let mut command = std::process::Command::new(outrider);
        command.args(["inject", "--filename", pod_file.to_str().unwrap()]);
        let output = command.args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let by_values = inject(&["--system-namespace", NAMESPACE]);
    assert!(by_values.contains("outrider-sidecar"), "{by_values}");
    assert_eq!(
        by_values,
        inject(&["--config", config_file.to_str().unwrap()])
    );
}
