//! The bootstrap: Envoy's v3 `Bootstrap`, from a file in YAML or JSON or made from the environment of
//! a pod, checked as a whole before any socket is bound.

pub mod mesh;
pub mod options;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use outrider_xds::pb::envoy::config::bootstrap::v3 as proto;
use outrider_xds::pb::envoy::config::core::v3::Node;
use outrider_xds::pb::envoy::config::core::v3::node::UserAgentVersionType;
use outrider_xds::transcode;
use prost::Message;

use crate::config::address::Address;
use crate::config::build::resource::checked;
use crate::config::build::{self, Within};
use crate::config::cluster::BindConfig;
use crate::config::error::ConfigError;
use crate::config::source::{GrpcSource, Origin};
use mesh::{EnvironmentError, Mesh};
use options::Options;

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// What stands for the file where there is none.
const ENVIRONMENT: &str = "(environment)";

/// Why the process cannot start with this file.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither YAML nor JSON.
    #[error("{}: {reason}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What and where.
        reason: String,
    },
    /// A field does not exist, has the wrong type, an invalid value, or is not supported.
    #[error("{}: {error}", .path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field, and why.
        error: ConfigError,
    },
    /// There is no file, and the environment does not say what to do either.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
}

/// A resource of the file, encoded.
#[derive(Clone, Debug)]
pub struct StaticResource {
    /// Its name.
    pub name: Arc<str>,
    /// Where it stands, for errors: `static_resources.clusters[0]`.
    pub path: String,
    /// The message.
    pub bytes: Arc<[u8]>,
}

/// The bootstrap as the process uses it.
#[derive(Debug)]
pub struct Bootstrap {
    /// The file, or `(environment)`.
    pub origin: String,
    /// The pod, where it comes from the environment.
    pub mesh: Option<Mesh>,
    /// The whole file, encoded, for `/config_dump`.
    pub bytes: Arc<[u8]>,
    /// Who we are, for discovery servers.
    pub node: Node,
    /// `admin.address`; `None` opens no admin API.
    pub admin: Option<SocketAddr>,
    /// `static_resources.secrets`
    pub secrets: Vec<StaticResource>,
    /// `static_resources.clusters`
    pub clusters: Vec<StaticResource>,
    /// `static_resources.listeners`
    pub listeners: Vec<StaticResource>,
    /// `dynamic_resources.ads_config`
    pub ads: Option<GrpcSource>,
    /// `dynamic_resources.cds_config`
    pub cds: Option<Origin>,
    /// `dynamic_resources.lds_config`
    pub lds: Option<Origin>,
    /// `cluster_manager.upstream_bind_config`
    pub default_bind: Option<BindConfig>,
}

/// Reads and checks the file that the options name, or else the environment, looked up by `variable`.
///
/// # Errors
/// The file and the field's path. What is refused in the static resources shows when they are built.
pub fn load(
    options: &Options,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Bootstrap, BootstrapError> {
    let Some(path) = &options.config_path else {
        let mesh = Mesh::from_environment(variable)?;
        let proto = mesh.bootstrap();
        let bytes = proto.encode_to_vec().into();
        let mut bootstrap = checked_build(Path::new(ENVIRONMENT), bytes, options)?;
        bootstrap.mesh = Some(mesh);
        return Ok(bootstrap);
    };
    let text = std::fs::read_to_string(path).map_err(|source| BootstrapError::Read {
        path: path.clone(),
        source,
    })?;
    parse(path, &text, options)
}

/// Checks a text that no file has.
#[cfg(feature = "fuzzing")]
pub fn check_text(text: &str) {
    use clap::Parser as _;
    let options = Options::parse_from(["outrider-sidecar"]);
    let _ = parse(Path::new("fuzzed.yaml"), text, &options);
}

/// Checks a file's text.
fn parse(path: &Path, text: &str, options: &Options) -> Result<Bootstrap, BootstrapError> {
    let syntax = |reason: String| BootstrapError::Syntax {
        path: path.to_owned(),
        reason,
    };
    let value = if path
        .extension()
        .is_some_and(|extension| extension == "json")
    {
        serde_json::from_str(text).map_err(|error| syntax(error.to_string()))?
    } else {
        transcode::yaml_to_value(text).map_err(|error| syntax(error.to_string()))?
    };
    let bytes =
        transcode::json_to_proto(BOOTSTRAP, &value).map_err(|error| syntax(error.to_string()))?;
    checked_build(path, bytes.into(), options)
}

fn checked_build(
    path: &Path,
    bytes: Arc<[u8]>,
    options: &Options,
) -> Result<Bootstrap, BootstrapError> {
    let built = checked(&bytes).and_then(|proto: proto::Bootstrap| build(bytes, proto, options));
    let mut bootstrap = built.map_err(|error| BootstrapError::Field {
        path: path.to_owned(),
        error,
    })?;
    bootstrap.origin = path.display().to_string();
    Ok(bootstrap)
}

fn build(
    bytes: Arc<[u8]>,
    proto: proto::Bootstrap,
    options: &Options,
) -> Result<Bootstrap, ConfigError> {
    let mut node = proto.node.unwrap_or_default();
    if let Some(id) = &options.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &options.service_cluster {
        node.cluster.clone_from(cluster);
    }
    node.user_agent_name = "outrider-sidecar".into();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentVersion(version));
    let fixed = proto.static_resources.unwrap_or_default();
    let dynamic = proto.dynamic_resources.unwrap_or_default();
    let origin = |source: Option<_>, field: &str| {
        let built = source.as_ref().map(build::source::build).transpose();
        built
            .map(|source| source.map(|source| source.origin))
            .within(field)
    };
    let ads = dynamic
        .ads_config
        .as_ref()
        .map(build::source::grpc)
        .transpose();
    let ads = ads.within("dynamic_resources.ads_config")?;
    let cds = origin(dynamic.cds_config, "dynamic_resources.cds_config")?;
    let lds = origin(dynamic.lds_config, "dynamic_resources.lds_config")?;
    for (source, field) in [(&cds, "cds_config"), (&lds, "lds_config")] {
        match source {
            Some(Origin::Ads) if ads.is_none() => {
                let reason = "is `ads`, but there is no ads_config";
                return Err(ConfigError::new(
                    format_args!("dynamic_resources.{field}"),
                    reason,
                ));
            }
            Some(Origin::Grpc(_)) => {
                let reason = "a stream of its own is not supported: use `ads`";
                return Err(ConfigError::new(
                    format_args!("dynamic_resources.{field}"),
                    reason,
                ));
            }
            _ => {}
        }
    }
    let admin = proto
        .admin
        .map(|admin| admin_address(&admin))
        .transpose()
        .within("admin")?
        .flatten();
    let default_bind = proto
        .cluster_manager
        .and_then(|manager| manager.upstream_bind_config);
    Ok(Bootstrap {
        origin: String::new(),
        mesh: None,
        bytes,
        node,
        admin,
        secrets: resources("secrets", fixed.secrets, |secret| &secret.name)?,
        clusters: resources("clusters", fixed.clusters, |cluster| &cluster.name)?,
        listeners: resources("listeners", fixed.listeners, |listener| &listener.name)?,
        ads,
        cds,
        lds,
        default_bind: default_bind
            .map(|bind| {
                build::cluster::bind_config(&bind).within("cluster_manager.upstream_bind_config")
            })
            .transpose()?,
    })
}

fn admin_address(admin: &proto::Admin) -> Result<Option<SocketAddr>, ConfigError> {
    if admin.address.is_none() {
        return Ok(None);
    }
    match build::address(&admin.address, "address")? {
        Address::Socket(address) if address.ip().to_canonical().is_loopback() => Ok(Some(address)),
        other => Err(ConfigError::new(
            "address",
            format_args!(
                "{other} is not on loopback: the admin API is unauthenticated, use 127.0.0.1 or ::1"
            ),
        )),
    }
}

/// Encodes each resource; one without a name (a listener may have none) is named by its place.
fn resources<M: Message>(
    kind: &str,
    resources: Vec<M>,
    name: impl Fn(&M) -> &String,
) -> Result<Vec<StaticResource>, ConfigError> {
    let mut built: Vec<StaticResource> = Vec::with_capacity(resources.len());
    for (index, resource) in resources.iter().enumerate() {
        let path = format!("static_resources.{kind}[{index}]");
        let name: Arc<str> = match name(resource).as_str() {
            "" => path.as_str().into(),
            name => name.into(),
        };
        if let Some(other) = built.iter().find(|other| other.name == name) {
            let reason = format!("{} has the name `{name}` too", other.path);
            return Err(ConfigError::new(format_args!("{path}.name"), reason));
        }
        built.push(StaticResource {
            name,
            path,
            bytes: resource.encode_to_vec().into(),
        });
    }
    Ok(built)
}

#[cfg(test)]
mod tests;
