//! `http_filters`: the chain that ends with the router.

use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3 as dynamic_forward_proxy;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3::filter_config::ImplementationSpecifier as Implementation;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3 as header_mutation;
use envoy_types::pb::envoy::extensions::filters::http::router::v3 as router;
use envoy_types::pb::envoy::extensions::filters::http::set_filter_state::v3 as set_filter_state;
use envoy_types::pb::envoy::extensions::filters::http::set_metadata::v3 as set_metadata;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;

use crate::config::build::context::Context;
use crate::config::build::extension::{BuildWith, Extension, decode, find, resolve};
use crate::config::build::fields::{Together as _, Within as _, each, named, refuse, required};
use crate::config::build::{
    dynamic_forward_proxy as forward_proxy, header_changes, network, struct_value,
};
use crate::config::error::{ConfigError, Problems, Result};
use crate::config::http_filter::{FilterKind, HeaderMutations, HttpFilter, MetadataAddition};
use crate::config::network::FilterStateValue;
use crate::network::filter_state::OF_TCP_PROXY;

/// The router's own settings.
#[derive(Debug)]
pub struct Router {
    /// `suppress_envoy_headers`
    pub suppress_envoy_headers: bool,
    /// `respect_expected_rq_timeout`
    pub respect_expected_timeout: bool,
}

/// A filter, or the router that ends the chain.
enum Built {
    Filter(FilterKind),
    Router(Router),
}

/// HTTP filters.
const HTTP_FILTERS: &[Extension<BuildWith<Built>>] = &[
    Extension {
        type_name: "envoy.extensions.filters.http.router.v3.Router",
        build: |bytes, _| {
            let router = decode::<router::Router>(bytes)?;
            Ok(Built::Router(Router {
                suppress_envoy_headers: router.suppress_envoy_headers,
                respect_expected_timeout: router.respect_expected_rq_timeout,
            }))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        build: |bytes, _| {
            let proto = decode::<header_mutation::HeaderMutation>(bytes)?;
            let mutations = required(&proto.mutations, "mutations").and_then(mutations)?;
            Ok(Built::Filter(FilterKind::HeaderMutation {
                mutations,
                most_specific_wins: proto.most_specific_header_mutations_wins,
            }))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        build: |bytes, context| {
            let proto = decode::<dynamic_forward_proxy::FilterConfig>(bytes)?;
            let cache = match &proto.implementation_specifier {
                Some(Implementation::DnsCacheConfig(cache)) => Some(cache),
                Some(Implementation::SubClusterConfig(_)) => {
                    return Err(ConfigError::new(
                        "sub_cluster_config",
                        "is not supported: use dns_cache_config, here and in the cluster",
                    ));
                }
                None => None,
            };
            Ok(Built::Filter(FilterKind::DynamicForwardProxy {
                from_filter_state: proto.allow_dynamic_host_from_filter_state,
                _cache: forward_proxy::of_filter(cache, context)?,
            }))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.http.set_filter_state.v3.Config",
        build: |bytes, _| {
            let proto = decode::<set_filter_state::Config>(bytes)?;
            let values =
                network::set_filter_state::values("on_request_headers", &proto.on_request_headers)?;
            each("on_request_headers", &values, acted_on)?;
            Ok(Built::Filter(FilterKind::SetFilterState(values)))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.http.set_metadata.v3.Config",
        build: |bytes, _| {
            let proto = decode::<set_metadata::Config>(bytes)?;
            metadata(&proto).map(|added| Built::Filter(FilterKind::SetMetadata(added)))
        },
    },
];

/// Builds the filters: the router is last, and what is optional and unknown is left out.
pub fn build(
    proto: &[hcm::HttpFilter],
    context: &dyn Context,
) -> Result<(Vec<HttpFilter>, Router)> {
    let built = each("http_filters", proto, |filter| http_filter(filter, context))?;
    let mut problems = Problems::default();
    let mut filters = Vec::new();
    let mut router = None;
    for (index, (filter, proto)) in built.into_iter().zip(proto).enumerate() {
        let Some(filter) = filter else { continue };
        problems.take(refuse(
            router.is_some(),
            format_args!("http_filters[{index}]"),
            "the router must be the last filter",
        ));
        match filter {
            Built::Router(built) => {
                problems.take(refuse(
                    proto.disabled,
                    format_args!("http_filters[{index}].disabled"),
                    "the router cannot be disabled",
                ));
                router = Some(built);
            }
            Built::Filter(kind) => filters.push(HttpFilter {
                name: proto.name.as_str().into(),
                disabled: proto.disabled,
                kind,
            }),
        }
    }
    let router = router.ok_or_else(|| {
        ConfigError::new(
            "http_filters",
            "must end with the router (envoy.extensions.filters.http.router.v3.Router)",
        )
    })?;
    problems.or((filters, router))
}

fn http_filter(proto: &hcm::HttpFilter, context: &dyn Context) -> Result<Option<Built>> {
    let any = match required(&proto.config_type, "typed_config")? {
        ConfigType::TypedConfig(any) => any,
        ConfigType::ConfigDiscovery(_) => {
            return Err(ConfigError::new(
                "config_discovery",
                "extension discovery (ECDS) is not supported: use typed_config",
            ));
        }
    };
    if proto.is_optional && find(HTTP_FILTERS, any).is_none() {
        tracing::info!(filter = %proto.name, type_url = %any.type_url,
            "left out an optional HTTP filter that is not supported");
        return Ok(None);
    }
    let built = resolve(HTTP_FILTERS, "HTTP filter", any)
        .and_then(|extension| (extension.build)(&any.value, context).within("typed_config"));
    let (_, built) = (named(&proto.name, "name"), built).together()?;
    Ok(Some(built))
}

/// Whether a request heeds the value: the router connects as its cluster says, so names to check the
/// endpoint's certificate for, say, would be set in vain.
fn acted_on(value: &FilterStateValue) -> Result<()> {
    refuse(
        OF_TCP_PROXY.contains(&&*value.key),
        "object_key",
        format_args!(
            "`{}` is acted on by tcp_proxy only, not by the router: set it in the cluster",
            value.key
        ),
    )
}

/// `Mutations`, of the filter or of a route.
pub fn mutations(proto: &header_mutation::Mutations) -> Result<HeaderMutations> {
    let (request, response) = (
        header_changes::in_order("request_mutations", &proto.request_mutations),
        header_changes::in_order("response_mutations", &proto.response_mutations),
    )
        .together()
        .within("mutations")?;
    Ok(HeaderMutations { request, response })
}

fn metadata(proto: &set_metadata::Config) -> Result<Vec<MetadataAddition>> {
    let mut all = each("metadata", &proto.metadata, |addition| {
        let namespace = named(&addition.metadata_namespace, "metadata_namespace")?;
        Ok(MetadataAddition {
            namespace: namespace.into(),
            overwrite: addition.allow_overwrite,
            value: struct_value::object(required(&addition.value, "value")?),
        })
    })?;
    // The older form, which always overwrites.
    if let Some(value) = &proto.value {
        let namespace = named(&proto.metadata_namespace, "metadata_namespace")?;
        all.insert(
            0,
            MetadataAddition {
                namespace: namespace.into(),
                overwrite: true,
                value: struct_value::object(value),
            },
        );
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::build::context::Detached;
    use crate::config::build::testing::message;

    fn chain(key: &str) -> Vec<hcm::HttpFilter> {
        let proto: hcm::HttpConnectionManager = message(&format!(
            "http_filters:
- name: state
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers:
    - {{object_key: own, factory_key: envoy.string, format_string: {{text_format: x}}}}
    - {{object_key: {key}, factory_key: envoy.string, format_string: {{text_format: x}}}}
- name: router
  typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
"
        ));
        proto.http_filters
    }

    #[test]
    fn filter_state_that_the_router_does_not_heed_is_refused() {
        assert!(build(&chain("another"), &Detached).is_ok());
        for key in OF_TCP_PROXY {
            let error = build(&chain(key), &Detached)
                .map(drop)
                .unwrap_err()
                .to_string();
            let place = "http_filters[0].typed_config.on_request_headers[1].object_key: ";
            let expected = format!("{place}`{key}` is acted on by tcp_proxy only");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
