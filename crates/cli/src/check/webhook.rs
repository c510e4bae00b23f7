//! The admission webhook.

use std::collections::BTreeMap;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod, PodSpec, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use outrider_injector::patch::SIDECAR;

use super::certificates;
use super::finding::{Finding, some};
use super::namespaces::is_injected;
use crate::cluster::{Cluster, INJECT, Installation, REVISION, describe};

const CHECK: &str = "webhook";
const PATCH: &str = "injection";
const OTHERS: &str = "other webhooks";

/// Before an installation: what else changes pods.
pub(super) async fn others(
    cluster: &Cluster,
    installation: &Installation,
    findings: &mut Vec<Finding>,
) {
    let all = match cluster.list_global::<MutatingWebhookConfiguration>().await {
        Ok(all) => all,
        Err(error) => return findings.push(Finding::unknown(OTHERS, &error)),
    };
    let names = all.iter().filter_map(|each| each.metadata.name.clone());
    let names: Vec<String> = names.collect();
    if names.contains(&installation.injector()) {
        findings.push(Finding::warning(
            OTHERS,
            format!(
                "{} is there: this revision is installed already",
                installation.injector()
            ),
            "look at it with outrider check --installed; upgrade it with helm upgrade, or install \
             another beside it with --set revision=NAME",
        ));
        return;
    }
    let injectors = ["istio", "linkerd", "kuma", "osm-", "consul"];
    let foreign: Vec<String> = names
        .into_iter()
        .filter(|name| injectors.iter().any(|mesh| name.contains(mesh)))
        .collect();
    findings.push(if foreign.is_empty() {
        Finding::pass(OTHERS, "none that injects sidecars")
    } else {
        Finding::warning(
            OTHERS,
            format!("another mesh injects sidecars: {}", some(&foreign)),
            "use each mesh in namespaces of its own",
        )
    });
}

/// The configuration, and whether its bundle verifies what the injector serves.
pub(super) async fn configuration(
    cluster: &Cluster,
    installation: &Installation,
    findings: &mut Vec<Finding>,
) {
    let name = installation.injector();
    let found = cluster
        .find_global::<MutatingWebhookConfiguration>(&name)
        .await;
    let configuration = match found {
        Ok(Some(configuration)) => configuration,
        Ok(None) => {
            return findings.push(Finding::failure(
                CHECK,
                format!("there is no MutatingWebhookConfiguration {name}, so no pod is injected"),
                "install or upgrade the chart (helm upgrade); name another installation with -n \
                 and --revision",
            ));
        }
        Err(error) => return findings.push(Finding::unknown(CHECK, &error)),
    };
    let secret = installation.injector_tls();
    let secret = match cluster
        .find::<Secret>(&installation.namespace, &secret)
        .await
    {
        Ok(secret) => secret,
        Err(error) => return findings.push(Finding::unknown(CHECK, &error)),
    };
    let served = secret.and_then(|secret| secret.data?.remove("tls.crt"));
    let served = served.map(|served| served.0).unwrap_or_default();
    let host = format!("{name}.{}.svc", installation.namespace);
    for webhook in configuration.webhooks.into_iter().flatten() {
        let bundle = webhook.client_config.ca_bundle.map(|bundle| bundle.0);
        let bundle = bundle.unwrap_or_default();
        let judged = certificates::serving(&bundle, &served, &host, std::time::SystemTime::now());
        findings.push(match judged {
            Ok(message) => Finding::pass(CHECK, format!("{}: {message}", webhook.name)),
            Err(reason) => Finding::failure(
                CHECK,
                format!("{}: {reason}", webhook.name),
                format!(
                    "the leader of the control plane keeps this right; see why it does not: \
                     kubectl logs -n {} deployment/{}",
                    installation.namespace,
                    installation.control()
                ),
            ),
        });
    }
}

/// Has the API server inject a pod that is not kept.
pub(super) async fn dry_run(
    cluster: &Cluster,
    installation: &Installation,
    namespaces: &[Namespace],
    findings: &mut Vec<Finding>,
) {
    let revision = &installation.revision;
    let injected = namespaces.iter().find(|each| is_injected(each, revision));
    let name = injected.and_then(|namespace| namespace.metadata.name.as_deref());
    // Where no namespace asks for sidecars, a pod can ask for itself.
    let namespace = name.unwrap_or("default");
    let mut labels = BTreeMap::from([(INJECT.to_owned(), "enabled".to_owned())]);
    if !revision.is_empty() {
        labels.insert(REVISION.to_owned(), revision.clone());
    }
    let pod = Pod {
        metadata: ObjectMeta {
            generate_name: Some("outrider-check-".to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "app".to_owned(),
                image: Some("outrider.dev/never-started:0".to_owned()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
        ..Pod::default()
    };
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), namespace);
    let logs = format!(
        "kubectl logs -n {} deployment/{}",
        installation.namespace,
        installation.injector()
    );
    findings.push(match pods.create(&parameters, &pod).await {
        Ok(pod) if has_sidecar(&pod) => Finding::pass(
            PATCH,
            format!("a pod in namespace {namespace} would get its sidecar"),
        ),
        Ok(_) => Finding::failure(
            PATCH,
            format!("a pod in namespace {namespace} would get no sidecar"),
            format!("the webhook was not asked, or refused; see {logs}"),
        ),
        // An injector's denial is a 403 as well, but has other words.
        Err(error) if describe(&error).contains("cannot create resource") => Finding::warning(
            PATCH,
            format!("not tried: {}", describe(&error)),
            "run this as somebody who may create pods (it is a dry run: none is made)",
        ),
        Err(error) => Finding::failure(
            PATCH,
            format!(
                "a pod in namespace {namespace} would be refused: {}",
                describe(&error)
            ),
            format!(
                "where this names the webhook, the API server does not reach it: see that its pods \
                 are ready, that no firewall between the API server and the nodes closes port \
                 15017, and {logs}"
            ),
        ),
    });
}

fn has_sidecar(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init)
    });
    containers.into_iter().any(|each| each.name == SIDECAR)
}
