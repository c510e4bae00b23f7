//! The environment variables of a sidecar in a pod.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use http::uri::Authority;

use super::{Mesh, labels};
use crate::pod;

const DISCOVERY_ADDRESS: &str = "OUTRIDER_DISCOVERY_ADDRESS";
const CA_ADDRESS: &str = "OUTRIDER_CA_ADDRESS";
const LABELS_FILE: &str = "OUTRIDER_LABELS_FILE";

/// What must be there, and what it is.
const NEEDED: &[(&str, &str)] = &[
    ("POD_NAME", "the pod's name"),
    ("POD_NAMESPACE", "its namespace"),
    ("POD_IPS", "its addresses, separated by commas"),
    ("SERVICE_ACCOUNT", "its service account"),
    (CA_ADDRESS, "the control plane, host:port"),
    ("OUTRIDER_TOKEN_FILE", "the token that proves who we are"),
    ("OUTRIDER_ROOT_FILE", "the roots that verify the mesh"),
];

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// There is neither a file nor the environment of a pod.
    #[error(
        "there is no configuration: give a bootstrap file (-c FILE), or the environment of a pod \
         of the mesh, of which these are not set: {}",
        list(.missing)
    )]
    Missing {
        /// The variables.
        missing: Vec<&'static str>,
    },
    /// A variable has a value that it cannot have.
    #[error("{variable} is {value:?}: {reason}")]
    Value {
        /// Its name.
        variable: &'static str,
        /// What it is.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// The pod's labels cannot be had.
    #[error("{} ({LABELS_FILE}): {reason}", .path.display())]
    Labels {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What is said of the application.
    #[error(transparent)]
    Application(#[from] pod::ApplicationError),
}

fn list(missing: &[&'static str]) -> String {
    let purpose = |name: &str| NEEDED.iter().find(|(needed, _)| *needed == name);
    let described = missing.iter().map(|name| match purpose(name) {
        Some((_, purpose)) => format!("{name} ({purpose})"),
        None => (*name).to_owned(),
    });
    described.collect::<Vec<_>>().join(", ")
}

/// Whether a variable that is a switch is on.
///
/// # Errors
/// It is neither `true` nor `false`.
fn is_set(
    name: &'static str,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<bool, EnvironmentError> {
    match variable(name).as_ref().map(|value| value.to_string_lossy()) {
        None => Ok(false),
        Some(value) if value.is_empty() || value == "false" => Ok(false),
        Some(value) if value == "true" => Ok(true),
        Some(value) => Err(invalid(name, &value, "it must be true or false")),
    }
}

fn invalid(variable: &'static str, value: &str, reason: impl ToString) -> EnvironmentError {
    EnvironmentError::Value {
        variable,
        value: value.to_owned(),
        reason: reason.to_string(),
    }
}

impl Mesh {
    /// What the variables say, looked up by `variable`; an empty one is none.
    ///
    /// # Errors
    /// [`EnvironmentError`]
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, EnvironmentError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let missing: Vec<_> = NEEDED
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| variable(name).is_none())
            .collect();
        if !missing.is_empty() {
            return Err(EnvironmentError::Missing { missing });
        }
        let text = |name: &'static str| -> Result<String, EnvironmentError> {
            let value = variable(name).unwrap_or_default();
            let value = value.into_string();
            value.map_err(|value| invalid(name, &value.to_string_lossy(), "it is not UTF-8"))
        };
        let or = |text: String, default: &str| match text.is_empty() {
            true => default.to_owned(),
            false => text,
        };
        let control = match variable(DISCOVERY_ADDRESS) {
            Some(_) => DISCOVERY_ADDRESS,
            None => CA_ADDRESS,
        };
        let address = text(control)?;
        let control = host_and_port(&address)
            .ok_or_else(|| invalid(control, &address, "it is not host:port"))?;
        let addresses = text("POD_IPS")?;
        Ok(Mesh {
            pod: text("POD_NAME")?,
            namespace: text("POD_NAMESPACE")?,
            addresses: addresses_of(&addresses)
                .ok_or_else(|| invalid("POD_IPS", &addresses, "it is no list of addresses"))?,
            service_account: text("SERVICE_ACCOUNT")?,
            node: text("NODE_NAME")?,
            control,
            root_file: PathBuf::from(variable("OUTRIDER_ROOT_FILE").unwrap_or_default()),
            cluster_domain: or(text("OUTRIDER_CLUSTER_DOMAIN")?, "cluster.local"),
            trust_domain: or(text("OUTRIDER_TRUST_DOMAIN")?, "cluster.local"),
            revision: text("OUTRIDER_REVISION")?,
            labels: match variable(LABELS_FILE) {
                Some(path) => labels_of(Path::new(&path))?,
                None => Vec::new(),
            },
            state: variable("OUTRIDER_STATE_DIR").map(PathBuf::from),
            native: is_set("OUTRIDER_NATIVE", variable)?,
            application: pod::Application::from_environment(variable)?,
        })
    }
}

/// The host (without the brackets of an IPv6 address) and the port of `host:port`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let authority: Authority = text.parse().ok()?;
    let port = authority.port_u16().filter(|port| *port != 0)?;
    // `user@host` is an authority too.
    if text.contains('@') {
        return None;
    }
    let host = authority.host();
    let inner = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some((inner.unwrap_or(host).to_owned(), port))
}

fn addresses_of(text: &str) -> Option<Vec<IpAddr>> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let addresses: Option<Vec<IpAddr>> = parts.map(|part| part.parse().ok()).collect();
    addresses.filter(|addresses| !addresses.is_empty())
}

fn labels_of(path: &Path) -> Result<Vec<(String, String)>, EnvironmentError> {
    let wrong = |reason: String| EnvironmentError::Labels {
        path: path.to_owned(),
        reason,
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    labels::parse(&text).map_err(|line| wrong(format!("line {line} is not name=\"value\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: &[(&str, &str)] = &[
        ("POD_NAME", "cart-1"),
        ("POD_NAMESPACE", "shop"),
        ("POD_IPS", "10.0.0.1, fd00::1"),
        ("SERVICE_ACCOUNT", "cart"),
        (
            "OUTRIDER_CA_ADDRESS",
            "outrider-control.outrider-system.svc:15012",
        ),
        ("OUTRIDER_TOKEN_FILE", "/token"),
        ("OUTRIDER_ROOT_FILE", "/root.pem"),
    ];

    fn read(changes: &[(&str, &str)]) -> Result<Mesh, EnvironmentError> {
        Mesh::from_environment(|name| {
            let mut all = changes.iter().chain(COMPLETE);
            let (_, value) = all.find(|(key, _)| *key == name)?;
            Some(OsString::from(value))
        })
    }

    #[test]
    fn the_environment_of_a_pod_is_a_bootstrap() {
        let mesh = read(&[("OUTRIDER_NATIVE", "true")]).unwrap();
        assert!(mesh.native);
        let id = "sidecar~10.0.0.1~cart-1.shop~shop.svc.cluster.local";
        assert_eq!(mesh.node_id(), id);
        let control = ("outrider-control.outrider-system.svc".to_owned(), 15012);
        assert_eq!(mesh.control, control);
        let proto = mesh.bootstrap();
        let metadata = proto.node.unwrap().metadata.unwrap();
        let addresses = &metadata.fields["INSTANCE_IPS"].kind;
        let expected = outrider_xds::pb::google::protobuf::value::Kind::StringValue;
        assert_eq!(*addresses, Some(expected("10.0.0.1,fd00::1".into())));
        let other = read(&[("OUTRIDER_DISCOVERY_ADDRESS", "[fd00::2]:1")]).unwrap();
        assert_eq!(other.control, ("fd00::2".to_owned(), 1));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (
                &[("POD_NAME", ""), ("OUTRIDER_CA_ADDRESS", "")],
                "give a bootstrap file (-c FILE), or the environment of a pod of the mesh, of which \
                 these are not set: POD_NAME (the pod's name), OUTRIDER_CA_ADDRESS (the control \
                 plane, host:port)",
            ),
            (
                &[("POD_IPS", "10.0.0.1,x")],
                "POD_IPS is \"10.0.0.1,x\": it is no list of addresses",
            ),
            (
                &[("OUTRIDER_DISCOVERY_ADDRESS", "control")],
                "OUTRIDER_DISCOVERY_ADDRESS is \"control\": it is not host:port",
            ),
            (
                &[("OUTRIDER_NATIVE", "yes")],
                "OUTRIDER_NATIVE is \"yes\": it must be true or false",
            ),
            (
                &[("OUTRIDER_LABELS_FILE", "/nowhere")],
                "/nowhere (OUTRIDER_LABELS_FILE): No such file",
            ),
            (&[("OUTRIDER_PROBES", "{")], "OUTRIDER_PROBES: "),
        ];
        for (changes, expected) in cases {
            let error = read(changes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}\n expected {expected}");
        }
    }
}
