//! What the levels of a route table give to those within them, while it is built.

use std::sync::Arc;

use super::cluster_specifier::Plugins;
use super::context::Context;
use crate::config::error::{ConfigError, Result};
use crate::config::route::Mirror;

/// What a table gives to its virtual hosts, and those to their routes.
#[derive(Clone)]
pub struct Scope<'a> {
    /// The most bytes of a direct response's body.
    pub body_limit: usize,
    /// `request_mirror_policies`
    pub mirrors: Arc<[Mirror]>,
    /// The clusters that may be named.
    pub clusters: Clusters<'a>,
    /// `cluster_specifier_plugins`
    pub plugins: &'a Plugins,
    /// The most bytes of a request's body that are kept.
    pub buffer_limit: Option<u64>,
}

/// `validate_clusters`: whether clusters must exist that are named. As with Envoy that is so for the
/// tables of a file or a listener itself unless they say otherwise, and for those of RDS only where
/// they ask for it.
#[derive(Clone, Copy)]
pub struct Clusters<'a>(Option<&'a dyn Context>);

impl<'a> Clusters<'a> {
    /// Any may be named.
    pub const ANY: Self = Clusters(None);

    /// Only those may be named that there are, in force or warming.
    pub fn known(context: &'a dyn Context) -> Self {
        Clusters(Some(context))
    }

    /// Whether a cluster may be named.
    ///
    /// # Errors
    ///
    /// It does not exist.
    pub fn check(self, name: &str, field: &str) -> Result<()> {
        match self.0 {
            Some(context) if !context.has_cluster(name) => Err(ConfigError::new(
                field,
                format_args!(
                    "there is no cluster `{name}`: define it, or set validate_clusters to false \
                     in the route table where it is to come later"
                ),
            )),
            _ => Ok(()),
        }
    }
}
