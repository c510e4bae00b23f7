//! The annotations by which Prometheus finds what to scrape: sent to the sidecar's port 15020,
//! which answers with the app's metrics and its own. The app's port may be closed to a scraper
//! without an identity.

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use super::Refusal;
use super::editor::Editor;
use super::names::{HEALTH_PORT, METRICS_PATH};
use super::status::Status;

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
const SCHEME: &str = "prometheus.io/scheme";

/// What became of the annotations.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// Where the app's own metrics are, if it has any.
    pub(super) app: Option<Value>,
    pub(super) warning: Option<String>,
}

/// Sends scrapes to the sidecar, unless the pod refuses to be scraped.
pub(super) fn merge(
    editor: &mut Editor,
    status: &mut Status,
    annotations: &BTreeMap<String, String>,
    spec: &PodSpec,
) -> Result<Merged, Refusal> {
    let of_app = |key: &str| annotations.get(key).map(String::as_str);
    let mut merged = Merged::default();
    match of_app(SCRAPE) {
        Some("true") => {
            let path = of_app(PATH).filter(|path| !path.is_empty());
            let scheme = of_app(SCHEME).filter(|scheme| !scheme.is_empty());
            // What the sidecar could not read would keep it from starting.
            let wrong = |key: &str, what: &str| {
                let value = of_app(key).unwrap_or_default();
                Some(format!(
                    "annotation {key}: `{value}` is not {what}: the annotations of Prometheus are \
                     left as they are"
                ))
            };
            let Some(port) = port(of_app(PORT), spec) else {
                merged.warning = wrong(PORT, "a port");
                return Ok(merged);
            };
            if path.is_some_and(|path| format!("/{path}").parse::<PathAndQuery>().is_err()) {
                merged.warning = wrong(PATH, "the path of a URL");
                return Ok(merged);
            }
            if !matches!(scheme, None | Some("http" | "https")) {
                merged.warning = wrong(SCHEME, "http or https");
                return Ok(merged);
            }
            if port != HEALTH_PORT {
                merged.app = Some(json!({
                    "port": port,
                    "path": path.unwrap_or("/metrics"),
                    "scheme": scheme.unwrap_or("http"),
                }));
            }
        }
        None => status.set(editor, "annotations", SCRAPE, "true")?,
        // Its author wants no scrape.
        Some(_) => return Ok(merged),
    }
    status.set(editor, "annotations", PORT, &HEALTH_PORT.to_string())?;
    status.set(editor, "annotations", PATH, METRICS_PATH)?;
    if of_app(SCHEME).is_some() {
        status.set(editor, "annotations", SCHEME, "http")?;
    }
    Ok(merged)
}

/// The annotation's port, else the first that a container declares, else HTTP's.
fn port(written: Option<&str>, spec: &PodSpec) -> Option<u16> {
    match written {
        Some(text) => text.parse().ok().filter(|port| *port > 0),
        None => {
            let mut ports = spec
                .containers
                .iter()
                .flat_map(|c| c.ports.iter().flatten());
            let first = ports.next().map_or(80, |port| port.container_port);
            first.try_into().ok()
        }
    }
}
