//! The bootstrap: Envoy's v3 `Bootstrap`, from a file in YAML or JSON or made from the environment of
//! a pod, checked as a whole before any socket is bound.

mod build;
pub mod mesh;
pub mod options;
mod read;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use outrider_xds::pb::envoy::config::core::v3::Node;
use prost::Message as _;

use crate::config::address::Address;
use crate::config::cluster::BindConfig;
use crate::config::dns::LookupSettings;
use crate::config::error::Problems;
use crate::config::matcher::StringMatcher;
use crate::config::source::{GrpcSource, ResourceSource};
use crate::runtime::overload::OverloadConfig;
use crate::runtime_layer::layers::LayerSource;
use crate::telemetry::metrics::StatsRules;
use crate::telemetry::program_log::Pattern;
use mesh::{EnvironmentError, Mesh};
use options::Options;

/// What stands for the file where there is none.
const ENVIRONMENT: &str = "(environment)";
/// What stands for the file where all of it is on the command line.
const COMMAND_LINE: &str = "(--config-yaml)";

/// Why the process cannot start with this file.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// It cannot be read.
    #[error("{}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is neither YAML, JSON nor protobuf, or its name says that it is something else.
    #[error("{origin}: {reason}")]
    Syntax {
        /// The file, or what stands for it.
        origin: String,
        /// What and where.
        reason: String,
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
#[derive(Debug, Default)]
pub struct Bootstrap {
    /// The file, or `(environment)`.
    pub origin: String,
    /// The pod, where it comes from the environment.
    pub mesh: Option<Mesh>,
    /// The whole file, encoded, for `/config_dump`.
    pub bytes: Arc<[u8]>,
    /// Who we are, for discovery servers.
    pub node: Node,
    /// `admin`
    pub admin: Admin,
    /// `static_resources.secrets`
    pub secrets: Vec<StaticResource>,
    /// `static_resources.clusters`
    pub clusters: Vec<StaticResource>,
    /// `static_resources.listeners`
    pub listeners: Vec<StaticResource>,
    /// `dynamic_resources.ads_config`
    pub ads: Option<GrpcSource>,
    /// `dynamic_resources.cds_config`
    pub cds: Option<ResourceSource>,
    /// `dynamic_resources.lds_config`
    pub lds: Option<ResourceSource>,
    /// `cluster_manager.upstream_bind_config`
    pub default_bind: Option<BindConfig>,
    /// `cluster_manager.local_cluster_name`
    pub local_cluster: Option<Arc<str>>,
    /// `typed_dns_resolver_config`, or the older fields of its kind.
    pub default_lookup: LookupSettings,
    /// `layered_runtime`, lowest layer first.
    pub runtime: Vec<LayerSource>,
    /// `application_log_config`
    pub log_pattern: Option<Pattern>,
    /// `overload_manager`
    pub overload: Option<OverloadConfig>,
    /// `stats_config`
    pub stats_rules: Option<StatsRules>,
    /// `stats_server_version_override`
    pub server_version: Option<u64>,
}

/// `Admin`.
#[derive(Debug, Default)]
pub struct Admin {
    /// `address`; `None` opens no admin API.
    pub address: Option<Address>,
    /// `allow_paths`: only paths that one of these matches are answered; none: all.
    pub allow_paths: Vec<StringMatcher>,
}

/// Reads and checks the file that the options name, or else the environment, looked up by `variable`.
/// What is wrong with fields is kept in `problems`; the rest is as the file has it.
///
/// # Errors
/// There is nothing that could be looked at.
pub fn load(
    options: &Options,
    variable: impl Fn(&str) -> Option<OsString>,
    problems: &mut Problems,
) -> Result<Bootstrap, BootstrapError> {
    let yaml = options.config_yaml.as_deref();
    if options.config_path.is_none() && yaml.is_none() {
        let mesh = Mesh::from_environment(variable)?;
        let bytes = mesh.bootstrap().encode_to_vec();
        let mut bootstrap = build::build(bytes, options, problems);
        bootstrap.mesh = Some(mesh);
        bootstrap.origin = ENVIRONMENT.to_owned();
        return Ok(bootstrap);
    }
    // As protobuf merges messages: their bytes one after the other are those of the merged one.
    let mut bytes = Vec::new();
    let mut origin = COMMAND_LINE.to_owned();
    if let Some(path) = &options.config_path {
        origin = path.display().to_string();
        bytes = read::file(path, &origin, options, problems)?;
    }
    if let Some(text) = yaml {
        bytes.extend(read::yaml(text, COMMAND_LINE, options, problems)?);
    }
    let mut bootstrap = build::build(bytes, options, problems);
    bootstrap.origin = origin;
    Ok(bootstrap)
}

/// Checks a text that no file has.
#[cfg(feature = "fuzzing")]
pub fn check_text(text: &str) {
    use clap::Parser as _;
    let mut options = Options::parse_from(["outrider-sidecar"]);
    options.config_yaml = Some(text.to_owned());
    let _ = load(&options, |_| None, &mut Problems::default());
}

#[cfg(test)]
mod tests;
