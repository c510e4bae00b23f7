//! Route tables.

use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::google::protobuf::{BoolValue, Duration};

use crate::mesh::{JudgedRoute, MeshState, RouteKind};

use super::{grpc_route, http_route};

/// The table of a service's port: its routes, or everything to `cluster`. The address that the client
/// dialled has chosen the service, so any host matches.
pub(super) fn service_table(
    mesh: &MeshState,
    name: &str,
    cluster: &str,
    attached: &[&JudgedRoute],
    port: u16,
) -> RouteConfiguration {
    match attached.first().map(|route| route.kind()) {
        Some(RouteKind::Grpc) => table(name, grpc_route::routes(mesh, attached)),
        Some(RouteKind::Http) => table(name, http_route::routes(mesh, attached, port)),
        None | Some(RouteKind::Tls | RouteKind::Tcp) => RouteConfiguration {
            name: name.to_owned(),
            ..to_cluster(cluster)
        },
    }
}

/// A table that sends everything to one cluster.
pub(super) fn to_cluster(cluster: &str) -> RouteConfiguration {
    let everything = RouteMatch {
        path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
        ..RouteMatch::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        // No timeout: without a word about it, none is Envoy's 15 s.
        timeout: Some(Duration::default()),
        ..RouteAction::default()
    };
    let route = Route {
        name: "default".to_owned(),
        r#match: Some(everything),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    table(cluster, vec![route])
}

fn table(name: &str, routes: Vec<Route>) -> RouteConfiguration {
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: name.to_owned(),
            domains: vec!["*".to_owned()],
            routes,
            ..VirtualHost::default()
        }],
        // A cluster that is not there is an error for its requests, not for the whole table.
        validate_clusters: Some(BoolValue { value: false }),
        ..RouteConfiguration::default()
    }
}
