//! The two containers that are added.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, HTTPGetAction, Lifecycle,
    LifecycleHandler, ObjectFieldSelector, Probe, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value};

use super::annotations::Settings;
use super::names::{GRACE_SECONDS, INIT, METRICS_PORT, PROBES_VARIABLE, READY_PORT, SIDECAR};
use super::{security, volumes};
use crate::config::{self, Config, ResourceAmounts};

/// The plain form's app starts once the sidecar is ready, or after this many seconds does not.
const WAIT_SECONDS: &str = "60";

/// What the sidecar is told of its pod, beyond what is the same for all.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub(super) probes: &'a Map<String, Value>,
    pub(super) app_metrics: Option<&'a Value>,
    /// `terminationGracePeriodSeconds`
    pub(super) grace: Option<i64>,
}

pub(super) fn sidecar(config: &Config, settings: &Settings, told: &Told<'_>) -> Container {
    let wait = ["/outrider-sidecar", "wait", "--timeout-s", WAIT_SECONDS];
    let post_start = LifecycleHandler {
        exec: Some(ExecAction {
            command: Some(wait.map(str::to_owned).to_vec()),
        }),
        ..LifecycleHandler::default()
    };
    Container {
        name: SIDECAR.to_owned(),
        image: Some(settings.sidecar_image.clone()),
        image_pull_policy: pull_policy(config),
        args: Some(arguments(settings, told.grace)),
        env: Some(sidecar_environment(config, settings, told)),
        // KEP-753: with this an init container is a sidecar.
        restart_policy: settings.native.then(|| "Always".to_owned()),
        lifecycle: (!settings.native).then(|| Lifecycle {
            post_start: Some(post_start),
            ..Lifecycle::default()
        }),
        ports: Some(vec![ContainerPort {
            name: Some("outrider-prom".to_owned()),
            container_port: METRICS_PORT.into(),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        // The app's containers wait for this one: asked often, for ten minutes.
        startup_probe: Some(ready(1, 600)),
        readiness_probe: Some(ready(10, 3)),
        resources: Some(resources(&settings.resources)),
        security_context: Some(security::of_sidecar()),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(volumes::mounts()),
        ..Container::default()
    }
}

pub(super) fn init(config: &Config, settings: &Settings) -> Container {
    let environment: Vec<EnvVar> = settings
        .capture
        .iter()
        .map(|(item, text)| literal(item.variable(), text))
        .collect();
    Container {
        name: INIT.to_owned(),
        image: Some(settings.init_image.clone()),
        image_pull_policy: pull_policy(config),
        env: (!environment.is_empty()).then_some(environment),
        resources: Some(resources(&config.resources.init)),
        security_context: Some(security::of_init()),
        // Why it failed is then part of the pod's status.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn arguments(settings: &Settings, grace: Option<i64>) -> Vec<String> {
    let grace = grace.unwrap_or(GRACE_SECONDS);
    let drain = settings.drain_seconds.map_or(grace, i64::from);
    let mut arguments = vec![
        format!("--log-level={}", settings.log_level),
        format!("--drain-time-s={drain}"),
    ];
    if let Some(concurrency) = settings.concurrency {
        arguments.push(format!("--concurrency={concurrency}"));
    }
    arguments
}

fn sidecar_environment(config: &Config, settings: &Settings, told: &Told<'_>) -> Vec<EnvVar> {
    let mut environment = vec![
        of_pod("POD_NAME", "metadata.name"),
        of_pod("POD_NAMESPACE", "metadata.namespace"),
        of_pod("POD_IPS", "status.podIPs"),
        of_pod("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        of_pod("NODE_NAME", "spec.nodeName"),
        literal("OUTRIDER_CA_ADDRESS", &config.control_address),
        literal("OUTRIDER_CLUSTER_DOMAIN", &config.cluster_domain),
        literal("OUTRIDER_TRUST_DOMAIN", &config.trust_domain),
        literal("OUTRIDER_TOKEN_FILE", volumes::TOKEN_FILE),
        literal("OUTRIDER_ROOT_FILE", volumes::ROOT_FILE),
        literal("OUTRIDER_LABELS_FILE", volumes::LABELS_FILE),
        literal("OUTRIDER_STATE_DIR", volumes::STATE_DIRECTORY),
    ];
    if !config.revision.is_empty() {
        environment.push(literal("OUTRIDER_REVISION", &config.revision));
    }
    if settings.native {
        environment.push(literal("OUTRIDER_NATIVE", "true"));
    }
    if !told.probes.is_empty() {
        environment.push(probes(told.probes));
    }
    if let Some(metrics) = told.app_metrics {
        environment.push(literal("OUTRIDER_APP_METRICS", &metrics.to_string()));
    }
    environment
}

/// The variable that tells the sidecar of the app's probes.
pub(super) fn probes(probes: &Map<String, Value>) -> EnvVar {
    literal(PROBES_VARIABLE, &Value::Object(probes.clone()).to_string())
}

/// What the sidecar of a pod was told of the app's probes, and where its variable is.
pub(super) fn told_probes(sidecar: &Value) -> (Map<String, Value>, Option<usize>) {
    let variables = sidecar.get("env").and_then(Value::as_array);
    let index = variables.and_then(|variables| {
        let is_it = |variable: &Value| variable["name"] == PROBES_VARIABLE;
        variables.iter().position(is_it)
    });
    let probes = index.and_then(|index| {
        let text = variables?.get(index)?.get("value")?.as_str()?;
        serde_json::from_str(&text.replace("$$", "$")).ok()
    });
    (probes.unwrap_or_default(), index)
}

fn literal(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        // The kubelet would put variables in place of `$(NAME)`, and reads `$$` as `$`.
        value: Some(value.replace('$', "$$")),
        value_from: None,
    }
}

fn of_pod(name: &str, field: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: field.to_owned(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn ready(period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/healthz/ready".to_owned()),
            port: IntOrString::Int(READY_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(3),
        ..Probe::default()
    }
}

fn resources(wanted: &config::ResourceRequirements) -> ResourceRequirements {
    let amounts = |amounts: &ResourceAmounts| {
        let named = [("cpu", &amounts.cpu), ("memory", &amounts.memory)];
        let map = named
            .into_iter()
            .filter_map(|(name, amount)| {
                Some((name.to_owned(), Quantity(amount.as_ref()?.to_string())))
            })
            .collect();
        (!amounts.is_empty()).then_some(map)
    };
    ResourceRequirements {
        requests: amounts(&wanted.requests),
        limits: amounts(&wanted.limits),
        claims: None,
    }
}

fn pull_policy(config: &Config) -> Option<String> {
    Some(config.images.pull_policy?.name().to_owned())
}
