//! `LayeredRuntime`: where the values of each layer come from.

use std::path::PathBuf;
use std::sync::Arc;

use envoy_types::pb::envoy::config::bootstrap::v3 as proto;
use envoy_types::pb::envoy::config::bootstrap::v3::runtime_layer::{
    DiskLayer, LayerSpecifier, RtdsLayer,
};
use envoy_types::pb::envoy::service::runtime::v3::Runtime;

use super::store::{Layer, Values};
use super::value::{self, Value};
use crate::config::build::fields::{each, named, one_of, required};
use crate::config::build::{Within as _, source, struct_value};
use crate::config::error::{ConfigError, Result};
use crate::config::source::{Origin, ResourceSource};

/// A layer, and where its values are.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSource {
    /// `name`
    pub name: String,
    /// `layer_specifier`
    pub kind: LayerKind,
}

/// `layer_specifier`
#[derive(Clone, Debug, PartialEq)]
pub enum LayerKind {
    /// `static_layer`
    Static(Values),
    /// `disk_layer`
    Disk(Directory),
    /// `admin_layer`
    Admin,
    /// `rtds_layer`
    Discovered {
        /// `name`, of the resource.
        resource: Arc<str>,
        /// `rtds_config`
        source: ResourceSource,
    },
}

/// A directory whose files are values: the path below it, with dots, is the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Directory {
    /// `symlink_root`: what changes when a link is put in its place.
    pub root: PathBuf,
    /// Where the files are.
    pub path: PathBuf,
}

/// How deep directories are read, as in Envoy.
const MOST_DEPTH: usize = 16;

/// Why a directory gives no values.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// A file or directory cannot be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It goes too deep.
    #[error("{}: directories more than {MOST_DEPTH} deep", .0.display())]
    TooDeep(PathBuf),
}

/// `layered_runtime`; without one there are no layers, as in Envoy, and `/runtime_modify` says so.
///
/// # Errors
/// A layer that is not valid.
pub fn build(
    proto: Option<&proto::LayeredRuntime>,
    service_cluster: &str,
    has_ads: bool,
) -> Result<Vec<LayerSource>> {
    let Some(proto) = proto else {
        return Ok(Vec::new());
    };
    let mut names: Vec<&str> = Vec::new();
    let mut has_admin = false;
    each("layers", &proto.layers, |layer| {
        let name = named(&layer.name, "name")?;
        if names.contains(&name) {
            return Err(ConfigError::new("name", "another layer has this name too"));
        }
        names.push(name);
        let kind = match one_of::<proto::RuntimeLayer, _>(&layer.layer_specifier, "static_layer")? {
            LayerSpecifier::StaticLayer(fields) => {
                let values = value::of_struct(&struct_value::object(fields));
                LayerKind::Static(values.map_err(|error| ConfigError::new("static_layer", error))?)
            }
            LayerSpecifier::DiskLayer(disk) => {
                LayerKind::Disk(directory(disk, service_cluster).within("disk_layer")?)
            }
            LayerSpecifier::AdminLayer(_) if has_admin => {
                let reason = "there is an admin layer already, and only one can be";
                return Err(ConfigError::new("admin_layer", reason));
            }
            LayerSpecifier::AdminLayer(_) => {
                has_admin = true;
                LayerKind::Admin
            }
            LayerSpecifier::RtdsLayer(rtds) => discovered(rtds, has_ads).within("rtds_layer")?,
        };
        Ok(LayerSource {
            name: name.to_owned(),
            kind,
        })
    })
}

fn discovered(proto: &RtdsLayer, has_ads: bool) -> Result<LayerKind> {
    let source = required(&proto.rtds_config, "rtds_config")?;
    let source = source::build(source).within("rtds_config")?;
    if source.origin == Origin::Ads && !has_ads {
        let reason = "is `ads`, but there is no dynamic_resources.ads_config";
        return Err(ConfigError::new("rtds_config", reason));
    }
    Ok(LayerKind::Discovered {
        resource: named(&proto.name, "name")?.into(),
        source,
    })
}

/// The values of a `Runtime` that a server sends.
///
/// # Errors
/// The layer is missing, or holds what is no value.
pub fn values(proto: &Runtime) -> Result<Values> {
    let layer = required(&proto.layer, "layer")?;
    value::of_struct(&struct_value::object(layer)).map_err(|error| ConfigError::new("layer", error))
}

fn directory(proto: &DiskLayer, service_cluster: &str) -> Result<Directory> {
    let root = PathBuf::from(named(&proto.symlink_root, "symlink_root")?);
    let mut path = root.join(proto.subdirectory.trim_start_matches('/'));
    if proto.append_service_cluster {
        if service_cluster.is_empty() {
            let reason = "there is no cluster: set node.cluster or --service-cluster";
            return Err(ConfigError::new("append_service_cluster", reason));
        }
        path.push(service_cluster.trim_start_matches('/'));
    }
    Ok(Directory { root, path })
}

impl LayerSource {
    /// The layer as it is now.
    ///
    /// # Errors
    /// A directory cannot be read. One that does not exist is an empty layer.
    pub fn load(&self) -> Result<Layer, DirectoryError> {
        let values = match &self.kind {
            LayerKind::Static(values) => values.clone(),
            LayerKind::Disk(directory) => directory.load()?,
            // What a server says comes later.
            LayerKind::Admin | LayerKind::Discovered { .. } => Values::new(),
        };
        Ok(Layer {
            name: self.name.clone(),
            is_admin: self.kind == LayerKind::Admin,
            values,
        })
    }
}

impl Directory {
    /// What the files say.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn load(&self) -> Result<Values, DirectoryError> {
        let mut values = Values::new();
        if self.path.exists() {
            walk(&self.path, "", 1, &mut values)?;
        }
        Ok(values)
    }
}

fn walk(
    path: &std::path::Path,
    prefix: &str,
    depth: usize,
    into: &mut Values,
) -> Result<(), DirectoryError> {
    if depth > MOST_DEPTH {
        return Err(DirectoryError::TooDeep(path.to_owned()));
    }
    let unreadable = |source| DirectoryError::Read {
        path: path.to_owned(),
        source,
    };
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        let path = entry.path();
        let unreadable = |source| DirectoryError::Read {
            path: path.clone(),
            source,
        };
        // Kubernetes' way of mounting has links beside hidden directories with what they lead to.
        if key.rsplit('.').next() == Some("")
            || entry.file_name().to_string_lossy().starts_with("..")
        {
            continue;
        }
        if path.is_dir() {
            walk(&path, &key, depth + 1, into)?;
        } else {
            let text = std::fs::read_to_string(&path).map_err(unreadable)?;
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            into.insert(key, Value::parse(lines.join("\n").trim_end()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::build::testing::message;

    fn built(yaml: &str) -> Result<Vec<LayerSource>> {
        build(Some(&message(yaml)), "service", false)
    }

    #[test]
    fn layers_are_built_in_order_and_problems_named() {
        let layers = built(
            "layers: [{name: a, static_layer: {x: 1}}, {name: b, disk_layer: {symlink_root: /r, \
             subdirectory: envoy, append_service_cluster: true}}, {name: c, admin_layer: {}}]",
        )
        .unwrap();
        let LayerKind::Disk(directory) = &layers[1].kind else {
            panic!("{layers:?}");
        };
        assert_eq!(directory.path, PathBuf::from("/r/envoy/service"));
        let problems = built(
            "layers: [{name: a, static_layer: {x: [1]}}, {name: a, admin_layer: {}}, \
             {name: c, disk_layer: {}}, {name: d, admin_layer: {}}, {name: e, admin_layer: {}}, \
             {name: f}, {name: g, rtds_layer: {name: x, rtds_config: {ads: {}}}}]",
        )
        .unwrap_err();
        let paths: Vec<_> = problems
            .problems()
            .iter()
            .map(|p| p.path.as_str())
            .collect();
        assert_eq!(
            paths,
            [
                "layers[0].static_layer",
                "layers[1].name",
                "layers[2].disk_layer.symlink_root",
                "layers[4].admin_layer",
                "layers[5]",
                "layers[6].rtds_layer.rtds_config",
            ]
        );
        assert!(build(None, "", false).unwrap().is_empty());
    }

    #[test]
    fn files_are_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let (root, inner) = (path.clone(), path.join("health_check"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("min_interval"), "# comment\n5\n").unwrap();
        std::fs::write(path.join("on"), "true\n").unwrap();
        let values = Directory { root, path }.load().unwrap();
        assert_eq!(values["health_check.min_interval"].integer(), Some(5));
        assert_eq!(values["on"].boolean(), Some(true));
        assert_eq!(values.len(), 2);
    }
}
