//! Extensions: which builder a `typed_config` belongs to is told by its type URL alone, never by
//! the filter's name, which is free text.

use std::sync::OnceLock;

use envoy_types::pb::google::protobuf::Any;
use prost::Message;

use super::context::Context;
use crate::config::error::{ConfigError, Result};

/// A builder that needs nothing but the configuration's bytes.
pub type Build<T> = fn(&[u8]) -> Result<T>;

/// A builder that also needs slots.
pub type BuildWith<T> = fn(&[u8], &dyn Context) -> Result<T>;

/// One row of a kind's table.
pub struct Extension<Builder> {
    /// The full name of its configuration's message.
    pub type_name: &'static str,
    /// What makes it of its configuration.
    pub build: Builder,
}

/// `--disable-extensions`: what the command line forbids, by Envoy's names.
pub static DISABLED: OnceLock<Vec<String>> = OnceLock::new();

/// Whether one of `names`, such as `envoy.filters.http.router`, is that of the extension with this
/// configuration, `envoy.extensions.filters.http.router.v3.Router`.
fn is_named(names: &[String], type_name: &str) -> bool {
    let path = type_name
        .strip_prefix("envoy.extensions.")
        .unwrap_or(type_name);
    names.iter().any(|name| {
        let name = name.strip_prefix("envoy.").unwrap_or(name);
        path.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(".v"))
    })
}

/// Finds the row for a `typed_config`; `None` where there is none, or it is forbidden.
pub fn find<'a, Builder>(
    table: &'a [Extension<Builder>],
    any: &Any,
) -> Option<&'a Extension<Builder>> {
    let (_, type_name) = any.type_url.rsplit_once('/')?;
    let row = table.iter().find(|row| row.type_name == type_name)?;
    let forbidden = DISABLED
        .get()
        .is_some_and(|names| is_named(names, type_name));
    (!forbidden).then_some(row)
}

/// Finds the row for a `typed_config`.
///
/// # Errors
///
/// There is none: the error has the list of what there is.
pub fn resolve<'a, Builder>(
    table: &'a [Extension<Builder>],
    kind: &str,
    any: &Any,
) -> Result<&'a Extension<Builder>> {
    find(table, any).ok_or_else(|| {
        let supported: Vec<_> = table.iter().map(|row| row.type_name).collect();
        ConfigError::new(
            "typed_config",
            format_args!(
                "`{}` is not a supported {kind}; supported: {}",
                any.type_url,
                supported.join(", ")
            ),
        )
    })
}

/// Decodes an extension's configuration.
///
/// # Errors
///
/// The bytes are malformed.
pub fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M> {
    M::decode(bytes).map_err(|error| ConfigError::new("", format_args!("malformed: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_known_by_envoy_s_names() {
        let router = "envoy.extensions.filters.http.router.v3.Router";
        for (name, expected) in [
            ("envoy.filters.http.router", true),
            ("envoy.filters.http.rout", false),
            ("envoy.filters.http", false),
            ("envoy.filters.network.tcp_proxy", false),
        ] {
            assert_eq!(is_named(&[name.to_owned()], router), expected, "{name}");
        }
    }
}
