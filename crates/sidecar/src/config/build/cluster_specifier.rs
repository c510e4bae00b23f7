//! Cluster specifier plugins: extensions that choose the cluster of a route.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{ClusterSpecifierPlugin, RouteConfiguration};
use envoy_types::pb::envoy::extensions::router::cluster_specifiers::matcher::v3 as matcher;
use envoy_types::pb::google::protobuf::Any;

use super::extension::{Extension, decode, find, resolve};
use super::fields::{Together as _, Within as _, each, named, required};
use super::matching;
use super::route_scope::Clusters;
use crate::config::error::{ConfigError, Result};
use crate::config::route::ClusterChoice;
use crate::matching::Tree;

type Chooser = Arc<Tree<Arc<str>>>;
type Builder = fn(&[u8], Clusters<'_>) -> Result<Chooser>;
type NameOf = fn(&[u8]) -> Result<String>;

/// What there is. Plugins in Lua and Go are programs, which nothing here runs.
const PLUGINS: &[Extension<Builder>] = &[Extension {
    type_name: "envoy.extensions.router.cluster_specifiers.matcher.v3.MatcherClusterSpecifier",
    build: |bytes, clusters| {
        let proto: matcher::MatcherClusterSpecifier = decode(bytes)?;
        let tree = required(&proto.cluster_matcher, "cluster_matcher")?;
        let mut action = |any: &Any| cluster_of(any, clusters);
        matching::build(tree, matching::REQUEST, &mut action)
            .map(Arc::new)
            .within("cluster_matcher")
    },
}];

/// The cluster that an action of the matcher names.
fn cluster_of(any: &Any, clusters: Clusters<'_>) -> Result<Arc<str>> {
    const ACTIONS: &[Extension<NameOf>] = &[Extension {
        type_name: "envoy.extensions.router.cluster_specifiers.matcher.v3.ClusterAction",
        build: |bytes| Ok(decode::<matcher::ClusterAction>(bytes)?.cluster),
    }];
    let row = resolve(ACTIONS, "action of a cluster matcher", any)?;
    let name = (row.build)(&any.value)?;
    named(&name, "cluster")?;
    clusters.check(&name, "cluster")?;
    Ok(name.into())
}

/// Builds a plugin; `None`: it is optional, and not supported.
pub fn build(proto: &ClusterSpecifierPlugin, clusters: Clusters<'_>) -> Result<Option<Chooser>> {
    let extension = required(&proto.extension, "extension")?;
    let any = required(&extension.typed_config, "typed_config").within("extension")?;
    if proto.is_optional && find(PLUGINS, any).is_none() {
        tracing::info!(plugin = %extension.name, type_url = %any.type_url,
            "left out an optional cluster specifier plugin that is not supported: \
             routes with it are passed over");
        return Ok(None);
    }
    let row = resolve(PLUGINS, "cluster specifier plugin", any).within("extension")?;
    (row.build)(&any.value, clusters)
        .map(Some)
        .within("extension.typed_config")
}

/// `cluster_specifier_plugins` of a table, by name.
#[derive(Debug, Default)]
pub struct Plugins(HashMap<String, Option<Chooser>>);

impl Plugins {
    /// Builds those of a table.
    pub fn of(table: &RouteConfiguration, clusters: Clusters<'_>) -> Result<Self> {
        let mut plugins = HashMap::new();
        each(
            "cluster_specifier_plugins",
            &table.cluster_specifier_plugins,
            |proto| {
                let name = required(&proto.extension, "extension")
                    .and_then(|extension| named(&extension.name, "name").within("extension"));
                let (name, plugin) = (name, build(proto, clusters)).together()?;
                match plugins.insert(name.to_owned(), plugin) {
                    None => Ok(()),
                    Some(_) => Err(ConfigError::new(
                        "extension.name",
                        format_args!("another plugin has the name `{name}` too"),
                    )),
                }
            },
        )?;
        Ok(Plugins(plugins))
    }

    /// The plugin of that name.
    pub fn find(&self, name: &str, field: &str) -> Result<Option<ClusterChoice>> {
        match self.0.get(name) {
            Some(plugin) => Ok(plugin.clone().map(ClusterChoice::Matched)),
            None => Err(ConfigError::new(
                field,
                format_args!("cluster_specifier_plugins of the table has no plugin `{name}`"),
            )),
        }
    }
}
