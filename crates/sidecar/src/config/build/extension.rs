//! Extensions: which builder a `typed_config` belongs to is told by its type URL alone, never by
//! the filter's name, which is free text.

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

/// Finds the row for a `typed_config`; `None` where there is none.
pub fn find<'a, Builder>(
    table: &'a [Extension<Builder>],
    any: &Any,
) -> Option<&'a Extension<Builder>> {
    let (_, type_name) = any.type_url.rsplit_once('/')?;
    table.iter().find(|row| row.type_name == type_name)
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
