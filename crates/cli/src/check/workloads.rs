//! What runs: the installation's deployments, and the pods of the mesh.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Namespace, Pod};

use super::finding::{Finding, some};
use super::namespaces::is_injected;
use crate::cluster::{Cluster, INJECT};
use crate::survey::{NOT_CONNECTED, SidecarPod, Survey};
use crate::version::OWN;

const REPLICAS: &str = "control plane";
const PROXIES: &str = "proxies";
const REFUSED: &str = "configuration";
const VERSIONS: &str = "versions";
const BARE: &str = "pods without a sidecar";

/// One deployment of the installation.
pub(super) async fn deployment(
    cluster: &Cluster,
    namespace: &str,
    check: &'static str,
    name: &str,
    findings: &mut Vec<Finding>,
) -> Option<Container> {
    match cluster.find::<Deployment>(namespace, name).await {
        Ok(Some(deployment)) => {
            findings.push(readiness(check, &deployment));
            let template = deployment.spec?.template.spec?;
            template.containers.into_iter().next()
        }
        Ok(None) => {
            findings.push(Finding::failure(
                check,
                format!("there is no Deployment {namespace}/{name}"),
                "install the chart, or name the namespace and revision of the installation with \
                 -n and --revision",
            ));
            None
        }
        Err(error) => {
            findings.push(Finding::unknown(check, &error));
            None
        }
    }
}

fn readiness(check: &'static str, deployment: &Deployment) -> Finding {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = deployment.status.as_ref();
    let ready = status.and_then(|status| status.ready_replicas).unwrap_or(0);
    let updated = status
        .and_then(|status| status.updated_replicas)
        .unwrap_or(0);
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    let fix = format!(
        "see why: kubectl describe deployment -n {namespace} {name}; kubectl logs -n {namespace} \
         deployment/{name}"
    );
    if ready == 0 {
        Finding::failure(
            check,
            format!("none of {wanted} replicas of {name} is ready"),
            fix,
        )
    } else if ready < wanted {
        let message = format!("{ready} of {wanted} replicas of {name} are ready");
        Finding::warning(check, message, fix)
    } else if updated < wanted {
        let message = format!("{name} is being rolled out: {updated} of {wanted} replicas are new");
        Finding::warning(check, message, "wait for it, or see why it does not go on")
    } else {
        Finding::pass(
            check,
            format!("{ready} of {wanted} replicas of {name} are ready"),
        )
    }
}

/// The replicas' own answers, and every proxy's connection and configuration.
pub(super) fn proxies(survey: &Survey, revision: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut deaf = false;
    for replica in &survey.control_plane {
        let Some(error) = &replica.error else {
            continue;
        };
        deaf = true;
        let message = format!("{} does not tell of its proxies: {error}", replica.name);
        findings.push(if replica.forbidden {
            let fix = "run this as somebody who may create and get pods/portforward there";
            Finding::warning(REPLICAS, message, fix)
        } else {
            let fix = "see its log; a proxy that is connected to it cannot be told from one that \
                       is not connected";
            Finding::failure(REPLICAS, message, fix)
        });
    }
    let own = survey
        .proxies
        .iter()
        .filter(|proxy| proxy.revision == revision);
    let (mut lost, mut young, mut refused, mut count) = (vec![], vec![], vec![], 0);
    for proxy in own {
        count += 1;
        let name = format!("{}.{}", proxy.name, proxy.namespace);
        match proxy.not_connected.as_deref() {
            None => {}
            Some(NOT_CONNECTED) => lost.push(name.clone()),
            Some(_) => young.push(name.clone()),
        }
        let kinds = proxy.kinds.iter().filter(|kind| kind.refusal.is_some());
        refused.extend(kinds.map(|kind| format!("{name} ({})", kind.kind)));
    }
    findings.push(if deaf && !lost.is_empty() {
        Finding::warning(
            PROXIES,
            format!("{} of {count} may be connected or not", lost.len()),
            "not every replica of the control plane told of its own",
        )
    } else if !lost.is_empty() {
        Finding::failure(
            PROXIES,
            format!(
                "{} of {count} are not connected: {}",
                lost.len(),
                some(&lost)
            ),
            "they go on with their last configuration; the log says why: kubectl logs -n NAMESPACE \
             POD -c outrider-sidecar",
        )
    } else if !young.is_empty() {
        Finding::warning(
            PROXIES,
            format!(
                "{} of {count} do not run yet: {}",
                young.len(),
                some(&young)
            ),
            "outrider status says why",
        )
    } else if count == 0 {
        Finding::pass(PROXIES, "there are none yet")
    } else {
        Finding::pass(PROXIES, format!("all {count} are connected"))
    });
    findings.push(if refused.is_empty() {
        Finding::pass(REFUSED, "no proxy refuses any")
    } else {
        Finding::failure(
            REFUSED,
            format!("refused by {}", some(&refused)),
            "outrider status says why, and which objects it was made from; those proxies keep \
             their last good version",
        )
    });
    findings
}

/// Whether this command, the control plane, the injector and the proxies are of one version.
pub(super) fn versions(survey: &Survey, revision: &str, injector: Option<&str>) -> Finding {
    let replicas = survey.control_plane.iter();
    let replicas = replicas.filter(|replica| replica.revision == revision);
    let control: BTreeSet<&str> = replicas
        .filter_map(|each| each.version.as_deref())
        .collect();
    let proxies = survey.proxies.iter();
    let proxies = proxies.filter(|proxy| proxy.revision == revision);
    let old = proxies.filter(|proxy| {
        let version = proxy.version.as_deref();
        version.is_some_and(|version| !control.is_empty() && !control.contains(version))
    });
    let old: Vec<String> = old
        .map(|proxy| format!("{}.{}", proxy.name, proxy.namespace))
        .collect();
    let control: Vec<&str> = control.into_iter().collect();
    let told = control.join(" and ");
    if control.len() > 1 {
        let message = format!("the control plane's replicas are {told}");
        return Finding::warning(VERSIONS, message, "wait for the rollout to end");
    }
    if let (Some(injector), false) = (injector, control.is_empty())
        && !control.contains(&injector)
    {
        return Finding::warning(
            VERSIONS,
            format!("the injector is {injector}, the control plane {told}"),
            "upgrade both with one helm upgrade",
        );
    }
    if !old.is_empty() {
        return Finding::warning(
            VERSIONS,
            format!(
                "the control plane is {told}, but not the proxies of {}",
                some(&old)
            ),
            "restart these pods to give them the new one: kubectl rollout restart deployment -n \
             NAMESPACE",
        );
    }
    if let [control] = control.as_slice()
        && *control != OWN
    {
        return Finding::warning(
            VERSIONS,
            format!("the control plane is {control}, this command {OWN}"),
            "use the command of the control plane's version",
        );
    }
    match control.is_empty() {
        true => Finding::warning(
            VERSIONS,
            "no replica told its version",
            "see the control plane above",
        ),
        false => Finding::pass(VERSIONS, format!("everything is {told}")),
    }
}

/// Pods that should have a sidecar and have none.
pub(super) fn bare(namespaces: &[Namespace], pods: &[Pod], revision: &str) -> Finding {
    let injected: BTreeSet<&str> = namespaces
        .iter()
        .filter(|namespace| is_injected(namespace, revision))
        .filter_map(|namespace| namespace.metadata.name.as_deref())
        .collect();
    let mut bare = Vec::new();
    for pod in pods {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let label = pod
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(INJECT));
        let spec = pod.spec.as_ref();
        let on_host = spec.and_then(|spec| spec.host_network) == Some(true);
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        if injected.contains(namespace)
            && label.map(String::as_str) != Some("disabled")
            && !on_host
            && !ended
            && pod.metadata.deletion_timestamp.is_none()
            && SidecarPod::of(pod).is_none()
        {
            bare.push(format!(
                "{}.{namespace}",
                pod.metadata.name.as_deref().unwrap_or_default()
            ));
        }
    }
    if bare.is_empty() {
        let message = match injected.len() {
            0 => "no namespace asks for sidecars yet".to_owned(),
            count => format!("none in the {count} injected namespaces"),
        };
        return Finding::pass(BARE, message);
    }
    Finding::warning(
        BARE,
        some(&bare),
        "they are older than the label of their namespace, or were refused (kubectl get events -n \
         NAMESPACE): kubectl rollout restart deployment -n NAMESPACE",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;
    use serde_json::json;

    #[test]
    fn a_deployment_is_judged_by_its_replicas() {
        for (wanted, ready, updated, expected) in [
            (2, 2, 2, Outcome::Pass),
            (2, 1, 2, Outcome::Warning),
            (2, 2, 1, Outcome::Warning),
            (2, 0, 2, Outcome::Failure),
        ] {
            let deployment = json!({"metadata": {"name": "d", "namespace": "n"},
                "spec": {"replicas": wanted, "selector": {}, "template": {}},
                "status": {"readyReplicas": ready, "updatedReplicas": updated}});
            let deployment: Deployment = serde_json::from_value(deployment).unwrap();
            assert_eq!(
                readiness("c", &deployment).outcome,
                expected,
                "{ready} of {wanted}"
            );
        }
    }

    #[test]
    fn pods_that_should_have_a_sidecar_are_named() {
        let namespace = json!({"metadata": {"name": "shop", "labels": {INJECT: "enabled"}}});
        let namespace: Namespace = serde_json::from_value(namespace).unwrap();
        let pod = |name: &str, namespace: &str, inject: &str, host: bool, phase: &str| -> Pod {
            let labels = if inject.is_empty() {
                json!({})
            } else {
                json!({INJECT: inject})
            };
            let pod = json!({
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"containers": [{"name": "app"}], "hostNetwork": host},
                "status": {"phase": phase}});
            serde_json::from_value(pod).unwrap()
        };
        let pods = [
            pod("old", "shop", "", false, "Running"),
            pod("off", "shop", "disabled", false, "Running"),
            pod("host", "shop", "", true, "Running"),
            pod("done", "shop", "", false, "Succeeded"),
            pod("elsewhere", "other", "", false, "Running"),
        ];
        let found = bare(std::slice::from_ref(&namespace), &pods, "");
        assert_eq!(
            (found.outcome, found.message.as_str()),
            (Outcome::Warning, "old.shop")
        );
        assert_eq!(bare(&[namespace], &pods[1..], "").outcome, Outcome::Pass);
    }

    #[test]
    fn versions_and_connections_are_compared() {
        let survey = |proxy: &str, control: &str, reason: Option<&str>| {
            let proxy = crate::survey::Proxy {
                name: "web".to_owned(),
                namespace: "shop".to_owned(),
                version: Some(proxy.to_owned()),
                revision: String::new(),
                control_plane: None,
                connected_since: None,
                not_connected: reason.map(str::to_owned),
                kinds: Vec::new(),
                certificate: None,
                certificate_error: None,
            };
            let replica = crate::survey::Replica {
                name: "c".to_owned(),
                revision: String::new(),
                version: Some(control.to_owned()),
                proxies: 1,
                error: None,
                forbidden: false,
            };
            Survey {
                control_plane: vec![replica],
                proxies: vec![proxy],
            }
        };
        let well = survey(OWN, OWN, None);
        assert_eq!(versions(&well, "", Some(OWN)).outcome, Outcome::Pass);
        assert!(
            proxies(&well, "")
                .iter()
                .all(|each| each.outcome == Outcome::Pass)
        );
        assert_eq!(versions(&well, "", Some("9")).outcome, Outcome::Warning);
        let old = versions(&survey("0", OWN, None), "", None);
        assert!(
            old.message.ends_with("not the proxies of web.shop"),
            "{old:?}"
        );
        assert_eq!(
            versions(&survey("9", "9", None), "", None).outcome,
            Outcome::Warning
        );
        let lost = proxies(&survey(OWN, OWN, Some(NOT_CONNECTED)), "");
        assert_eq!(lost[0].outcome, Outcome::Failure);
        let mut deaf = survey(OWN, OWN, Some(NOT_CONNECTED));
        deaf.control_plane[0].error = Some("no".to_owned());
        deaf.control_plane[0].forbidden = true;
        let outcomes: Vec<_> = proxies(&deaf, "").iter().map(|each| each.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::Warning, Outcome::Warning, Outcome::Pass]
        );
        let young = proxies(&survey(OWN, OWN, Some("its pod is Pending")), "");
        assert_eq!(young[0].outcome, Outcome::Warning);
    }
}
