//! What connections to the workload meet.

use envoy_types::pb::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use envoy_types::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use envoy_types::pb::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilterChainMatchPredicate,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
};
use envoy_types::pb::envoy::r#type::v3::Int32Range;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};
use outrider_xds::ads::ResourceType;

use crate::mesh::{AppProtocol, MeshState};
use crate::registry::kinds::MutualTlsMode;

use super::bind::any_address;
use super::names::{
    BLACKHOLE_CLUSTER, INBOUND_PASSTHROUGH_CLUSTER, INBOUND_PORT, OUTBOUND_PORT, inbound_cluster,
    server_name,
};
use super::outbound::DETECTED_HTTP;
use super::proxy::InboundPort;
use super::{Proxy, Translation, cluster, filter, route, tls};

/// What a proxy offers when it is about to speak HTTP.
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];

pub(super) fn translate(mesh: &MeshState, proxy: &Proxy) -> Translation {
    let mut resources = Translation::default();
    let families = proxy.families(mesh);
    let (namespace, labels) = (proxy.account.namespace(), proxy.labels(mesh));
    let mut ports = proxy.inbound_ports(mesh);
    for port in mesh.policies.named_ports(namespace, labels).into_keys() {
        ports.entry(port).or_default();
    }
    let mut chains = Vec::new();
    // Ports on which a client may rightly be silent, so that nothing must be waited for.
    let mut unread = Vec::new();
    for port in [OUTBOUND_PORT, INBOUND_PORT] {
        let blackhole = filter::tcp_proxy(mesh, BLACKHOLE_CLUSTER);
        let name = format!("blackhole|{port}");
        chains.push(filter::chain(&name, Some(on(Some(port))), blackhole, None));
        ports.remove(&port);
    }
    for (port, inbound) in &ports {
        let mode = mesh.policies.mode(namespace, labels, *port);
        let protocol = inbound.protocol.unwrap_or(AppProtocol::Auto);
        let cluster = cluster::inbound(*port, protocol, &families);
        let origin = inbound.origin.map(|service| &service.reference);
        resources.add(ResourceType::Cluster, &cluster.name, &cluster, origin);
        if mode == MutualTlsMode::Disabled && protocol == AppProtocol::Tcp {
            unread.push(*port);
        }
        chains.extend(
            Chains {
                mesh,
                port: *port,
                inbound,
            }
            .build(protocol, mode),
        );
    }
    let mode = mesh.policies.default_mode(namespace, labels);
    chains.push(passthrough(mesh, mode));
    let passthrough = cluster::inbound_passthrough(&families);
    resources.add(ResourceType::Cluster, &passthrough.name, &passthrough, None);

    let (address, additional_addresses) = any_address(INBOUND_PORT, &families);
    let listener = Listener {
        name: "virtualInbound".to_owned(),
        address,
        additional_addresses,
        traffic_direction: TrafficDirection::Inbound.into(),
        filter_chains: chains,
        listener_filters: vec![
            filter::original_destination(),
            filter::tls_inspector(destined_to(&unread)),
            filter::http_inspector(destined_to(&unread)),
        ],
        listener_filters_timeout: Some(filter::INBOUND_DETECTION_TIMEOUT),
        continue_on_listener_filters_timeout: true,
        ..Listener::default()
    };
    let origin = ports
        .values()
        .find_map(|port| port.origin)
        .map(|service| &service.reference);
    resources.add(ResourceType::Listener, &listener.name, &listener, origin);
    resources
}

/// Ports that no service names: bytes, and only with mutual TLS where that is demanded. Plaintext
/// then meets no chain and is closed.
fn passthrough(mesh: &MeshState, mode: MutualTlsMode) -> FilterChain {
    let bytes = filter::tcp_proxy(mesh, INBOUND_PASSTHROUGH_CLUSTER);
    if mode != MutualTlsMode::Strict {
        return filter::chain("passthrough", None, bytes, None);
    }
    let matches = FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        ..on(None)
    };
    filter::chain(
        "passthrough|mtls",
        Some(matches),
        bytes,
        Some(tls::downstream(mesh, &[])),
    )
}

fn on(port: Option<u16>) -> FilterChainMatch {
    FilterChainMatch {
        destination_port: port.map(|port| UInt32Value { value: port.into() }),
        ..FilterChainMatch::default()
    }
}

/// The chains of one port. A chain is chosen by port, server name, transport, ALPN, in that order
/// and without going back, so each step's cases are complete in themselves.
struct Chains<'a> {
    mesh: &'a MeshState,
    port: u16,
    inbound: &'a InboundPort<'a>,
}

impl Chains<'_> {
    fn build(&self, protocol: AppProtocol, mode: MutualTlsMode) -> Vec<FilterChain> {
        let mut chains = Vec::new();
        match mode {
            MutualTlsMode::Strict => self.mutual_tls(protocol, Vec::new(), &mut chains),
            MutualTlsMode::Permissive => {
                let services = &self.inbound.services;
                let names: Vec<String> = services
                    .iter()
                    .map(|(host, port)| server_name(host, *port))
                    .collect();
                if !names.is_empty() {
                    self.mutual_tls(protocol, names, &mut chains);
                }
                self.plaintext(protocol, &mut chains);
            }
            MutualTlsMode::Disabled => self.plaintext(protocol, &mut chains),
        }
        chains
    }

    fn mutual_tls(
        &self,
        protocol: AppProtocol,
        server_names: Vec<String>,
        chains: &mut Vec<FilterChain>,
    ) {
        let matches = FilterChainMatch {
            server_names,
            transport_protocol: "tls".to_owned(),
            ..on(Some(self.port))
        };
        let by_alpn = FilterChainMatch {
            application_protocols: HTTP_ALPN.map(str::to_owned).to_vec(),
            ..matches.clone()
        };
        let http = Some(tls::downstream(self.mesh, &HTTP_ALPN));
        let bytes = Some(tls::downstream(self.mesh, &[]));
        match protocol {
            AppProtocol::Http | AppProtocol::Http2 => {
                chains.push(self.chain("mtls-http", matches, self.http(true), http));
            }
            AppProtocol::Tcp => chains.push(self.chain("mtls-tcp", matches, self.tcp(), bytes)),
            AppProtocol::Auto => {
                chains.push(self.chain("mtls-http", by_alpn, self.http(true), http));
                chains.push(self.chain("mtls-tcp", matches, self.tcp(), bytes));
            }
        }
    }

    fn plaintext(&self, protocol: AppProtocol, chains: &mut Vec<FilterChain>) {
        let raw = FilterChainMatch {
            transport_protocol: "raw_buffer".to_owned(),
            ..on(Some(self.port))
        };
        let encrypted = FilterChainMatch {
            transport_protocol: "tls".to_owned(),
            ..on(Some(self.port))
        };
        let detected = FilterChainMatch {
            application_protocols: DETECTED_HTTP.map(str::to_owned).to_vec(),
            ..raw.clone()
        };
        match protocol {
            AppProtocol::Http | AppProtocol::Http2 => {
                chains.push(self.chain("http", raw, self.http(false), None));
            }
            AppProtocol::Tcp => {
                // The application's own TLS is bytes like any other.
                chains.push(self.chain("tcp", on(Some(self.port)), self.tcp(), None));
                return;
            }
            AppProtocol::Auto => {
                chains.push(self.chain("http", detected, self.http(false), None));
                chains.push(self.chain("tcp", raw, self.tcp(), None));
            }
        }
        chains.push(self.chain("tls", encrypted, self.tcp(), None));
    }

    fn chain(
        &self,
        name: &str,
        matches: FilterChainMatch,
        filter: Filter,
        transport_socket: Option<TransportSocket>,
    ) -> FilterChain {
        let name = format!("{}|{name}", self.port);
        filter::chain(&name, Some(matches), filter, transport_socket)
    }

    fn tcp(&self) -> Filter {
        filter::tcp_proxy(self.mesh, &inbound_cluster(self.port))
    }

    /// Who calls is what the certificate says, and nobody's word: a header of that name is dropped,
    /// and written anew after mutual TLS.
    fn http(&self, mutual_tls: bool) -> Filter {
        let cluster = inbound_cluster(self.port);
        let routes = RouteSpecifier::RouteConfig(route::to_cluster(&cluster));
        let mut manager = filter::connection_manager(self.mesh, &cluster, routes);
        manager.forward_client_cert_details = ForwardClientCertDetails::Sanitize.into();
        if mutual_tls {
            manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet.into();
            manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                subject: Some(BoolValue { value: true }),
                dns: true,
                uri: true,
                ..SetCurrentClientCertDetails::default()
            });
        }
        filter::http_filter(&manager)
    }
}

/// Whether a connection is for one of these ports; none when there are none.
fn destined_to(ports: &[u16]) -> Option<ListenerFilterChainMatchPredicate> {
    let predicate = |rule| ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let port = |port: &u16| {
        let start = i32::from(*port);
        predicate(Rule::DestinationPortRange(Int32Range {
            start,
            end: start + 1,
        }))
    };
    match ports {
        [] => None,
        [single] => Some(port(single)),
        several => Some(predicate(Rule::OrMatch(MatchSet {
            rules: several.iter().map(port).collect(),
        }))),
    }
}
