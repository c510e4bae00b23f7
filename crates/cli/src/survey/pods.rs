//! Pods with a sidecar.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

use outrider_injector::patch::SIDECAR;

use crate::cluster::REVISION;

/// A pod with a sidecar, that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SidecarPod {
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The tag of the sidecar's image.
    pub(crate) version: Option<String>,
    pub(crate) revision: String,
    pub(crate) stage: Stage,
}

/// How far the sidecar has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its process runs.
    Running,
    /// It does not run; why, in the kubelet's words.
    Starting(String),
}

impl SidecarPod {
    /// The pod, if it has a sidecar and has not ended.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let status = pod.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed"))
            || pod.metadata.deletion_timestamp.is_some()
        {
            return None;
        }
        // A native sidecar is an init container that stays.
        let containers = spec.containers.iter();
        let mut containers = containers.chain(spec.init_containers.iter().flatten());
        let sidecar = containers.find(|container| container.name == SIDECAR)?;
        let environment = |name: &str| {
            let set = sidecar
                .env
                .iter()
                .flatten()
                .find(|each| each.name == name)?;
            set.value.clone()
        };
        let labels = pod.metadata.labels.as_ref();
        let label = labels.and_then(|labels| labels.get(REVISION).cloned());
        Some(Self {
            name: pod.metadata.name.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            version: image_version(sidecar),
            revision: environment("OUTRIDER_REVISION")
                .or(label)
                .unwrap_or_default(),
            stage: stage(pod),
        })
    }
}

fn stage(pod: &Pod) -> Stage {
    let status = pod.status.as_ref();
    let statuses = status.and_then(|status| status.container_statuses.as_ref());
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let mut all = statuses.into_iter().chain(init).flatten();
    let Some(sidecar) = all.find(|status| status.name == SIDECAR) else {
        let phase = status.and_then(|status| status.phase.as_deref());
        return Stage::Starting(format!("its pod is {}", phase.unwrap_or("not scheduled")));
    };
    let state = sidecar.state.as_ref();
    if state.is_some_and(|state| state.running.is_some()) {
        return Stage::Running;
    }
    Stage::Starting(describe(sidecar))
}

fn describe(status: &ContainerStatus) -> String {
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let (reason, message) = match (waiting, ended) {
        (Some(waiting), _) => (waiting.reason.as_deref(), waiting.message.as_deref()),
        (None, Some(ended)) => (ended.reason.as_deref(), ended.message.as_deref()),
        (None, None) => (None, None),
    };
    let reason = reason.unwrap_or("not started");
    let restarts = match status.restart_count {
        0 => String::new(),
        count => format!(", {count} restarts"),
    };
    match message {
        Some(message) => format!("its sidecar: {reason}{restarts}: {message}"),
        None => format!("its sidecar: {reason}{restarts}"),
    }
}

/// The tag of a container's image; a digest is no version.
pub(crate) fn image_version(container: &Container) -> Option<String> {
    let image = container.image.as_deref()?;
    let image = image.split('@').next()?;
    let (_, tag) = image.rsplit('/').next()?.split_once(':')?;
    Some(tag.to_owned())
}

/// The pods of a deployment, as the API takes it: `app=web,tier=front`.
pub(crate) fn selector(deployment: &Deployment) -> String {
    let spec = deployment.spec.as_ref();
    let labels = spec.and_then(|spec| spec.selector.match_labels.as_ref());
    let labels = labels.into_iter().flatten();
    let pairs: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sidecar_is_found_in_either_form_with_its_state() {
        let of = |spec, status| {
            let metadata = json!({"name": "web", "namespace": "shop"});
            let pod = json!({"metadata": metadata, "spec": spec, "status": status});
            SidecarPod::of(&serde_json::from_value(pod).unwrap())
        };
        let sidecar = json!({"name": SIDECAR, "image": "ghcr.io:443/o/s:0.1.0@sha256:ab",
            "env": [{"name": "OUTRIDER_REVISION", "value": "canary"}]});
        let app = json!({"name": "app"});
        let native = json!({"containers": [app], "initContainers": [sidecar]});
        let running = json!({"phase": "Running", "initContainerStatuses": [{
            "name": SIDECAR, "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": {"running": {}}}]});
        let found = of(native.clone(), running).unwrap();
        assert_eq!(found.version.as_deref(), Some("0.1.0"));
        assert_eq!(
            (found.revision.as_str(), &found.stage),
            ("canary", &Stage::Running)
        );
        let plain = json!({"containers": [app, sidecar]});
        let waiting = json!({"phase": "Pending", "containerStatuses": [{
            "name": SIDECAR, "image": "", "imageID": "", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]});
        let expected = "its sidecar: ImagePullBackOff, 2 restarts: no such image".to_owned();
        assert_eq!(of(plain, waiting).unwrap().stage, Stage::Starting(expected));
        assert_eq!(of(native, json!({"phase": "Succeeded"})), None);
        assert_eq!(of(json!({"containers": [app]}), json!({})), None);
    }
}
