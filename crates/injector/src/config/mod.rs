//! The injector's configuration: what holds for every pod unless its annotations say otherwise.

mod native;
mod resources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use outrider_identity::TrustDomain;
use serde::{Deserialize, Serialize};

use crate::values::{CaptureItem, check_image, check_log_level};

pub use native::{NativeSidecar, ServerVersion};
pub use resources::{ResourceAmounts, ResourceRequirements, Resources};

/// Where the chart mounts it.
pub const PATH: &str = "/etc/outrider/config.yaml";
/// The shortest life of a projected token that the kubelet grants.
const SHORTEST_TOKEN: u32 = 600;

/// Why a configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not YAML, or a field is unknown, missing or of the wrong kind.
    #[error("{}: {source}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong, with the field and the line.
        source: serde_norway::Error,
    },
    /// A field's value cannot be used.
    #[error("{}: {field}: {problem}", path.display())]
    Field {
        /// Which.
        path: PathBuf,
        /// The field, with the fields that it is in.
        field: String,
        /// What is wrong, and what to write.
        problem: String,
    },
}

/// The file `/etc/outrider/config.yaml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// What runs in a pod.
    pub images: Images,
    /// Where sidecars reach the control plane, discovery and certificates alike: `host:port`.
    pub control_address: String,
    /// The trust domain of all identities.
    #[serde(default = "cluster_local")]
    pub trust_domain: String,
    /// The DNS suffix of services.
    #[serde(default = "cluster_local")]
    pub cluster_domain: String,
    /// The revision that this injector belongs to; empty for the default one.
    #[serde(default)]
    pub revision: String,
    /// Which form the sidecar takes.
    #[serde(default)]
    pub native_sidecar: NativeSidecar,
    /// What the containers ask for, and their bounds.
    #[serde(default)]
    pub resources: Resources,
    /// The level of the sidecar's log.
    #[serde(default = "info")]
    pub log_level: String,
    /// The sidecar's worker threads; its CPU limit rounded up, else the CPUs, when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u16>,
    /// Seconds from SIGTERM to the sidecar's end; the pod's grace period when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u32>,
    /// What is captured, where that is not what `outrider-init` does by itself.
    #[serde(default)]
    pub capture: BTreeMap<CaptureItem, String>,
    /// The audience of the token that proves a workload's account to the control plane.
    #[serde(default = "audience")]
    pub token_audience: String,
    /// How long that token lives, in seconds; the kubelet renews it before its end.
    #[serde(default = "hour")]
    pub token_seconds: u32,
    /// Whether the app's probes go through the sidecar. Without that, they fail under STRICT.
    #[serde(default = "yes")]
    pub rewrite_probes: bool,
    /// Whether a scrape of the pod gets the metrics of app and sidecar from one address.
    #[serde(default = "yes")]
    pub merge_metrics: bool,
}

/// The images, and how they are pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Images {
    /// `outrider-sidecar`
    pub sidecar: String,
    /// `outrider-init`
    pub init: String,
    /// `imagePullPolicy` of both; Kubernetes decides by the tag when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
    /// Secrets that the pod needs to pull them. They must be in the pod's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<String>,
}

/// `imagePullPolicy` of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PullPolicy {
    /// Ask the registry at every start.
    Always,
    /// Pull it where the node lacks it.
    IfNotPresent,
    /// Use what the node has.
    Never,
}

impl PullPolicy {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

fn cluster_local() -> String {
    "cluster.local".to_owned()
}

fn info() -> String {
    "info".to_owned()
}

fn audience() -> String {
    outrider_identity::token::AUDIENCE.to_owned()
}

fn hour() -> u32 {
    3600
}

fn yes() -> bool {
    true
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read or used; the error names the file and the field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_yaml(&text, path)
    }

    /// Reads and checks a text; `path` is where it came from, for messages.
    ///
    /// # Errors
    /// It cannot be used; the error names the field.
    pub fn from_yaml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = serde_norway::from_str(text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source,
        })?;
        config
            .check()
            .map_err(|(field, problem)| ConfigError::Field {
                path: path.to_owned(),
                field,
                problem,
            })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (String, String)> {
        let named = |field: &str| {
            let field = field.to_owned();
            move |problem: String| (field, problem)
        };
        check_image(&self.images.sidecar).map_err(named("images.sidecar"))?;
        check_image(&self.images.init).map_err(named("images.init"))?;
        for (index, secret) in self.images.pull_secrets.iter().enumerate() {
            check_dns_name(secret).map_err(named(&format!("images.pullSecrets[{index}]")))?;
        }
        check_address(&self.control_address).map_err(named("controlAddress"))?;
        self.trust_domain
            .parse::<TrustDomain>()
            .map_err(|error| ("trustDomain".to_owned(), error.to_string()))?;
        check_dns_name(&self.cluster_domain).map_err(named("clusterDomain"))?;
        if !self.revision.is_empty() {
            check_label(&self.revision).map_err(named("revision"))?;
        }
        check_log_level(&self.log_level).map_err(named("logLevel"))?;
        if let Some(concurrency) = self.concurrency {
            check_concurrency(concurrency.into()).map_err(named("concurrency"))?;
        }
        for (name, resources) in [
            ("sidecar", &self.resources.sidecar),
            ("init", &self.resources.init),
        ] {
            if let Some((resource, request, limit)) = resources.contradiction() {
                return Err((
                    format!("resources.{name}.requests.{resource}"),
                    format!("{request} is more than the limit of {limit}"),
                ));
            }
        }
        for (item, text) in &self.capture {
            item.check(text).map_err(|problem| {
                // Its name in the file is what serde makes of it.
                let name = serde_json::to_value(item).unwrap_or_default();
                (
                    format!("capture.{}", name.as_str().unwrap_or_default()),
                    problem,
                )
            })?;
        }
        if self.token_audience.is_empty() {
            return Err((
                "tokenAudience".to_owned(),
                "empty: write the audience that the control plane checks (outrider)".to_owned(),
            ));
        }
        if self.token_seconds < SHORTEST_TOKEN {
            return Err((
                "tokenSeconds".to_owned(),
                format!(
                    "{} is less than the {SHORTEST_TOKEN} that Kubernetes grants at least",
                    self.token_seconds
                ),
            ));
        }
        Ok(())
    }
}

/// Checks a number of worker threads by the sidecar's own bounds.
///
/// # Errors
/// It is out of them.
pub(crate) fn check_concurrency(number: u32) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(number @ 1..=1024) => Ok(number),
        _ => Err(format!("`{number}` is not a number from 1 to 1024")),
    }
}

fn check_address(text: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "`{text}` is not host:port: write one like outrider-control.outrider-system.svc:15012"
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host_is_good = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => check_dns_name(host).is_ok(),
    };
    match port.parse::<u16>() {
        Ok(1..) if host_is_good => Ok(()),
        _ => Err(wrong()),
    }
}

/// A DNS subdomain as Kubernetes has it (RFC 1123).
fn check_dns_name(text: &str) -> Result<(), String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if text.len() > 253 || !text.split('.').all(is_label) {
        return Err(format!("`{text}` is not a DNS name of lower-case letters"));
    }
    Ok(())
}

/// What is both the value of a label and the end of objects' names.
fn check_label(text: &str) -> Result<(), String> {
    if text.len() > 40 || text.contains('.') || check_dns_name(text).is_err() {
        return Err(format!(
            "`{text}` is not a revision: at most 40 lower-case letters, digits and dashes"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str =
        "images: {sidecar: s:1, init: i:1}\ncontrolAddress: control.mesh.svc:15012\n";

    fn parse(more: &str) -> Result<Config, String> {
        Config::from_yaml(&format!("{LEAST}{more}"), Path::new("c.yaml"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_least_has_the_defaults_and_all_is_written_as_it_is_read() {
        let config = parse("").unwrap();
        assert_eq!(config.trust_domain, "cluster.local");
        assert_eq!(config.native_sidecar, NativeSidecar::Auto);
        assert_eq!(config.token_seconds, 3600);
        assert!(config.rewrite_probes && config.merge_metrics);
        let full = parse(
            "trustDomain: a.example\nclusterDomain: b.example\nrevision: canary\n\
             nativeSidecar: false\nlogLevel: debug\nconcurrency: 2\ndrainSeconds: 9\n\
             resources: {sidecar: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 2}}}\n\
             capture: {excludeOutboundPorts: '5432', includeCidrs: '*'}\n\
             tokenAudience: x\ntokenSeconds: 600\nrewriteProbes: false\nmergeMetrics: false\n",
        )
        .unwrap();
        assert_eq!(full.native_sidecar, NativeSidecar::Plain);
        assert_eq!(full.capture[&CaptureItem::ExcludeOutboundPorts], "5432");
        let written = serde_norway::to_string(&full).unwrap();
        assert_eq!(
            Config::from_yaml(&written, Path::new("c.yaml")).unwrap(),
            full
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_file_and_field() {
        for (more, named) in [
            ("colour: red", "unknown field `colour`"),
            ("nativeSidecar: perhaps", "auto, true and false"),
            ("nativeSidecar: [1]", "nativeSidecar"),
            ("trustDomain: Not/One", "trustDomain: "),
            ("clusterDomain: ''", "clusterDomain: "),
            ("revision: Canary", "revision: `Canary`"),
            ("logLevel: loud", "logLevel: `loud`"),
            ("concurrency: 0", "concurrency: `0`"),
            ("tokenSeconds: 60", "tokenSeconds: 60"),
            ("tokenAudience: ''", "tokenAudience: empty"),
            ("capture: {excludeCidrs: x}", "capture.excludeCidrs: `x`"),
            ("capture: {excludeAll: x}", "excludeAll"),
            (
                "resources: {init: {requests: {cpu: 2}, limits: {cpu: 100m}}}",
                "resources.init.requests.cpu: 2 is more",
            ),
            (
                "resources: {sidecar: {limits: {memory: much}}}",
                "resources.sidecar.limits: `much`",
            ),
        ] {
            let error = parse(more).unwrap_err();
            assert!(
                error.starts_with("c.yaml: ") && error.contains(named),
                "{more}: {error}"
            );
        }
        let error = Config::from_yaml("controlAddress: a:1", Path::new("c.yaml")).unwrap_err();
        assert!(error.to_string().contains("missing field `images`"));
        for address in ["control", "control:0", ":1", "a b:1", "[::g]:1"] {
            assert!(check_address(address).is_err(), "{address}");
        }
        assert!(check_address("[::1]:15012").is_ok());
    }
}
