//! `RouteConfiguration`.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::config::route::v3::route::Action as ProtoAction;
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::google::protobuf::{Any, UInt32Value, UInt64Value};

use super::cluster_specifier::Plugins;
use super::context::Context;
use super::extension::{Extension, decode, resolve};
use super::fields::{
    Together as _, Within as _, each, enumeration, flag, header_name, named, one_of, refuse,
    required, uint, uri_text,
};
use super::header_changes::changes;
use super::route_scope::{Clusters, Scope};
use super::{matcher, matching, mirror, per_filter, route_action, route_answer, route_match};
use crate::config::error::{ConfigError, Result};
use crate::config::route::{
    Action, PathMatch, RequireTls, Route, RouteTable, VirtualCluster, VirtualHost,
};
use crate::http::route::domains::{DomainError, Domains};
use crate::http::route::index::RouteIndex;
use crate::http::route::stats::StatName;

/// `max_direct_response_body_size_bytes` unless set.
const DIRECT_RESPONSE_BODY: u32 = 4096;

/// Builds a route table. `fingerprint` is that of the resource's bytes; `validates` is what
/// `validate_clusters` is unless set.
///
/// # Errors
///
/// The fields that are invalid, by their paths.
pub fn build(
    proto: &proto::RouteConfiguration,
    fingerprint: u64,
    context: &dyn Context,
    validates: bool,
) -> Result<RouteTable> {
    let clusters = match flag(&proto.validate_clusters).unwrap_or(validates) {
        true => Clusters::known(context),
        false => Clusters::ANY,
    };
    let host_header = Some(&proto.vhost_header).filter(|name| !name.is_empty());
    let host_header = host_header.map(|name| matcher::header_or_pseudo(name, "vhost_header"));
    let headers = changes(
        &proto.request_headers_to_add,
        &proto.request_headers_to_remove,
        &proto.response_headers_to_add,
        &proto.response_headers_to_remove,
    );
    let internal_only = each(
        "internal_only_headers",
        &proto.internal_only_headers,
        |name| header_name(name, ""),
    );
    // What the hosts need cannot wait for them; what is wrong in it is told with theirs.
    let mirrors = mirror::build(&proto.request_mirror_policies, &Arc::default(), clusters);
    let plugins = Plugins::of(proto, clusters);
    let none = Plugins::default();
    let scope = Scope {
        body_limit: uint(&proto.max_direct_response_body_size_bytes).unwrap_or(DIRECT_RESPONSE_BODY)
            as usize,
        mirrors: mirrors.clone().unwrap_or_default(),
        clusters,
        plugins: plugins.as_ref().unwrap_or(&none),
        buffer_limit: None,
    };
    let mut domains = Domains::default();
    let mut names = HashMap::new();
    let hosts = each(
        "virtual_hosts",
        proto.virtual_hosts.iter().enumerate(),
        |(index, host)| {
            let name = match names.insert(host.name.as_str(), index) {
                None => Ok(()),
                Some(other) => Err(ConfigError::new(
                    "name",
                    format_args!("virtual_hosts[{other}] has the name `{}` too", host.name),
                )),
            };
            let domains = file(&host.domains, index, &mut domains, proto);
            let host = virtual_host(host, &scope);
            let ((), (), host) = (name, domains, host).together()?;
            Ok(Arc::new(host))
        },
    );
    let plugins = plugins.as_ref().map(|_| ()).map_err(Clone::clone);
    let (virtual_hosts, filters, host_header, headers, internal_only, _, ()) = (
        hosts,
        per_filter::build(&proto.typed_per_filter_config),
        host_header.transpose(),
        headers,
        internal_only,
        mirrors,
        plugins,
    )
        .together()?;
    Ok(RouteTable {
        virtual_hosts,
        domains,
        host_header,
        ignore_port: proto.ignore_port_in_host_matching,
        ignore_path_parameters: proto.ignore_path_parameters_in_path_matching,
        internal_only,
        headers,
        filters,
        most_specific_wins: proto.most_specific_header_mutations_wins,
        fingerprint,
    })
}

/// Files the domains of one virtual host.
fn file(
    list: &[String],
    index: usize,
    domains: &mut Domains,
    table: &proto::RouteConfiguration,
) -> Result<()> {
    refuse(list.is_empty(), "domains", "must name at least one")?;
    each("domains", list, |domain| {
        let text = named(domain, "").and_then(|domain| uri_text(domain, ""))?;
        domains.insert(text, index).map_err(|error| match error {
            DomainError::Star => ConfigError::new("", error),
            DomainError::Taken(other) => ConfigError::new(
                "",
                format_args!(
                    "`{domain}` is a domain of virtual_hosts[{other}] (`{}`) too",
                    table.virtual_hosts[other].name
                ),
            ),
        })
    })
    .map(drop)
}

fn virtual_host(proto: &proto::VirtualHost, table: &Scope<'_>) -> Result<VirtualHost> {
    let mirrors = mirror::build(
        &proto.request_mirror_policies,
        &table.mirrors,
        table.clusters,
    );
    let scope = Scope {
        mirrors: mirrors.clone().unwrap_or_default(),
        buffer_limit: buffer_limit(
            &proto.request_body_buffer_limit,
            &proto.per_request_buffer_limit_bytes,
        ),
        ..table.clone()
    };
    let headers = changes(
        &proto.request_headers_to_add,
        &proto.request_headers_to_remove,
        &proto.response_headers_to_add,
        &proto.response_headers_to_remove,
    );
    refuse(
        proto.matcher.is_some() && !proto.routes.is_empty(),
        "matcher",
        "routes are set too, and only one of the two can be",
    )?;
    let matcher = proto.matcher.as_ref().map(|matcher| {
        let mut action = |any: &Any| routes_of(any, &proto.name, &scope);
        matching::build(matcher, matching::REQUEST, &mut action).within("matcher")
    });
    let (_, filters, routes, matcher, require_tls, virtual_clusters, headers, _) = (
        named(&proto.name, "name"),
        per_filter::build(&proto.typed_per_filter_config),
        each("routes", &proto.routes, |route_proto| {
            route(route_proto, &proto.name, &scope)
        }),
        matcher.transpose(),
        enumeration(proto.require_tls, "require_tls"),
        virtual_clusters(proto),
        headers,
        mirrors,
    )
        .together()?;
    let routes: Vec<_> = routes.into_iter().flatten().collect();
    Ok(VirtualHost {
        index: RouteIndex::new(&routes),
        routes,
        matcher,
        require_tls: match require_tls {
            TlsRequirementType::None => RequireTls::No,
            TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
            TlsRequirementType::All => RequireTls::All,
        },
        virtual_clusters,
        attempt_count_in_request: proto.include_request_attempt_count,
        attempt_count_in_response: proto.include_attempt_count_in_response,
        headers,
        filters,
    })
}

/// The routes that an action of `matcher` stands for.
fn routes_of(any: &Any, host: &str, scope: &Scope<'_>) -> Result<Vec<Arc<Route>>> {
    type Routes = Extension<fn(&[u8]) -> Result<proto::RouteList>>;
    const ACTIONS: &[Routes] = &[
        Extension {
            type_name: "envoy.config.route.v3.Route",
            build: |bytes| {
                let routes = vec![decode(bytes)?];
                Ok(proto::RouteList { routes })
            },
        },
        Extension {
            type_name: "envoy.config.route.v3.RouteList",
            build: decode,
        },
    ];
    let extension = resolve(ACTIONS, "action of a route matcher", any)?;
    let list = (extension.build)(&any.value)?;
    let built = each("routes", &list.routes, |proto| route(proto, host, scope));
    let built = built.map(|routes| routes.into_iter().flatten().collect());
    // A lone route has no list around it.
    match extension.type_name.ends_with("RouteList") {
        true => built,
        false => {
            built.map_err(|error| error.at(|path| path.trim_start_matches("routes[0].").to_owned()))
        }
    }
}

fn virtual_clusters(host: &proto::VirtualHost) -> Result<Vec<VirtualCluster>> {
    let mut all = each("virtual_clusters", &host.virtual_clusters, |cluster| {
        refuse(cluster.headers.is_empty(), "headers", "must not be empty")?;
        let (name, headers) = (
            named(&cluster.name, "name"),
            each("headers", &cluster.headers, matcher::header),
        )
            .together()?;
        Ok(VirtualCluster {
            headers,
            stat: StatName::virtual_cluster(&host.name, name),
        })
    })?;
    if !all.is_empty() {
        all.push(VirtualCluster {
            headers: Vec::new(),
            stat: StatName::virtual_cluster(&host.name, "other"),
        });
    }
    Ok(all)
}

/// The newer field for it, else the older one.
fn buffer_limit(newer: &Option<UInt64Value>, older: &Option<UInt32Value>) -> Option<u64> {
    let older = uint(older).map(u64::from);
    newer.as_ref().map(|limit| limit.value).or(older)
}

/// One route; `None` where it can never be taken.
fn route(proto: &proto::Route, host: &str, scope: &Scope<'_>) -> Result<Option<Arc<Route>>> {
    let matcher =
        required(&proto.r#match, "match").and_then(|m| route_match::build(m).within("match"));
    let headers = changes(
        &proto.request_headers_to_add,
        &proto.request_headers_to_remove,
        &proto.response_headers_to_add,
        &proto.response_headers_to_remove,
    );
    // A rewrite by template needs to know what is matched.
    let matched = matcher.as_ref().ok().map(|matcher| &matcher.path);
    let own = buffer_limit(
        &proto.request_body_buffer_limit,
        &proto.per_request_buffer_limit_bytes,
    );
    let scope = Scope {
        buffer_limit: own.or(scope.buffer_limit),
        ..scope.clone()
    };
    let action = one_of::<proto::Route, _>(&proto.action, "route")
        .and_then(|proto| action(proto, &scope, matched));
    let filters = per_filter::build(&proto.typed_per_filter_config);
    let (matcher, headers, action, filters) = (matcher, headers, action, filters).together()?;
    let prefix = proto.stat_prefix.as_str();
    Ok(action.map(|action| {
        Arc::new(Route {
            name: proto.name.as_str().into(),
            matcher,
            action,
            headers,
            filters,
            stat: (!prefix.is_empty()).then(|| StatName::route(host, prefix)),
        })
    }))
}

fn action(
    proto: &ProtoAction,
    scope: &Scope<'_>,
    matched: Option<&PathMatch>,
) -> Result<Option<Action>> {
    let action = match proto {
        ProtoAction::Route(action) => {
            return route_action::forward(action, scope, matched)
                .map(|forward| forward.map(|forward| Action::Forward(Box::new(forward))))
                .within("route");
        }
        ProtoAction::Redirect(action) => route_answer::redirect(action)
            .map(|redirect| Action::Redirect(Box::new(redirect)))
            .within("redirect"),
        ProtoAction::DirectResponse(action) => {
            route_answer::direct_response(action, scope.body_limit)
                .map(|response| Action::Direct(Box::new(response)))
                .within("direct_response")
        }
        // Envoy reserves it for the matchers of filters, and refuses it in routes as well.
        ProtoAction::FilterAction(_) => Err(ConfigError::new(
            "filter_action",
            "is not an action for requests: use route, redirect or direct_response",
        )),
        ProtoAction::NonForwardingAction(_) => Err(ConfigError::new(
            "non_forwarding_action",
            "is for clients that use routes without a proxy",
        )),
    };
    action.map(Some)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
