//! `outrider check --installed`

use k8s_openapi::api::core::v1::{Container, Namespace, Pod};
use kube::api::ListParams;

use super::finding::Finding;
use super::{certificates, webhook, workloads};
use crate::cluster::{AUTHORITY, Cluster, Installation};
use crate::survey::{image_version, survey};

/// Looks at everything that an installation consists of, and at the pods of the mesh.
pub(super) async fn check(
    cluster: &Cluster,
    installation: &Installation,
    findings: &mut Vec<Finding>,
) {
    let namespace = &installation.namespace;
    let (control, injector) = (installation.control(), installation.injector());
    let name = "control plane";
    let control = workloads::deployment(cluster, namespace, name, &control, findings).await;
    let injector = workloads::deployment(cluster, namespace, "injector", &injector, findings).await;
    let injector = injector.as_ref().and_then(image_version);
    webhook::configuration(cluster, installation, findings).await;
    let namespaces: Vec<Namespace> = match cluster.list_global().await {
        Ok(namespaces) => namespaces.into_iter().filter(stays).collect(),
        Err(error) => return findings.push(Finding::unknown("namespaces", &error)),
    };
    webhook::dry_run(cluster, installation, &namespaces, findings).await;
    let secret = authority_secret(control.as_ref());
    certificates::check(cluster, installation, &secret, &namespaces, findings).await;
    let revision = &installation.revision;
    match survey(cluster, namespace, None).await {
        Ok(survey) => {
            findings.extend(workloads::proxies(&survey, revision));
            findings.push(workloads::versions(&survey, revision, injector.as_deref()));
        }
        Err(error) => findings.push(Finding::unknown("proxies", &error)),
    }
    match cluster.list::<Pod>(None, &ListParams::default()).await {
        Ok(pods) => findings.push(workloads::bare(&namespaces, &pods, revision)),
        Err(error) => findings.push(Finding::unknown("pods without a sidecar", &error)),
    }
}

/// Whether a namespace is not on its way out: nothing can be made in one that is.
fn stays(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// The Secret that the control plane was told to use.
fn authority_secret(control: Option<&Container>) -> String {
    let arguments = control.and_then(|container| container.args.as_ref());
    let mut arguments = arguments.into_iter().flatten();
    let told = arguments.find_map(|argument| argument.strip_prefix("--ca-secret="));
    told.unwrap_or(AUTHORITY).to_owned()
}
