//! The injector's configuration as the chart makes it of its default values, which are built in.

use std::path::Path;

use outrider_injector::Config;
use outrider_injector::config::ConfigError;
use serde_json::{Map, Value, json};

use crate::cluster::Installation;
use crate::version::OWN;

const VALUES: &str = include_str!("../../../charts/outrider/values.yaml");

/// What `charts/outrider/templates/injector/config.yaml` writes.
///
/// # Errors
/// A name of the installation cannot be one.
pub(crate) fn configuration(installation: &Installation) -> Result<Config, ConfigError> {
    let path = Path::new("--system-namespace and --revision");
    let parse = |source| ConfigError::Parse {
        path: path.to_owned(),
        source,
    };
    let values: Value = serde_norway::from_str(VALUES).map_err(parse)?;
    let (image, sidecar) = (&values["image"], &values["sidecar"]);
    let tag = image["tag"].as_str().filter(|tag| !tag.is_empty());
    let registry = image["registry"].as_str().unwrap_or_default();
    let named = |name| format!("{registry}/outrider-{name}:{}", tag.unwrap_or(OWN));
    let mut images = json!({"sidecar": named("sidecar"), "init": named("init")});
    images["pullSecrets"] = image["pullSecrets"].clone();
    let capture = sidecar["capture"].as_object().into_iter().flatten();
    let capture: Map<_, _> = capture
        .filter(|(_, text)| is_set(text))
        .map(|(item, text)| (item.clone(), text.clone()))
        .collect();
    let (control, namespace) = (installation.control(), &installation.namespace);
    let mut configuration = json!({
        "controlAddress": format!("{control}.{namespace}.svc:15012"),
        "trustDomain": values["trustDomain"],
        "clusterDomain": values["clusterDomain"],
        "revision": installation.revision,
        "nativeSidecar": sidecar["native"],
        "logLevel": sidecar["logLevel"],
        "rewriteProbes": sidecar["rewriteProbes"],
        "mergeMetrics": sidecar["mergeMetrics"],
        "resources": {"sidecar": sidecar["resources"], "init": sidecar["init"]["resources"]},
        "capture": capture,
    });
    for (name, value) in [
        ("concurrency", &sidecar["concurrency"]),
        ("drainSeconds", &sidecar["drainSeconds"]),
    ] {
        if is_set(value) {
            configuration[name] = value.clone();
        }
    }
    if is_set(&image["pullPolicy"]) {
        images["pullPolicy"] = image["pullPolicy"].clone();
    }
    configuration["images"] = images;
    let text = serde_norway::to_string(&configuration).map_err(parse)?;
    Config::from_yaml(&text, path)
}

/// Whether the chart's templates count a value as one.
fn is_set(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_values_make_a_configuration() {
        let installation = Installation {
            namespace: "mesh".to_owned(),
            revision: "canary".to_owned(),
        };
        let config = configuration(&installation).unwrap();
        assert_eq!(
            config.control_address,
            "outrider-control-canary.mesh.svc:15012"
        );
        let image = format!("ghcr.io/outrider/outrider-init:{OWN}");
        assert_eq!(
            (config.images.init, config.revision.as_str()),
            (image, "canary")
        );
        assert!(config.rewrite_probes && config.capture.is_empty());
        let wrong = Installation {
            revision: "Not a label".to_owned(),
            ..installation
        };
        let error = configuration(&wrong).unwrap_err().to_string();
        assert!(
            error.contains("--system-namespace and --revision: "),
            "{error}"
        );
    }
}
