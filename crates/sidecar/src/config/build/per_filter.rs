//! `typed_per_filter_config`: settings of HTTP filters for one share of a route, route,
//! virtual host or table.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::route::v3::FilterConfig;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3::PerRouteConfig;
use envoy_types::pb::envoy::extensions::filters::http::dynamic_forward_proxy::v3::per_route_config::HostRewriteSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::header_mutation::v3::HeaderMutationPerRoute;
use envoy_types::pb::google::protobuf::Any;

use super::extension::{Build, Extension, decode, find};
use super::fields::{Within as _, refuse, required, uri_text};
use super::http_connection_manager::mutations;
use super::matcher;
use crate::config::error::{ConfigError, Result};
use crate::config::http_filter::{FilterSetting, FilterSettings, HostRewrite};

const FILTER_CONFIG: &str = "envoy.config.route.v3.FilterConfig";
const FIELD: &str = "typed_per_filter_config";

/// What a setting may be besides `FilterConfig`.
const SETTINGS: &[Extension<Build<FilterSetting>>] = &[
    Extension {
        type_name: "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
        build: |bytes| {
            let proto = decode::<HeaderMutationPerRoute>(bytes)?;
            let mutations = required(&proto.mutations, "mutations").and_then(mutations)?;
            Ok(FilterSetting {
                mutations: Some(mutations),
                ..FilterSetting::default()
            })
        },
    },
    Extension {
        type_name: "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
        build: |bytes| {
            let proto = decode::<PerRouteConfig>(bytes)?;
            let host = match &proto.host_rewrite_specifier {
                None => None,
                Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => Some(HostRewrite::Literal(
                    uri_text(host, "host_rewrite_literal")?.into(),
                )),
                Some(HostRewriteSpecifier::HostRewriteHeader(name)) => Some(HostRewrite::Header(
                    matcher::header_or_pseudo(name, "host_rewrite_header")?,
                )),
            };
            Ok(FilterSetting {
                host,
                ..FilterSetting::default()
            })
        },
    },
];

/// Builds the settings of one level.
pub fn build(settings: &HashMap<String, Any>) -> Result<FilterSettings> {
    let mut names: Vec<_> = settings.iter().collect();
    names.sort_by_key(|(name, _)| *name);
    // By their names, for a map has no places.
    let mut problems: Option<ConfigError> = None;
    let mut built = Vec::new();
    for (name, any) in names {
        match setting(name, any).within(format_args!("{FIELD}[{name}]")) {
            Ok(setting) => built.extend(setting.map(|setting| (name.as_str().into(), setting))),
            Err(error) => {
                problems = Some(match problems.take() {
                    None => error,
                    Some(before) => before.and(error),
                });
            }
        }
    }
    problems.map_or(Ok(FilterSettings(built)), Err)
}

fn setting(name: &str, any: &Any) -> Result<Option<FilterSetting>> {
    if type_name(any) != FILTER_CONFIG {
        return of_filter(any).map(Some);
    }
    let proto: FilterConfig = decode(&any.value)?;
    refuse(
        proto.disabled && name == "envoy.filters.http.router",
        "disabled",
        "the router cannot be disabled: use direct_response",
    )?;
    let config = match &proto.config {
        // Which settings a filter that does not run would have had does not matter.
        Some(config) if proto.disabled && proto.is_optional && find(SETTINGS, config).is_none() => {
            None
        }
        Some(config) if proto.is_optional && find(SETTINGS, config).is_none() => {
            tracing::info!(filter = name, type_url = %config.type_url,
                "left out an optional setting of an HTTP filter that is not supported");
            return Ok(None);
        }
        Some(config) => Some(of_filter(config).within("config")?),
        None => None,
    };
    Ok(Some(FilterSetting {
        disabled: proto.disabled,
        ..config.unwrap_or_default()
    }))
}

fn of_filter(any: &Any) -> Result<FilterSetting> {
    let extension = find(SETTINGS, any).ok_or_else(|| unknown(any))?;
    (extension.build)(&any.value)
}

fn type_name(any: &Any) -> &str {
    any.type_url
        .rsplit_once('/')
        .map_or(&*any.type_url, |(_, name)| name)
}

fn unknown(any: &Any) -> ConfigError {
    let known: Vec<_> = SETTINGS.iter().map(|row| row.type_name).collect();
    ConfigError::new(
        "",
        format_args!(
            "`{}` is not a setting of a supported HTTP filter; supported: {FILTER_CONFIG}, {}",
            any.type_url,
            known.join(", ")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::build::testing::bytes;

    #[test]
    fn an_unknown_setting_leaves_a_filter_disabled() {
        let build = |fields: &str| {
            let unknown =
                "config: {'@type': type.googleapis.com/google.protobuf.Duration, value: 1s}";
            let any = Any {
                type_url: format!("type.googleapis.com/{FILTER_CONFIG}"),
                value: bytes::<FilterConfig>(&format!("{{{fields}{unknown}}}")),
            };
            build(&HashMap::from([("f".to_owned(), any)]))
                .map(|built| built.of("f").map(|setting| setting.disabled))
        };
        let disabled = build("disabled: true, is_optional: true, ").unwrap();
        assert_eq!(disabled, Some(true));
        assert_eq!(build("is_optional: true, ").unwrap(), None);
        let error = build("disabled: true, ").unwrap_err().to_string();
        assert!(error.contains("[f].config: "), "{error}");
    }
}
