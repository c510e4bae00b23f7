//! `http_filters`: the chain that ends with the router.

use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use crate::config::build::extension::{Build, Extension, decode, find, resolve};
use crate::config::build::fields::{Within as _, required};
use crate::config::error::{ConfigError, Result};

/// The router's own settings.
#[derive(Debug)]
pub struct Router {
    /// `suppress_envoy_headers`
    pub suppress_envoy_headers: bool,
}

/// HTTP filters.
const HTTP_FILTERS: &[Extension<Build<Router>>] = &[Extension {
    type_name: "envoy.extensions.filters.http.router.v3.Router",
    build: |bytes| {
        let router = decode::<router::Router>(bytes)?;
        Ok(Router {
            suppress_envoy_headers: router.suppress_envoy_headers,
        })
    },
}];

/// Builds the filters: the router is last, and what is optional and unknown is left out.
pub fn build(proto: &[hcm::HttpFilter]) -> Result<Router> {
    let mut built = Vec::new();
    for (index, filter) in proto.iter().enumerate() {
        let filter = http_filter(filter).within(format_args!("http_filters[{index}]"))?;
        built.extend(filter.map(|filter| (index, filter)));
    }
    match built.pop() {
        None => Err(ConfigError::new(
            "http_filters",
            "must end with the router (envoy.extensions.filters.http.router.v3.Router)",
        )),
        // All filters that there are so far are terminal.
        Some((_, last)) => match built.first() {
            Some((index, _)) => Err(ConfigError::new(
                format_args!("http_filters[{index}]"),
                "the router must be the last filter",
            )),
            None => Ok(last),
        },
    }
}

fn http_filter(proto: &hcm::HttpFilter) -> Result<Option<Router>> {
    let any = match required(&proto.config_type, "typed_config")? {
        ConfigType::TypedConfig(any) => any,
        ConfigType::ConfigDiscovery(_) => {
            return Err(ConfigError::new(
                "config_discovery",
                "extension discovery (ECDS) is not supported",
            ));
        }
    };
    if proto.is_optional && find(HTTP_FILTERS, any).is_none() {
        tracing::info!(filter = %proto.name, type_url = %any.type_url,
            "left out an optional HTTP filter that is not supported");
        return Ok(None);
    }
    let extension = resolve(HTTP_FILTERS, "HTTP filter", any)?;
    let filter = (extension.build)(&any.value).within("typed_config")?;
    Ok((!proto.disabled).then_some(filter))
}
