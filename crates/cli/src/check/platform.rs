//! The nodes, and the Gateway API.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use super::finding::{Finding, some};
use crate::cluster::Cluster;

const NODES: &str = "nodes";
const GATEWAY: &str = "Gateway API";
/// From here on a bound source address does not take a port of its own (IP_BIND_ADDRESS_NO_PORT),
/// and both families can be redirected.
const OLDEST_KERNEL: (u32, u32) = (4, 2);
/// The newest that this command was tested with.
const GATEWAY_VERSION: &str = "v1.6.3";

/// Looks at both.
pub(super) async fn check(cluster: &Cluster, findings: &mut Vec<Finding>) {
    match cluster.list_global::<Node>().await {
        Ok(list) => findings.extend(nodes(&list)),
        Err(error) => findings.push(Finding::unknown(NODES, &error)),
    }
    let name = "httproutes.gateway.networking.k8s.io";
    findings.push(
        match cluster.find_global::<CustomResourceDefinition>(name).await {
            Ok(definition) => gateway(definition.as_ref()),
            Err(error) => Finding::unknown(GATEWAY, &error),
        },
    );
}

fn nodes(nodes: &[Node]) -> Vec<Finding> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let (mut windows, mut old) = (Vec::new(), Vec::new());
    for node in nodes {
        let name = node.metadata.name.clone().unwrap_or_default();
        let status = node.status.as_ref();
        let Some(info) = status.and_then(|status| status.node_info.as_ref()) else {
            continue;
        };
        let kind = format!(
            "{}, kernel {}, {}",
            info.os_image, info.kernel_version, info.architecture
        );
        *kinds.entry(kind).or_default() += 1;
        if info.operating_system != "linux" {
            windows.push(name);
        } else if kernel(&info.kernel_version).is_none_or(|version| version < OLDEST_KERNEL) {
            old.push(format!("{name} ({})", info.kernel_version));
        }
    }
    let mut findings = Vec::new();
    if !old.is_empty() {
        let (major, minor) = OLDEST_KERNEL;
        findings.push(Finding::failure(
            NODES,
            format!("the kernel is too old on {}", some(&old)),
            format!("upgrade them to {major}.{minor} or newer, or keep pods of the mesh off them"),
        ));
    }
    if !windows.is_empty() {
        findings.push(Finding::warning(
            NODES,
            format!("no sidecar can run on {}: not Linux", some(&windows)),
            "keep pods with a sidecar off them (nodeSelector kubernetes.io/os: linux)",
        ));
    }
    if findings.is_empty() {
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|(kind, count)| format!("{count} with {kind}"))
            .collect();
        findings.push(match kinds.is_empty() {
            false => Finding::pass(NODES, some(&kinds)),
            true => Finding::failure(NODES, "there are none", "add a node"),
        });
    }
    findings
}

fn kernel(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn gateway(definition: Option<&CustomResourceDefinition>) -> Finding {
    let install = format!(
        "kubectl apply --server-side -f https://github.com/kubernetes-sigs/gateway-api/releases/\
         download/{GATEWAY_VERSION}/standard-install.yaml"
    );
    let Some(definition) = definition else {
        return Finding::warning(
            GATEWAY,
            "its kinds are not installed, so no HTTPRoute or GRPCRoute can be made",
            format!("to route by them: {install}"),
        );
    };
    let annotation = |name: &str| {
        let annotations = definition.metadata.annotations.as_ref()?;
        annotations.get(&format!("gateway.networking.k8s.io/{name}"))
    };
    let versions = definition.spec.versions.iter();
    let mut served = versions.filter(|version| version.served);
    if !served.any(|version| version.name == "v1") {
        return Finding::failure(
            GATEWAY,
            "the installed HTTPRoute has no version v1",
            format!("upgrade it: {install}"),
        );
    }
    let version = annotation("bundle-version").map_or("of unknown version", String::as_str);
    let channel = annotation("channel").map_or("unknown", String::as_str);
    Finding::pass(GATEWAY, format!("{version}, {channel} channel"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::finding::Outcome;
    use serde_json::json;

    fn node(name: &str, os: &str, kernel: &str) -> Node {
        let info = json!({"operatingSystem": os, "kernelVersion": kernel, "osImage": "Debian 12",
            "architecture": "amd64", "bootID": "", "machineID": "", "systemUUID": "",
            "containerRuntimeVersion": "", "kubeletVersion": "", "kubeProxyVersion": ""});
        let node = json!({"metadata": {"name": name}, "status": {"nodeInfo": info}});
        serde_json::from_value(node).unwrap()
    }

    #[test]
    fn nodes_are_judged_by_their_kernel() {
        let good = [
            node("a", "linux", "6.1.0-9-amd64"),
            node("b", "linux", "6.1.0-9-amd64"),
        ];
        let pass = "2 with Debian 12, kernel 6.1.0-9-amd64, amd64";
        assert_eq!(nodes(&good), [Finding::pass(NODES, pass)]);
        let bad = [
            node("w", "windows", "10.0.2"),
            node("o", "linux", "3.10.0-1.el7"),
        ];
        let found: Vec<_> = nodes(&bad)
            .into_iter()
            .map(|each| (each.outcome, each.message))
            .collect();
        assert_eq!(
            found,
            [
                (
                    Outcome::Failure,
                    "the kernel is too old on o (3.10.0-1.el7)".to_owned()
                ),
                (
                    Outcome::Warning,
                    "no sidecar can run on w: not Linux".to_owned()
                ),
            ]
        );
        assert_eq!(nodes(&[])[0].outcome, Outcome::Failure);
    }

    #[test]
    fn the_gateway_api_is_told_by_its_version() {
        let definition = |version: &str| {
            let definition = json!({
                "metadata": {"annotations": {
                    "gateway.networking.k8s.io/bundle-version": "v1.4.0",
                    "gateway.networking.k8s.io/channel": "standard"}},
                "spec": {"group": "g", "scope": "Namespaced", "names": {"kind": "k", "plural": "p"},
                    "versions": [{"name": version, "served": true, "storage": true}]}});
            serde_json::from_value::<CustomResourceDefinition>(definition).unwrap()
        };
        let pass = Finding::pass(GATEWAY, "v1.4.0, standard channel");
        assert_eq!(gateway(Some(&definition("v1"))), pass);
        assert_eq!(
            gateway(Some(&definition("v1beta1"))).outcome,
            Outcome::Failure
        );
        let missing = gateway(None);
        assert_eq!(missing.outcome, Outcome::Warning);
        assert!(missing.fix.unwrap().contains("kubectl apply"));
    }
}
