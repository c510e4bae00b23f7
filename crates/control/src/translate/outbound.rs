//! What the workload's own connections meet.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::Rds;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::google::protobuf::{BoolValue, UInt32Value};
use outrider_xds::ads::ResourceType;

use crate::mesh::{AppProtocol, JudgedRoute, MeshPort, MeshService, MeshState, RouteKind};
use crate::registry::ObjectRef;
use crate::registry::kinds::IpFamily;

use super::bind::{address, any_address};
use super::names::{
    BLACKHOLE_CLUSTER, OUTBOUND_PORT, PASSTHROUGH_CLUSTER, direct_cluster, outbound_cluster,
    route_table,
};
use super::{OutboundKey, Translation, cluster, endpoint, filter, route, stream_route};

/// What HTTP detection calls the protocols that it finds in plaintext.
pub(super) const DETECTED_HTTP: [&str; 3] = ["http/1.0", "http/1.1", "h2c"];

/// What every proxy has, whatever services there are.
pub(super) fn fixed(mesh: &MeshState, key: &OutboundKey) -> Translation {
    let mut resources = Translation::default();
    for cluster in [cluster::passthrough(), cluster::blackhole()] {
        resources.add(ResourceType::Cluster, &cluster.name, &cluster, None);
    }
    let listener = virtual_listener(mesh, &key.families);
    resources.add(ResourceType::Listener, &listener.name, &listener, None);
    resources
}

/// What one service is to them. It depends on the service, on its routes and on the services that
/// those lead to; a listener that another service has too is settled by the caller.
pub(super) fn service(mesh: &MeshState, key: &OutboundKey, service: &MeshService) -> Translation {
    let mut resources = Translation::default();
    let mut taken = BTreeSet::new();
    for port in &service.ports {
        translate_port(mesh, key, service, port, &mut taken, &mut resources);
    }
    resources
}

/// Where redirected connections arrive, to be handed to the listener of the address that they were
/// for. What no listener is for goes on to where it was going; a connection to the redirect port
/// itself goes nowhere, or it would come back for ever.
fn virtual_listener(mesh: &MeshState, families: &[IpFamily]) -> Listener {
    let (address, additional_addresses) = any_address(OUTBOUND_PORT, families);
    let itself = FilterChainMatch {
        destination_port: Some(UInt32Value {
            value: OUTBOUND_PORT.into(),
        }),
        ..FilterChainMatch::default()
    };
    let blackhole = filter::tcp_proxy(mesh, BLACKHOLE_CLUSTER);
    let passthrough = filter::tcp_proxy(mesh, PASSTHROUGH_CLUSTER);
    Listener {
        name: "virtualOutbound".to_owned(),
        address,
        additional_addresses,
        use_original_dst: Some(BoolValue { value: true }),
        traffic_direction: TrafficDirection::Outbound.into(),
        filter_chains: vec![filter::chain("blackhole", Some(itself), blackhole, None)],
        default_filter_chain: Some(filter::chain("passthrough", None, passthrough, None)),
        ..Listener::default()
    }
}

fn translate_port(
    mesh: &MeshState,
    key: &OutboundKey,
    service: &MeshService,
    port: &MeshPort,
    taken: &mut BTreeSet<SocketAddr>,
    resources: &mut Translation,
) {
    let origin = Some(&service.reference);
    let balanced = cluster::balanced(mesh, service, port);
    let assignment = endpoint::assignment(service, port, &key.families);
    let cluster_name = outbound_cluster(&service.host, port.number);
    resources.add(ResourceType::Cluster, &cluster_name, &balanced, origin);
    resources.add(ResourceType::Endpoint, &cluster_name, &assignment, origin);

    // Its own addresses; or, of a headless service, those of its workloads, where the client means
    // the very workload that it dials.
    let own = service
        .addresses
        .iter()
        .map(|ip| (SocketAddr::new(*ip, port.number), None));
    let workloads = port.endpoints.iter().filter(|endpoint| endpoint.ready);
    let workloads = workloads.map(|endpoint| (endpoint.address, Some(endpoint.mutual_tls)));
    let workloads = workloads.filter(|_| service.headless);
    let routes = mesh.routes(service, port, &key.namespace);
    let routes: Vec<&JudgedRoute> = routes.into_iter().map(AsRef::as_ref).collect();
    let by_bytes = routes.first().is_some_and(routes_bytes);
    // What a proxy says of the routes' resource is said to each of them.
    let sources: Vec<ObjectRef> = routes.iter().map(|route| route.reference()).collect();
    let from_routes = |theirs: bool| match origin {
        Some(service) if sources.is_empty() || !theirs => std::slice::from_ref(service),
        _ => &sources[..],
    };
    let mut tables = BTreeSet::new();
    for (address, direct) in own.chain(workloads) {
        // Two ports that lead to the same one of a workload: the first has it.
        if !taken.insert(address) {
            continue;
        }
        let table = route_table(service, port);
        let (cluster_name, table) = match direct {
            None => (cluster_name.clone(), table),
            Some(true) => (direct_cluster(&service.host, port.number, true), table),
            Some(false) => (
                direct_cluster(&service.host, port.number, false),
                format!("{table}|plaintext"),
            ),
        };
        let listener = service_listener(mesh, address, port, &cluster_name, &table, &routes);
        let from = from_routes(by_bytes);
        resources.add_of(ResourceType::Listener, &listener.name, &listener, from);
        if tables.insert(table.clone()) {
            if let Some(mutual_tls) = direct {
                let cluster = cluster::direct(mesh, service, port, mutual_tls);
                resources.add(ResourceType::Cluster, &cluster_name, &cluster, origin);
            }
            if port.protocol.may_be_http() && !by_bytes {
                let table_of =
                    route::service_table(mesh, &table, &cluster_name, &routes, port.number);
                resources.add_of(ResourceType::Route, &table, &table_of, from_routes(true));
            }
        }
    }
}

/// Whether it takes connections as they are, whatever is spoken on the port.
fn routes_bytes(route: &&JudgedRoute) -> bool {
    matches!(route.kind(), RouteKind::Tls | RouteKind::Tcp)
}

fn service_listener(
    mesh: &MeshState,
    at: SocketAddr,
    port: &MeshPort,
    cluster: &str,
    table: &str,
    routes: &[&JudgedRoute],
) -> Listener {
    let http = |name: &str, matches: Option<FilterChainMatch>| -> FilterChain {
        let routes = RouteSpecifier::Rds(Rds {
            config_source: Some(cluster::ads()),
            route_config_name: table.to_owned(),
        });
        let manager = filter::connection_manager(mesh, cluster, routes);
        filter::chain(name, matches, filter::http_filter(&manager), None)
    };
    let tcp = || filter::chain("tcp", None, filter::tcp_proxy(mesh, cluster), None);
    let listener = Listener {
        name: format!("{}_{}", at.ip(), at.port()),
        address: Some(address(at)),
        bind_to_port: Some(BoolValue { value: false }),
        traffic_direction: TrafficDirection::Outbound.into(),
        ..Listener::default()
    };
    match routes.first().map(|route| route.kind()) {
        Some(RouteKind::Tls) => {
            return Listener {
                filter_chains: stream_route::tls_chains(mesh, cluster, routes),
                listener_filters: vec![filter::tls_inspector(None)],
                listener_filters_timeout: Some(filter::DETECTION_TIMEOUT),
                ..listener
            };
        }
        Some(RouteKind::Tcp) => {
            let chain = routes
                .iter()
                .find_map(|route| stream_route::tcp_chain(mesh, cluster, route));
            return Listener {
                filter_chains: chain.into_iter().collect(),
                ..listener
            };
        }
        Some(RouteKind::Grpc | RouteKind::Http) | None => {}
    }
    match port.protocol {
        AppProtocol::Http | AppProtocol::Http2 => Listener {
            filter_chains: vec![http("http", None)],
            ..listener
        },
        AppProtocol::Tcp => Listener {
            filter_chains: vec![tcp()],
            ..listener
        },
        AppProtocol::Auto => {
            let detected = FilterChainMatch {
                transport_protocol: "raw_buffer".to_owned(),
                application_protocols: DETECTED_HTTP.map(str::to_owned).to_vec(),
                ..FilterChainMatch::default()
            };
            Listener {
                filter_chains: vec![http("http", Some(detected))],
                default_filter_chain: Some(tcp()),
                listener_filters: vec![filter::tls_inspector(None), filter::http_inspector(None)],
                listener_filters_timeout: Some(filter::DETECTION_TIMEOUT),
                continue_on_listener_filters_timeout: true,
                ..listener
            }
        }
    }
}
