//! `typed_per_filter_config`: settings of HTTP filters for one virtual host, route or cluster.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::google::protobuf::Any;

use super::extension::decode;
use super::fields::{Within as _, refuse};
use crate::config::error::{ConfigError, Result};

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
const FIELD: &str = "typed_per_filter_config";

/// Looks the settings over. The router, which is the only filter that runs, has none, so there is
/// nothing to keep: a filter that is not there may be disabled, and a setting that is optional left
/// out.
pub fn check(settings: &HashMap<String, Any>) -> Result<()> {
    let mut names: Vec<_> = settings.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    let problems = names.into_iter().filter_map(|(name, any)| {
        let checked = setting(name, any).within(format_args!("[{name}]"));
        checked.within(FIELD).err()
    });
    problems.reduce(ConfigError::and).map_or(Ok(()), Err)
}

fn setting(name: &str, any: &Any) -> Result<()> {
    if type_name(any) != FILTER_CONFIG {
        return Err(unknown(any));
    }
    let proto: FilterConfig = decode(&any.value)?;
    refuse(
        proto.disabled && name == "envoy.filters.http.router",
        "disabled",
        "the router cannot be disabled: use direct_response",
    )?;
    match &proto.config {
        Some(config) if proto.is_optional => {
            tracing::info!(filter = name, type_url = %config.type_url,
                "left out an optional setting of an HTTP filter that is not supported");
            Ok(())
        }
        Some(config) => Err(unknown(config).within("config")),
        None => Ok(()),
    }
}

fn type_name(any: &Any) -> &str {
    any.type_url
        .rsplit_once('/')
        .map_or(&*any.type_url, |(_, name)| name)
}

fn unknown(any: &Any) -> ConfigError {
    ConfigError::new(
        "",
        format_args!(
            "`{}` is not a setting of a supported HTTP filter; supported: {FILTER_CONFIG} that is \
             disabled or is_optional",
            any.type_url
        ),
    )
}
