//! All proxies: those that pods have, and those that the control plane's replicas know.

mod pods;

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use outrider_control::push::report::{KindReport, ProxyReport, ReplicaReport};
use serde::Serialize;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError, ForwardError, Forwarder};
use crate::proxy::{ADMIN_PORT, Certificate, own_certificate};

pub(crate) use pods::{SidecarPod, Stage, image_version, selector};

/// Where the control plane has its health, metrics and `/debug/proxies`.
const MONITORING_PORT: u16 = 15014;
/// How many pods are asked at a time.
const CONCURRENCY: usize = 16;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Survey {
    /// The replicas of every control plane.
    pub(crate) control_plane: Vec<Replica>,
    /// The proxies, by namespace and name.
    pub(crate) proxies: Vec<Proxy>,
}

/// One replica of a control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replica {
    /// Its pod.
    pub(crate) name: String,
    /// Its revision; empty for the default one.
    pub(crate) revision: String,
    /// Its version, if it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// How many proxies are connected to it.
    pub(crate) proxies: usize,
    /// Why it could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Whether that is only for want of permission.
    #[serde(skip)]
    pub(crate) forbidden: bool,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Proxy {
    /// The pod.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// The sidecar's version: what it says, else the tag of its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Empty for the default one.
    pub(crate) revision: String,
    /// The replica that it is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) control_plane: Option<String>,
    /// Since when, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connected_since: Option<String>,
    /// Why it is not connected, as far as its pod tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_connected: Option<String>,
    /// How what it was sent fared.
    pub(crate) kinds: Vec<KindReport>,
    /// Its own certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<Certificate>,
    /// Why its certificate is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_error: Option<String>,
}

impl Proxy {
    /// Whether its pod may still be coming up.
    pub(crate) fn is_starting(&self) -> bool {
        self.control_plane.is_none() && self.not_connected.as_deref() != Some(NOT_CONNECTED)
    }
}

/// What is said of a sidecar that runs and that no replica knows.
pub(crate) const NOT_CONNECTED: &str = "its sidecar runs, but no control plane knows it";

/// The answer of one replica, or why there is none.
pub(crate) type Answer = (String, Result<ReplicaReport, Box<ForwardError>>);

/// Asks every replica of every control plane in `system`, and every pod in `namespace` (or all)
/// with a sidecar.
///
/// # Errors
/// The API server does not say which pods there are. A pod that does not answer is no error: it is
/// in the result.
pub(crate) async fn survey(
    cluster: &Cluster,
    system: &str,
    namespace: Option<&str>,
) -> Result<Survey, ClusterError> {
    let answers = ask_replicas(cluster, system).await?;
    let pods: Vec<Pod> = cluster.list(namespace, &ListParams::default()).await?;
    let pods: Vec<SidecarPod> = pods.iter().filter_map(SidecarPod::of).collect();
    let mut survey = merge(&answers, &pods, namespace);
    let forwarder = Forwarder::new(cluster);
    let running = |proxy: &Proxy| {
        let own = |pod: &&SidecarPod| pod.name == proxy.name && pod.namespace == proxy.namespace;
        pods.iter()
            .find(own)
            .is_some_and(|pod| pod.stage == Stage::Running)
    };
    let asked = survey
        .proxies
        .iter()
        .enumerate()
        .filter(|(_, proxy)| running(proxy));
    let asked: Vec<_> = asked
        .map(|(index, proxy)| (index, proxy.namespace.clone(), proxy.name.clone()))
        .collect();
    let certificates = stream::iter(asked).map(|(index, namespace, name)| {
        let forwarder = &forwarder;
        async move {
            let page = forwarder.json::<Value>(&namespace, &name, ADMIN_PORT, "/certs");
            (index, page.await)
        }
    });
    let mut certificates = certificates.buffer_unordered(CONCURRENCY);
    while let Some((index, page)) = certificates.next().await {
        let proxy = &mut survey.proxies[index];
        match page {
            Ok(page) => proxy.certificate = own_certificate(&page),
            Err(error) => proxy.certificate_error = Some(error.to_string()),
        }
    }
    Ok(survey)
}

/// Asks the replicas of every revision's control plane.
///
/// # Errors
/// The API server does not say which there are.
pub(crate) async fn ask_replicas(
    cluster: &Cluster,
    system: &str,
) -> Result<Vec<Answer>, ClusterError> {
    let deployments: Vec<Deployment> = cluster.list(Some(system), &ListParams::default()).await?;
    let mut pods = BTreeMap::new();
    for deployment in deployments.iter().filter(|each| is_control(each)) {
        let selected = ListParams::default().labels(&selector(deployment));
        for pod in cluster.list::<Pod>(Some(system), &selected).await? {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            if phase == Some("Running") && pod.metadata.deletion_timestamp.is_none() {
                pods.insert(pod.metadata.name.clone().unwrap_or_default(), ());
            }
        }
    }
    let forwarder = Forwarder::new(cluster);
    let answers = stream::iter(pods.into_keys()).map(|name| {
        let forwarder = &forwarder;
        async move {
            let report = forwarder.json(system, &name, MONITORING_PORT, "/debug/proxies");
            let report = report.await.map_err(Box::new);
            (name, report)
        }
    });
    let mut answers: Vec<Answer> = answers.buffer_unordered(CONCURRENCY).collect().await;
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(answers)
}

fn is_control(deployment: &Deployment) -> bool {
    let name = deployment.metadata.name.as_deref().unwrap_or_default();
    name == "outrider-control" || name.starts_with("outrider-control-")
}

/// Puts together what the replicas say and which pods have a sidecar.
pub(crate) fn merge(answers: &[Answer], pods: &[SidecarPod], namespace: Option<&str>) -> Survey {
    let mut proxies: BTreeMap<(String, String), Proxy> = BTreeMap::new();
    for pod in pods {
        let proxy = Proxy {
            name: pod.name.clone(),
            namespace: pod.namespace.clone(),
            version: pod.version.clone(),
            revision: pod.revision.clone(),
            control_plane: None,
            connected_since: None,
            not_connected: Some(match &pod.stage {
                Stage::Running => NOT_CONNECTED.to_owned(),
                Stage::Starting(why) => why.clone(),
            }),
            kinds: Vec::new(),
            certificate: None,
            certificate_error: None,
        };
        proxies.insert((pod.namespace.clone(), pod.name.clone()), proxy);
    }
    let mut control_plane = Vec::new();
    for (name, answer) in answers {
        let report = answer.as_ref().ok();
        control_plane.push(Replica {
            name: name.clone(),
            revision: report
                .map(|report| report.revision.clone())
                .unwrap_or_default(),
            version: report.map(|report| report.version.clone()),
            proxies: report.map_or(0, |report| report.proxies.len()),
            error: answer.as_ref().err().map(ToString::to_string),
            forbidden: matches!(answer, Err(error) if error.is_forbidden()),
        });
        let reported = report.into_iter().flat_map(|report| &report.proxies);
        let asked = |proxy: &&ProxyReport| namespace.is_none_or(|only| only == proxy.namespace);
        for report in reported.filter(asked) {
            let key = (report.namespace.clone(), report.name.clone());
            let before = proxies.remove(&key);
            let since = before
                .as_ref()
                .and_then(|proxy| proxy.connected_since.as_deref());
            // While a proxy moves, both replicas know it; RFC 3339 in UTC is in order as text.
            let proxy = match before {
                Some(before)
                    if since.is_some_and(|since| since >= report.connected_since.as_str()) =>
                {
                    before
                }
                before => connected(name, report, before),
            };
            proxies.insert(key, proxy);
        }
    }
    Survey {
        control_plane,
        proxies: proxies.into_values().collect(),
    }
}

fn connected(replica: &str, report: &ProxyReport, pod: Option<Proxy>) -> Proxy {
    Proxy {
        name: report.name.clone(),
        namespace: report.namespace.clone(),
        version: report.version.clone().or(pod.and_then(|pod| pod.version)),
        revision: report.revision.clone(),
        control_plane: Some(replica.to_owned()),
        connected_since: Some(report.connected_since.clone()),
        not_connected: None,
        kinds: report.kinds.clone(),
        certificate: None,
        certificate_error: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, stage: Stage) -> SidecarPod {
        SidecarPod {
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            version: Some("0.1.0".to_owned()),
            revision: String::new(),
            stage,
        }
    }

    fn answer(replica: &str, proxies: &[(&str, &str)]) -> Answer {
        let proxies = proxies.iter().map(|(name, since)| {
            serde_json::json!({"name": name, "namespace": "shop", "serviceAccount": "a",
                "addresses": ["10.0.0.1"], "connectedSince": since, "kinds": []})
        });
        let report = serde_json::json!({"replica": replica, "version": "0.1.0",
            "proxies": proxies.collect::<Vec<_>>()});
        (
            replica.to_owned(),
            Ok(serde_json::from_value(report).unwrap()),
        )
    }

    #[test]
    fn a_proxy_counts_where_it_connected_last_and_the_lost_are_told() {
        let gone = ForwardError::Deadline {
            pod: "control-d".to_owned(),
            port: 15014,
        };
        let answers = [
            answer(
                "control-a",
                &[
                    ("moved", "2026-01-01T00:00:09Z"),
                    ("vm", "2026-01-01T00:00:00Z"),
                ],
            ),
            answer("control-b", &[("moved", "2026-01-01T00:00:10Z")]),
            answer("control-c", &[("moved", "2026-01-01T00:00:01Z")]),
            ("control-d".to_owned(), Err(Box::new(gone))),
        ];
        let pods = [
            pod("moved", Stage::Running),
            pod("lost", Stage::Running),
            pod("young", Stage::Starting("ImagePullBackOff".to_owned())),
        ];
        let survey = merge(&answers, &pods, None);
        let rows: Vec<_> = survey
            .proxies
            .iter()
            .map(|proxy| {
                (
                    proxy.name.as_str(),
                    proxy.control_plane.as_deref(),
                    proxy.is_starting(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("lost", None, false),
                ("moved", Some("control-b"), false),
                ("vm", Some("control-a"), false),
                ("young", None, true),
            ]
        );
        let error = survey.control_plane[3].error.as_deref().unwrap();
        assert_eq!(error, "port 15014 of control-d did not answer within 10 s");
        assert!(merge(&answers, &[], Some("other")).proxies.is_empty());
    }
}
