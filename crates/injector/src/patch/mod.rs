//! From a pod to what makes it part of the mesh: pure, and the same for the webhook and for
//! `outrider inject`.
//!
//! Native form, where the API server has native sidecars (KEP-753): `outrider-init`, then
//! `outrider-sidecar` with `restartPolicy: Always`, then the pod's own init containers, which reach
//! the network through the mesh. Plain form: the pod's own init containers first, for nothing would
//! take what is captured from them; `outrider-init` last; then `outrider-sidecar` as the first
//! container, whose `postStart` holds the others back until it is ready.
//!
//! Called again for a pod that has its sidecar, as the API server does when another webhook changed
//! it (`reinvocationPolicy: IfNeeded`), it adds nothing twice. Containers that came since have their
//! probes sent to the sidecar as well. Init containers that came before ours stay there: they reach
//! the network without the mesh.

mod annotations;
mod containers;
mod editor;
mod metrics;
mod names;
mod outcome;
mod probes;
mod security;
mod status;
mod undo;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::config::{Config, ServerVersion};
use annotations::{MUTUAL_TLS, Settings};
use containers::Told;
use editor::{Editor, Place};
use names::INIT;

pub use annotations::PREFIX;
pub use names::SIDECAR;
pub use outcome::{Left, Outcome, Refusal};
pub use probes::HookSecret;
pub use status::Status;
pub use undo::{UndoError, uninject};

/// The annotation of pods that the kubelet made from its own files.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation by which kubectl chooses a container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// What matters of the place that a pod is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings<'a> {
    /// The version of the API server, where it is known.
    pub server: Option<ServerVersion>,
    /// The level of Pod Security that the namespace enforces, where it is known: the value of its
    /// label `pod-security.kubernetes.io/enforce`.
    pub pod_security: Option<&'a str>,
    /// A new one for each pod.
    pub hook_secret: HookSecret,
}

/// What to do with a pod, or with the template of one (which has `metadata` and `spec` as well).
pub fn inject(pod: &Value, surroundings: Surroundings<'_>, config: &Config) -> Outcome {
    decide(pod, surroundings, config).unwrap_or_else(Outcome::Refused)
}

fn decide(
    pod: &Value,
    surroundings: Surroundings<'_>,
    config: &Config,
) -> Result<Outcome, Refusal> {
    let typed = PodTemplateSpec::deserialize(pod).map_err(Refusal::NotAPod)?;
    let spec = typed.spec.ok_or(Refusal::NoSpec)?;
    let metadata = typed.metadata.unwrap_or_default();
    let labels = metadata.labels.unwrap_or_default();
    let annotations = metadata.annotations.unwrap_or_default();
    if let Some(left) = annotations::by_labels(&labels, config)? {
        return Ok(Outcome::Left(left));
    }
    if let Some(left) = by_kind(&spec, &annotations) {
        return Ok(Outcome::Left(left));
    }
    let status = Status::read(&annotations);
    let has_sidecar = security::all(&spec).any(|container| container.name == SIDECAR);
    if let (Some(status), true) = (&status, has_sidecar)
        && status.revision != config.revision
    {
        return Ok(Outcome::Left(Left::AlreadyInjected));
    }
    let settings = Settings::new(&annotations, surroundings.server, config)?;
    match (status, has_sidecar) {
        (Some(status), true) => {
            security::check(&spec)?;
            refresh(pod, &spec, status, &settings, surroundings.hook_secret)
        }
        (None, true) => Ok(Outcome::Left(Left::HasSidecar)),
        // A status without a sidecar was copied from another pod.
        (_, false) => {
            security::check(&spec)?;
            security::check_names(&spec)?;
            let secret = surroundings.hook_secret;
            let mut outcome = add(pod, &spec, &annotations, &settings, secret, config)?;
            if let Outcome::Patch { warnings, .. } = &mut outcome {
                warnings.extend_from_slice(&settings.warnings);
                warnings.extend(of_pod_security(surroundings.pod_security));
                warnings.extend(of_drain(&settings, &spec));
            }
            Ok(outcome)
        }
    }
}

/// Pods that cannot have a sidecar.
fn by_kind(spec: &PodSpec, annotations: &BTreeMap<String, String>) -> Option<Left> {
    let selected = spec.node_selector.as_ref();
    let selected = selected.and_then(|labels| labels.get("kubernetes.io/os"));
    let system = spec.os.as_ref().map(|system| &system.name).or(selected);
    if annotations.contains_key(MIRROR) {
        Some(Left::StaticPod)
    } else if spec.host_network == Some(true) {
        Some(Left::HostNetwork)
    } else if system.is_some_and(|system| system == "windows") {
        Some(Left::Windows)
    } else {
        None
    }
}

fn add(
    pod: &Value,
    spec: &PodSpec,
    annotations: &BTreeMap<String, String>,
    settings: &Settings,
    hook_secret: HookSecret,
    config: &Config,
) -> Result<Outcome, Refusal> {
    let mut editor = Editor::new(pod.clone());
    let mut status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: config.revision.clone(),
        ..Status::default()
    };
    let mut warnings = Vec::new();
    // Before anything moves the containers.
    let rewritten = if settings.rewrite_probes {
        probes::rewrite(&mut editor, spec, hook_secret)?
    } else {
        probes::Rewritten::default()
    };
    warnings.extend(rewritten.warnings);
    status.probe_ports = rewritten.ports;
    let merged = if settings.merge_metrics {
        metrics::merge(&mut editor, &mut status, annotations, spec)?
    } else {
        metrics::Merged::default()
    };
    warnings.extend(merged.warning);

    let told = Told {
        probes: &rewritten.probes,
        app_metrics: merged.app.as_ref(),
        grace: spec.termination_grace_period_seconds,
    };
    let sidecar = serde_json::to_value(containers::sidecar(config, settings, &told))?;
    let init = serde_json::to_value(containers::init(config, settings))?;
    let init_containers = ["spec", "initContainers"];
    if settings.native {
        editor.insert(&init_containers, Place::First, sidecar)?;
        editor.insert(&init_containers, Place::First, init)?;
        status.init_containers = vec![INIT.to_owned(), SIDECAR.to_owned()];
    } else {
        editor.insert(&init_containers, Place::Last, init)?;
        editor.insert(&["spec", "containers"], Place::First, sidecar)?;
        status.init_containers = vec![INIT.to_owned()];
        status.containers = vec![SIDECAR.to_owned()];
        // kubectl would take the first container for the app.
        if let Some(app) = spec.containers.first()
            && !annotations.contains_key(DEFAULT_CONTAINER)
        {
            status.set(&mut editor, "annotations", DEFAULT_CONTAINER, &app.name)?;
        }
    }
    for volume in volumes::volumes(config) {
        status.volumes.push(volume.name.clone());
        let volume = serde_json::to_value(volume)?;
        editor.insert(&["spec", "volumes"], Place::Last, volume)?;
    }
    let present: Vec<&str> = spec
        .image_pull_secrets
        .iter()
        .flatten()
        .map(|secret| secret.name.as_str())
        .collect();
    for secret in &config.images.pull_secrets {
        if !present.contains(&secret.as_str()) {
            let reference = json!({"name": secret});
            editor.insert(&["spec", "imagePullSecrets"], Place::Last, reference)?;
            status.image_pull_secrets.push(secret.clone());
        }
    }
    status.set(&mut editor, "labels", MUTUAL_TLS, "enabled")?;
    // Before it is written down what was made.
    editor.ensure(&["metadata", "annotations"], json!({}))?;
    status.created = editor.created().to_vec();
    status.write(&mut editor)?;
    Ok(Outcome::Patch {
        operations: editor.into_operations(),
        warnings,
    })
}

/// Sends the probes of containers that came since to the sidecar that is there.
fn refresh(
    pod: &Value,
    spec: &PodSpec,
    mut status: Status,
    settings: &Settings,
    hook_secret: HookSecret,
) -> Result<Outcome, Refusal> {
    let mut editor = Editor::new(pod.clone());
    if !settings.rewrite_probes {
        return Ok(Outcome::Left(Left::AlreadyInjected));
    }
    let rewritten = probes::rewrite(&mut editor, spec, hook_secret)?;
    if rewritten.probes.is_empty() {
        return Ok(Outcome::Left(Left::AlreadyInjected));
    }
    let Some((list, index)) = find_sidecar(pod) else {
        return Ok(Outcome::Left(Left::AlreadyInjected));
    };
    let index = index.to_string();
    let sidecar = editor.at(&["spec", list, &index]).unwrap_or(&Value::Null);
    let (mut probes, variable) = containers::told_probes(sidecar);
    probes.extend(rewritten.probes);
    let value = serde_json::to_value(containers::probes(&probes))?;
    match variable {
        Some(variable) => {
            editor.set(&["spec", list, &index, "env", &variable.to_string()], value)?;
        }
        None => editor.insert(&["spec", list, &index, "env"], Place::Last, value)?,
    }
    status.probe_ports.extend(rewritten.ports);
    status.write(&mut editor)?;
    Ok(Outcome::Patch {
        operations: editor.into_operations(),
        warnings: rewritten.warnings,
    })
}

/// The list that has the sidecar, and its index there.
fn find_sidecar(pod: &Value) -> Option<(&'static str, usize)> {
    ["initContainers", "containers"]
        .into_iter()
        .find_map(|list| {
            let containers = pod.get("spec")?.get(list)?.as_array()?;
            let index = containers.iter().position(|c| c["name"] == SIDECAR)?;
            Some((list, index))
        })
}

fn of_pod_security(level: Option<&str>) -> Option<String> {
    let level = level.filter(|level| matches!(*level, "baseline" | "restricted"))?;
    Some(format!(
        "the namespace enforces the Pod Security level {level}, which forbids the capabilities \
         NET_ADMIN and NET_RAW of {INIT}: label the namespace \
         pod-security.kubernetes.io/enforce=privileged, or exempt it, or the pod is refused"
    ))
}

fn of_drain(settings: &Settings, spec: &PodSpec) -> Option<String> {
    let (drain, grace) = (
        settings.drain_seconds?,
        spec.termination_grace_period_seconds?,
    );
    (i64::from(drain) > grace).then(|| {
        format!(
            "the sidecar may drain for {drain} s, but the pod is killed after {grace} s: raise \
             terminationGracePeriodSeconds"
        )
    })
}
