//! The kubelet dials an app's probes from the node, without an identity: captured, they would meet
//! the pod's policy, and a `tcpSocket` would always succeed, for the sidecar accepts. So the
//! kubelet is sent to the sidecar's port 15020, and the sidecar asks the app.
//!
//! Whoever reaches the pod may ask for its probes, but a hook does something (it may end the app):
//! the paths of hooks end with a secret, which only who may read the pod knows.
//!
//! `exec` runs in the container and is left alone. So is a handler whose port has no number.

use std::collections::BTreeMap;
use std::fmt;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use serde_json::{Map, Value, json};

use super::Refusal;
use super::editor::{Editor, find};
use super::names::{GRACE_SECONDS, HEALTH_PORT, SIDECAR};

/// What the path of every rewritten probe begins with.
const PATH: &str = "/app-health/";
/// A probe's field, and what its rewritten path ends with.
const PROBES: [(&str, &str); 3] = [
    ("livenessProbe", "livez"),
    ("readinessProbe", "readyz"),
    ("startupProbe", "startupz"),
];
/// The same for the handlers of `lifecycle`.
const HOOKS: [(&str, &str); 2] = [("postStart", "poststart"), ("preStop", "prestop")];
/// What a probe can dial.
const DIALLED: [&str; 3] = ["httpGet", "tcpSocket", "grpc"];
/// What a hook can dial: the kubelet fails those with `tcpSocket`.
const DIALLED_BY_HOOKS: [&str; 1] = ["httpGet"];

/// What the paths of a pod's hooks end with, so that nobody guesses them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HookSecret(u128);

impl HookSecret {
    /// One that nobody knows.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl From<u128> for HookSecret {
    fn from(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Debug for HookSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HookSecret")
    }
}

/// How one handler is asked for.
struct Way {
    /// The path on the sidecar's port.
    path: String,
    /// What it may dial.
    kinds: &'static [&'static str],
    /// Where it says none itself, which a hook cannot, in seconds.
    timeout: i64,
}

/// The probes that the sidecar is to make for the kubelet.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// By their path on the sidecar's port: the handler as it was, with a number for its port.
    pub(super) probes: Map<String, Value>,
    /// By the same path: the port's name, where it had one.
    pub(super) ports: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
}

/// Sends the probes of every container but the sidecar's own to the sidecar. Those that go there
/// already are not touched.
pub(super) fn rewrite(
    editor: &mut Editor,
    spec: &PodSpec,
    secret: HookSecret,
) -> Result<Rewritten, Refusal> {
    let mut rewritten = Rewritten::default();
    // The pod's end waits no longer for a hook.
    let grace = spec.termination_grace_period_seconds;
    let hook = |container: &Container, verb: &str| Way {
        path: format!("{PATH}{}/{verb}/{:032x}", container.name, secret.0),
        kinds: &DIALLED_BY_HOOKS,
        timeout: grace.unwrap_or(GRACE_SECONDS).max(1),
    };
    let init = spec.init_containers.iter().flatten();
    for (index, container) in init.enumerate() {
        // Others end before anything is probed, and may have no probes.
        if container.restart_policy.as_deref() == Some("Always") {
            rewritten.container(editor, "initContainers", index, container, &hook)?;
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        rewritten.container(editor, "containers", index, container, &hook)?;
    }
    Ok(rewritten)
}

impl Rewritten {
    fn container(
        &mut self,
        editor: &mut Editor,
        list: &str,
        index: usize,
        container: &Container,
        hook: &dyn Fn(&Container, &str) -> Way,
    ) -> Result<(), Refusal> {
        if container.name == SIDECAR {
            return Ok(());
        }
        let index = index.to_string();
        for (field, verb) in PROBES {
            let place = ["spec", list, &index, field];
            let way = Way {
                path: format!("{PATH}{}/{verb}", container.name),
                kinds: &DIALLED,
                // Kubernetes' default, which is not yet filled in everywhere.
                timeout: 1,
            };
            self.handler(editor, &place, way, container)?;
        }
        for (field, verb) in HOOKS {
            let place = ["spec", list, &index, "lifecycle", field];
            self.handler(editor, &place, hook(container, verb), container)?;
        }
        Ok(())
    }

    fn handler(
        &mut self,
        editor: &mut Editor,
        place: &[&str],
        way: Way,
        container: &Container,
    ) -> Result<(), Refusal> {
        let Some(probe) = editor.at(place) else {
            return Ok(());
        };
        let Some((kind, handler)) = dialled(probe, way.kinds) else {
            return Ok(());
        };
        if is_ours(handler) {
            return Ok(());
        }
        let written = handler.get("port").cloned().unwrap_or_default();
        let Some(port) = number(&written, container) else {
            let what = place.last().copied().unwrap_or_default();
            self.warnings.push(format!(
                "{what} of container `{}` has port {written}, which is no port of that container: \
                 it is left as it is, and fails",
                container.name
            ));
            return Ok(());
        };
        if let Some(problem) = unaskable(handler) {
            let what = place.last().copied().unwrap_or_default();
            self.warnings.push(format!(
                "{what} of container `{}` has {problem}: it is left as it is, and fails where the \
                 app takes mutual TLS only",
                container.name
            ));
            return Ok(());
        }
        let mut handler = handler.clone();
        handler["port"] = json!(port);
        let mut entry = json!({ kind: handler });
        let timeout = find(probe, &["timeoutSeconds"]).cloned();
        entry["timeoutSeconds"] = timeout.unwrap_or_else(|| json!(way.timeout));
        let path = way.path;
        if let Value::String(name) = written {
            self.ports.insert(path.clone(), name);
        }
        let ours = json!({"path": path, "port": HEALTH_PORT});
        if kind != "httpGet" {
            editor.remove(&[place, &[kind]].concat())?;
        }
        editor.set(&[place, &["httpGet"]].concat(), ours)?;
        self.probes.insert(path, entry);
        Ok(())
    }
}

/// Gives every container its own probes back. What is not known stays.
pub(super) fn restore(
    editor: &mut Editor,
    probes: &Map<String, Value>,
    ports: &BTreeMap<String, String>,
) -> Result<(), json_patch::PatchError> {
    for list in ["initContainers", "containers"] {
        let count = editor.at(&["spec", list]).and_then(Value::as_array);
        for index in 0..count.map_or(0, Vec::len) {
            let index = index.to_string();
            let probes_of = PROBES.map(|(field, _)| vec!["spec", list, &index, field]);
            let hooks_of = HOOKS.map(|(field, _)| vec!["spec", list, &index, "lifecycle", field]);
            for place in probes_of.into_iter().chain(hooks_of) {
                restore_handler(editor, &place, probes, ports)?;
            }
        }
    }
    Ok(())
}

fn restore_handler(
    editor: &mut Editor,
    place: &[&str],
    probes: &Map<String, Value>,
    ports: &BTreeMap<String, String>,
) -> Result<(), json_patch::PatchError> {
    let ours = [place, &["httpGet"]].concat();
    let Some(handler) = editor.at(&ours).filter(|handler| is_ours(handler)) else {
        return Ok(());
    };
    let Some(path) = handler.get("path").and_then(Value::as_str) else {
        return Ok(());
    };
    let original = probes.get(path).and_then(|entry| dialled(entry, &DIALLED));
    let Some((kind, original)) = original else {
        return Ok(());
    };
    let mut original = original.clone();
    if let Some(name) = ports.get(path) {
        original["port"] = json!(name);
    }
    editor.remove(&ours)?;
    editor.set(&[place, &[kind]].concat(), original)
}

fn dialled<'a>(probe: &'a Value, kinds: &[&'static str]) -> Option<(&'static str, &'a Value)> {
    kinds.iter().find_map(|kind| {
        let handler = probe.get(kind).filter(|handler| handler.is_object())?;
        Some((*kind, handler))
    })
}

fn is_ours(handler: &Value) -> bool {
    let path = handler.get("path").and_then(Value::as_str);
    let port = handler.get("port").and_then(Value::as_i64);
    port == Some(HEALTH_PORT.into()) && path.is_some_and(|path| path.starts_with(PATH))
}

/// What the sidecar cannot ask for, though Kubernetes takes it.
fn unaskable(handler: &Value) -> Option<String> {
    let path = handler.get("path").and_then(Value::as_str);
    let path = path.filter(|path| format!("/{path}").parse::<PathAndQuery>().is_err());
    if let Some(path) = path {
        return Some(format!("`{path}`, which is not the path of a URL"));
    }
    let headers = handler.get("httpHeaders").and_then(Value::as_array);
    headers.into_iter().flatten().find_map(|header| {
        let text = |key: &str| header.get(key).and_then(Value::as_str).unwrap_or_default();
        let good = HeaderName::try_from(text("name")).is_ok()
            && HeaderValue::try_from(text("value")).is_ok();
        (!good).then(|| format!("the header `{}`, which is none", text("name")))
    })
}

/// As the kubelet finds it: a text is the name of one of the container's ports, else a number.
fn number(port: &Value, container: &Container) -> Option<u16> {
    match port {
        Value::Number(number) => number.as_u64().and_then(|number| number.try_into().ok()),
        Value::String(name) => {
            let mut ports = container.ports.iter().flatten();
            match ports.find(|port| port.name.as_ref() == Some(name)) {
                Some(port) => port.container_port.try_into().ok(),
                None => name.parse().ok(),
            }
        }
        _ => None,
    }
    .filter(|port| *port > 0)
}
