//! `filters` of a filter chain: one file for each network filter.

mod connection_limit;
pub mod local_ratelimit;
mod rbac;
pub mod set_filter_state;
mod tcp_proxy;
mod tunnel;

use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::direct_response::v3 as direct_response;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use envoy_types::pb::envoy::extensions::filters::network::sni_dynamic_forward_proxy::v3 as sni;

use super::context::Context;
use super::extension::{BuildWith, Extension, decode, resolve};
use super::fields::{Together as _, Within as _, each, port, refuse, required};
use super::{data_source, dynamic_forward_proxy, http_connection_manager};
use crate::config::error::{ConfigError, Result};
use crate::config::listener::NetworkFilter;
use crate::config::network::{ChainFilter, ConnectionFilter};
use crate::network::filter_state::OF_TCP_PROXY;

/// Network filters.
pub const NETWORK_FILTERS: &[Extension<BuildWith<ChainFilter>>] = &[
    Extension {
        type_name: "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        build: |bytes, _| {
            let proxy = tcp_proxy::build(&decode(bytes)?)?;
            Ok(ChainFilter::Terminal(NetworkFilter::TcpProxy(Arc::new(
                proxy,
            ))))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        build: |bytes, context| {
            let proto = decode::<hcm::HttpConnectionManager>(bytes)?;
            let manager = http_connection_manager::build(&proto, context)?;
            Ok(ChainFilter::Terminal(NetworkFilter::Http(Arc::new(
                manager,
            ))))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.direct_response.v3.Config",
        build: |bytes, _| {
            let proto = decode::<direct_response::Config>(bytes)?;
            let data = match &proto.response {
                None => None,
                Some(source) => data_source::read_once(source).within("response")?,
            };
            let response = data.map(|data| data.bytes).unwrap_or_default();
            Ok(ChainFilter::Terminal(NetworkFilter::DirectResponse(
                response.into(),
            )))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.echo.v3.Echo",
        build: |_, _| Ok(ChainFilter::Terminal(NetworkFilter::Echo)),
    },
    Extension {
        type_name: "envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
        build: |_, _| Ok(ChainFilter::Passing(ConnectionFilter::SniCluster)),
    },
    Extension {
        type_name: "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        build: |bytes, context| {
            let proto = decode::<sni::FilterConfig>(bytes)?;
            let port = match proto.port_specifier {
                Some(sni::filter_config::PortSpecifier::PortValue(value)) => {
                    port(value, false, "port_value")
                }
                None => Ok(443),
            };
            let cache = dynamic_forward_proxy::of_filter(proto.dns_cache_config.as_ref(), context);
            let (port, cache) = (port, cache).together()?;
            let filter = ConnectionFilter::SniDynamicForwardProxy {
                port,
                _cache: cache,
            };
            Ok(ChainFilter::Passing(filter))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
        build: |bytes, _| {
            let limit = connection_limit::build(&decode(bytes)?)?;
            let filter = ConnectionFilter::ConnectionLimit(Arc::new(limit));
            Ok(ChainFilter::Passing(filter))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
        build: |bytes, _| {
            let limit = local_ratelimit::build(&decode(bytes)?)?;
            let filter = ConnectionFilter::LocalRateLimit(Arc::new(limit));
            Ok(ChainFilter::Passing(filter))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.rbac.v3.RBAC",
        build: |bytes, _| {
            let filter = ConnectionFilter::Rbac(Arc::new(rbac::build(&decode(bytes)?)?));
            Ok(ChainFilter::Passing(filter))
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.network.set_filter_state.v3.Config",
        build: |bytes, _| {
            let values = set_filter_state::build(&decode(bytes)?)?;
            let filter = ConnectionFilter::SetFilterState(Arc::new(values));
            Ok(ChainFilter::Passing(filter))
        },
    },
];

/// Builds the filters of a chain: those that let a connection through, and the terminal one.
pub fn build(
    proto: &[listener::Filter],
    context: &dyn Context,
) -> Result<(Box<[ConnectionFilter]>, NetworkFilter)> {
    let mut built = each("filters", proto, |filter| one(filter, context))?;
    let last = match built.pop() {
        Some(ChainFilter::Terminal(last)) => last,
        Some(ChainFilter::Passing(_)) => {
            return Err(ConfigError::new(
                format_args!("filters[{}]", built.len()),
                "is not a terminal filter, which the last must be, such as tcp_proxy",
            ));
        }
        None => {
            return Err(ConfigError::new(
                "filters",
                "must end with a terminal filter, such as tcp_proxy",
            ));
        }
    };
    let mut late_state = false;
    let passing = each("filters", built, |filter| match filter {
        ChainFilter::Passing(ConnectionFilter::Rbac(_)) if late_state => Err(ConfigError::new(
            "",
            "rbac decides when a connection begins, which is before a set_filter_state before it \
             has run its on_downstream_data: set these values in on_new_connection",
        )),
        ChainFilter::Passing(filter) => {
            if let ConnectionFilter::SetFilterState(values) = &filter {
                late_state |= !values.on_data.is_empty();
            }
            acted_on(&filter, &last).map(|()| filter)
        }
        ChainFilter::Terminal(_) => Err(ConfigError::new(
            "",
            "is a terminal filter, which must be the last",
        )),
    })?;
    Ok((passing.into(), last))
}

fn one(filter: &listener::Filter, context: &dyn Context) -> Result<ChainFilter> {
    let any = match required(&filter.config_type, "typed_config")? {
        ConfigType::TypedConfig(any) => any,
        ConfigType::ConfigDiscovery(_) => {
            return Err(ConfigError::new(
                "config_discovery",
                "extension discovery (ECDS) is not supported: give the filter in typed_config",
            ));
        }
    };
    let extension = resolve(NETWORK_FILTERS, "network filter", any)?;
    (extension.build)(&any.value, context).within("typed_config")
}

/// Whether the terminal filter heeds what a filter before it sets.
fn acted_on(filter: &ConnectionFilter, last: &NetworkFilter) -> Result<()> {
    if let NetworkFilter::TcpProxy(_) = last {
        return Ok(());
    }
    match filter {
        ConnectionFilter::SniDynamicForwardProxy { .. } => Err(ConfigError::new(
            "",
            "sni_dynamic_forward_proxy tells a tcp_proxy where to connect to, which this chain does \
             not end with",
        )),
        ConnectionFilter::SniCluster => Err(ConfigError::new(
            "",
            "sni_cluster chooses the cluster of a tcp_proxy, which this chain does not end with",
        )),
        ConnectionFilter::SetFilterState(values) => {
            let mut all = values.at_once.iter().chain(&values.on_data);
            let vain = all.find(|value| OF_TCP_PROXY.contains(&&*value.key));
            refuse(
                vain.is_some(),
                "typed_config",
                format_args!(
                    "`{}` is acted on by tcp_proxy only, which this chain does not end with",
                    vain.map(|value| &*value.key).unwrap_or_default()
                ),
            )
        }
        ConnectionFilter::ConnectionLimit(_)
        | ConnectionFilter::LocalRateLimit(_)
        | ConnectionFilter::Rbac(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::build::testing;

    fn chain(filters: &str) -> Result<String, String> {
        let yaml = format!(
            "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 1}}}}, \
             filter_chains: [{{filters: [{filters}]}}]}}"
        );
        match testing::listener(&yaml) {
            Ok(listener) => Ok(format!("{:?}", listener.filter_chains[0].filters)),
            Err(error) => Err(error.to_string()),
        }
    }

    fn filter(kind: &str, fields: &str) -> String {
        format!(
            "{{name: f, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.filters.network.{kind}, {fields}}}}}"
        )
    }

    #[test]
    fn chains_are_refused_by_the_field_that_is_wrong() {
        let tcp = filter("tcp_proxy.v3.TcpProxy", "stat_prefix: t, cluster: c");
        let echo = filter("echo.v3.Echo", "");
        let sni = filter("sni_cluster.v3.SniCluster", "");
        let limit = |fields: &str| filter("connection_limit.v3.ConnectionLimit", fields);
        let bucket = |fields: &str| filter("local_ratelimit.v3.LocalRateLimit", fields);
        let state = |fields: &str| filter("set_filter_state.v3.Config", fields);
        let cases = [
            (tcp.clone(), None),
            (format!("{sni}, {tcp}"), None),
            (sni.clone(), Some("filters[0]: is not a terminal filter")),
            (
                format!("{tcp}, {tcp}"),
                Some("filters[0]: is a terminal filter, which must be the last"),
            ),
            (
                format!("{sni}, {echo}"),
                Some("filters[0]: sni_cluster chooses the cluster of a tcp_proxy"),
            ),
            (
                format!("{}, {tcp}", limit("stat_prefix: ''")),
                Some("typed_config.stat_prefix: must not be empty"),
            ),
            (
                format!("{}, {tcp}", limit("stat_prefix: l, max_connections: 0")),
                Some("typed_config.max_connections: must be above zero"),
            ),
            (
                format!(
                    "{}, {tcp}",
                    bucket("stat_prefix: l, token_bucket: {max_tokens: 1, fill_interval: 0.01s}")
                ),
                Some("token_bucket.fill_interval: must be at least 50 ms"),
            ),
            (
                format!(
                    "{}, {tcp}",
                    state(
                        "on_new_connection: [{object_key: own, format_string: \
                           {text_format: x}}, {object_key: own, factory_key: envoy.string, \
                           format_string: {text_format: '%NOPE%'}}]"
                    )
                ),
                Some("on_new_connection[0].factory_key: no factory makes `own`"),
            ),
            (
                format!(
                    "{}, {echo}",
                    state(
                        "on_new_connection: [{object_key: envoy.tcp_proxy.cluster, \
                           format_string: {text_format: x}}]"
                    )
                ),
                Some("`envoy.tcp_proxy.cluster` is acted on by tcp_proxy only"),
            ),
        ];
        for (filters, expected) in cases {
            match (chain(&filters), expected) {
                (Ok(_), None) => {}
                (Err(error), Some(expected)) if error.contains(expected) => {}
                (outcome, expected) => panic!("{filters}: {outcome:?}, expected {expected:?}"),
            }
        }
    }
}
