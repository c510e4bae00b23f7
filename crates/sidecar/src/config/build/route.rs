//! `RouteConfiguration`.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as proto;
use envoy_types::pb::envoy::config::route::v3::route::Action as ProtoAction;
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;

use super::fields::{
    Within as _, each, enumeration, flag, named, refuse, required, uint, uri_text,
};
use super::header_changes::changes;
use super::{mirror, route_action, route_match};
use crate::config::error::{ConfigError, Result};
use crate::config::route::{Action, Mirror, RequireTls, Route, RouteTable, VirtualHost};

/// `max_direct_response_body_size_bytes` unless set.
const DIRECT_RESPONSE_BODY: u32 = 4096;

/// Builds a route table. `fingerprint` is that of the resource's bytes.
///
/// # Errors
///
/// The first field that is invalid, by its path.
pub fn build(proto: &proto::RouteConfiguration, fingerprint: u64) -> Result<RouteTable> {
    refuse(
        flag(&proto.validate_clusters) == Some(true),
        "validate_clusters",
        "must not be true: clusters come and go, and a request for one that does not exist is \
         answered by cluster_not_found_response_code",
    )?;
    let body_limit =
        uint(&proto.max_direct_response_body_size_bytes).unwrap_or(DIRECT_RESPONSE_BODY) as usize;
    let mirrors = mirror::build(&proto.request_mirror_policies, &Arc::default())?;
    let mut names = HashMap::new();
    let virtual_hosts = each(
        "virtual_hosts",
        proto.virtual_hosts.iter().enumerate(),
        |(index, host)| {
            if let Some(other) = names.insert(host.name.as_str(), index) {
                return Err(ConfigError::new(
                    "name",
                    format_args!("virtual_hosts[{other}] has the name `{}` too", host.name),
                ));
            }
            virtual_host(host, body_limit, &mirrors).map(Arc::new)
        },
    )?;
    let mut table = RouteTable {
        virtual_hosts,
        exact: HashMap::new(),
        suffixes: Vec::new(),
        prefixes: Vec::new(),
        any: None,
        ignore_port: proto.ignore_port_in_host_matching,
        ignore_path_parameters: proto.ignore_path_parameters_in_path_matching,
        headers: changes(
            &proto.request_headers_to_add,
            &proto.request_headers_to_remove,
            &proto.response_headers_to_add,
            &proto.response_headers_to_remove,
        )?,
        most_specific_wins: proto.most_specific_header_mutations_wins,
        fingerprint,
    };
    for (index, host) in proto.virtual_hosts.iter().enumerate() {
        domains(&host.domains, index, &mut table).within(format_args!("virtual_hosts[{index}]"))?;
    }
    let longest_first = |domains: &mut Vec<(Box<[u8]>, usize)>| {
        domains.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
    };
    longest_first(&mut table.suffixes);
    longest_first(&mut table.prefixes);
    Ok(table)
}

/// Files the domains of one virtual host.
fn domains(domains: &[String], index: usize, table: &mut RouteTable) -> Result<()> {
    refuse(domains.is_empty(), "domains", "must name at least one")?;
    for (at, domain) in domains.iter().enumerate() {
        let field = format!("domains[{at}]");
        let text = uri_text(named(domain, &field)?, &field)?;
        let text: Box<[u8]> = text.to_ascii_lowercase().into();
        let stars = text.iter().filter(|byte| **byte == b'*').count();
        let other = match &*text {
            b"*" => table.any.replace(index),
            [b'*', suffix @ ..] if stars == 1 => file(&mut table.suffixes, suffix, index),
            [prefix @ .., b'*'] if stars == 1 => file(&mut table.prefixes, prefix, index),
            _ => {
                refuse(
                    stars > 0,
                    &field,
                    "a * can only be the first or the last character",
                )?;
                table.exact.insert(text, index)
            }
        };
        if let Some(other) = other {
            return Err(ConfigError::new(
                field,
                format_args!(
                    "`{domain}` is a domain of virtual_hosts[{other}] (`{}`) too",
                    table.virtual_hosts[other].name
                ),
            ));
        }
    }
    Ok(())
}

fn file(wildcards: &mut Vec<(Box<[u8]>, usize)>, text: &[u8], index: usize) -> Option<usize> {
    let other = wildcards.iter().find(|(known, _)| **known == *text);
    if let Some((_, other)) = other {
        return Some(*other);
    }
    wildcards.push((text.into(), index));
    None
}

fn virtual_host(
    proto: &proto::VirtualHost,
    body_limit: usize,
    mirrors: &Arc<[Mirror]>,
) -> Result<VirtualHost> {
    let mirrors = mirror::build(&proto.request_mirror_policies, mirrors)?;
    let require_tls: TlsRequirementType = enumeration(proto.require_tls, "require_tls")?;
    Ok(VirtualHost {
        name: named(&proto.name, "name")?.into(),
        routes: each("routes", &proto.routes, |proto| {
            route(proto, body_limit, &mirrors).map(Arc::new)
        })?,
        require_tls: match require_tls {
            TlsRequirementType::None => RequireTls::No,
            TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
            TlsRequirementType::All => RequireTls::All,
        },
        attempt_count_in_request: proto.include_request_attempt_count,
        attempt_count_in_response: proto.include_attempt_count_in_response,
        headers: changes(
            &proto.request_headers_to_add,
            &proto.request_headers_to_remove,
            &proto.response_headers_to_add,
            &proto.response_headers_to_remove,
        )?,
    })
}

fn route(proto: &proto::Route, body_limit: usize, mirrors: &Arc<[Mirror]>) -> Result<Route> {
    let matcher = route_match::build(required(&proto.r#match, "match")?).within("match")?;
    let action = match required(&proto.action, "action")? {
        ProtoAction::Route(action) => route_action::forward(action, mirrors)
            .map(|forward| Action::Forward(Box::new(forward)))
            .within("route")?,
        ProtoAction::Redirect(action) => route_action::redirect(action)
            .map(|redirect| Action::Redirect(Box::new(redirect)))
            .within("redirect")?,
        ProtoAction::DirectResponse(action) => {
            route_action::direct_response(action, body_limit).within("direct_response")?
        }
        ProtoAction::FilterAction(_) => {
            return Err(ConfigError::new("filter_action", "is not supported"));
        }
        ProtoAction::NonForwardingAction(_) => {
            return Err(ConfigError::new(
                "non_forwarding_action",
                "is for clients that use routes without a proxy",
            ));
        }
    };
    Ok(Route {
        name: proto.name.as_str().into(),
        matcher,
        action,
        headers: changes(
            &proto.request_headers_to_add,
            &proto.request_headers_to_remove,
            &proto.response_headers_to_add,
            &proto.response_headers_to_remove,
        )?,
    })
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
