//! A pod's own wishes: labels and annotations under `outrider.dev/`, over the configuration.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::config::{
    Config, NativeSidecar, ResourceRequirements, ServerVersion, check_concurrency,
};
use crate::patch::outcome::{Left, Refusal};
use crate::values::{CaptureItem, Quantity, check_image, check_log_level};

/// What all names of labels and annotations begin with.
pub const PREFIX: &str = "outrider.dev/";
/// The annotation by which the injector remembers what it did.
pub(super) const STATUS: &str = "outrider.dev/status";
/// The label by which others know that the pod speaks mutual TLS.
pub(super) const MUTUAL_TLS: &str = "outrider.dev/mutual-tls";

/// Every annotation but those of what is captured.
const NAMES: [&str; 13] = [
    "status",
    "cpu-request",
    "cpu-limit",
    "memory-request",
    "memory-limit",
    "log-level",
    "concurrency",
    "sidecar-image",
    "init-image",
    "drain-seconds",
    "native-sidecar",
    "rewrite-probes",
    "merge-metrics",
];
/// A name that is this much like another (Jaro-Winkler) is taken for a typing error of it.
const ALIKE: f64 = 0.8;
/// The longest drain: a day.
const LONGEST_DRAIN: u32 = 86_400;

/// What holds for one pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) native: bool,
    pub(super) sidecar_image: String,
    pub(super) init_image: String,
    pub(super) rewrite_probes: bool,
    pub(super) merge_metrics: bool,
    pub(super) log_level: String,
    pub(super) concurrency: Option<u16>,
    pub(super) drain_seconds: Option<u32>,
    pub(super) resources: ResourceRequirements,
    pub(super) capture: BTreeMap<CaptureItem, String>,
    /// Of annotations that do nothing. They do not keep a pod from running: those of a newer
    /// injector must not once an older one is back.
    pub(super) warnings: Vec<String>,
}

/// What the labels ask for: `Some` if nothing.
pub(super) fn by_labels(
    labels: &BTreeMap<String, String>,
    config: &Config,
) -> Result<Option<Left>, Refusal> {
    let label = |name: &str| labels.get(&format!("{PREFIX}{name}")).map(String::as_str);
    match label("inject") {
        None | Some("enabled") => {}
        Some("disabled") => return Ok(Some(Left::Disabled)),
        Some(value) => {
            return Err(Refusal::Label {
                name: "inject",
                value: value.to_owned(),
                wanted: "enabled or disabled",
            });
        }
    }
    match label("rev") {
        // The namespace may have chosen this injector.
        None => Ok(None),
        Some(revision) if revision == config.revision => Ok(None),
        Some(revision) => Ok(Some(Left::OtherRevision(revision.to_owned()))),
    }
}

impl Settings {
    pub(super) fn new(
        annotations: &BTreeMap<String, String>,
        server: Option<ServerVersion>,
        config: &Config,
    ) -> Result<Self, Refusal> {
        let mut settings = Self {
            native: config.native_sidecar.resolve(server),
            sidecar_image: config.images.sidecar.clone(),
            init_image: config.images.init.clone(),
            rewrite_probes: config.rewrite_probes,
            merge_metrics: config.merge_metrics,
            log_level: config.log_level.clone(),
            concurrency: config.concurrency,
            drain_seconds: config.drain_seconds,
            resources: config.resources.sidecar.clone(),
            capture: config.capture.clone(),
            warnings: Vec::new(),
        };
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(PREFIX) else {
                continue;
            };
            match settings.apply(name, value, server) {
                Ok(()) => {}
                Err(Problem::Name) => settings.warnings.push(unknown(name)),
                Err(Problem::Value(problem)) => {
                    return Err(Refusal::Annotation {
                        name: name.to_owned(),
                        problem,
                    });
                }
            }
        }
        settings.check(annotations)?;
        Ok(settings)
    }

    fn apply(
        &mut self,
        name: &str,
        value: &str,
        server: Option<ServerVersion>,
    ) -> Result<(), Problem> {
        let (requests, limits) = (&mut self.resources.requests, &mut self.resources.limits);
        match name {
            "status" => {}
            "cpu-request" => requests.cpu = Some(quantity(value)?),
            "cpu-limit" => limits.cpu = Some(quantity(value)?),
            "memory-request" => requests.memory = Some(quantity(value)?),
            "memory-limit" => limits.memory = Some(quantity(value)?),
            "log-level" => {
                check_log_level(value)?;
                value.clone_into(&mut self.log_level);
            }
            "concurrency" => {
                self.concurrency = Some(check_concurrency(number(value)?)?);
            }
            "sidecar-image" => {
                check_image(value)?;
                value.clone_into(&mut self.sidecar_image);
            }
            "init-image" => {
                check_image(value)?;
                value.clone_into(&mut self.init_image);
            }
            "drain-seconds" => {
                let seconds = number(value)?;
                if seconds > LONGEST_DRAIN {
                    return Err(Problem::Value(format!(
                        "{seconds} is more than the {LONGEST_DRAIN} of a day"
                    )));
                }
                self.drain_seconds = Some(seconds);
            }
            "native-sidecar" => self.native = native(flag(value)?, server)?,
            "rewrite-probes" => self.rewrite_probes = flag(value)?,
            "merge-metrics" => self.merge_metrics = flag(value)?,
            name => {
                let item = CaptureItem::ALL
                    .into_iter()
                    .find(|item| item.annotation() == name)
                    .ok_or(Problem::Name)?;
                item.check(value)?;
                self.capture.insert(item, value.to_owned());
            }
        }
        Ok(())
    }

    /// Checks what the annotations make of the configuration's amounts.
    fn check(&self, annotations: &BTreeMap<String, String>) -> Result<(), Refusal> {
        let Some((resource, request, limit)) = self.resources.contradiction() else {
            return Ok(());
        };
        // The one that the pod sets is to blame; the configuration alone was checked.
        let limit_name = format!("{resource}-limit");
        let (name, problem) = if annotations.contains_key(&format!("{PREFIX}{limit_name}")) {
            let problem = format!(
                "{limit} is less than the request of {request}: lower {PREFIX}{resource}-request too"
            );
            (limit_name, problem)
        } else {
            let problem = format!(
                "{request} is more than the limit of {limit}: raise {PREFIX}{limit_name} too"
            );
            (format!("{resource}-request"), problem)
        };
        Err(Refusal::Annotation { name, problem })
    }
}

enum Problem {
    Value(String),
    Name,
}

impl From<String> for Problem {
    fn from(problem: String) -> Self {
        Self::Value(problem)
    }
}

fn quantity(value: &str) -> Result<Quantity, String> {
    Quantity::from_str(value)
}

fn number(value: &str) -> Result<u32, String> {
    value
        .parse()
        .map_err(|_| format!("`{value}` is not a whole number"))
}

fn flag(value: &str) -> Result<bool, String> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{value}` is neither true nor false")),
    }
}

/// An API server that does not know native sidecars drops `restartPolicy`, and the pod would wait
/// for its sidecar to end before the app starts.
fn native(wanted: bool, server: Option<ServerVersion>) -> Result<bool, String> {
    if wanted
        && !NativeSidecar::Auto.resolve(server)
        && let Some(ServerVersion { major, minor }) = server
    {
        return Err(format!(
            "the API server is of version {major}.{minor}, which has no native sidecars: write \
             false, or nothing"
        ));
    }
    Ok(wanted)
}

fn unknown(name: &str) -> String {
    let nearest = match name {
        "inject" | "rev" => format!("; {PREFIX}{name} is a label: set it among the pod's labels"),
        name => {
            let capture = CaptureItem::ALL.into_iter().map(CaptureItem::annotation);
            let alike = NAMES
                .into_iter()
                .chain(capture)
                .map(|known| (strsim::jaro_winkler(name, known), known))
                .max_by(|(one, _), (other, _)| one.total_cmp(other));
            match alike {
                Some((measure, known)) if measure >= ALIKE => {
                    format!("; did you mean {PREFIX}{known}?")
                }
                _ => String::new(),
            }
        }
    };
    format!(
        "annotation {PREFIX}{name}: this injector knows no such annotation, so that it does \
         nothing{nearest}"
    )
}
