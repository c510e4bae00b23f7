//! What the rules of HTTPRoutes and GRPCRoutes share.

use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, RouteMatch, WeightedCluster,
};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::UInt32Value;

use crate::mesh::{JudgedRoute, MeshState, RouteKind};
use crate::registry::kinds::{
    BackendRef, HeaderModifier, HeaderValue as WantedHeader, HttpFilter, RuleTimeouts,
};

use super::backend::BackendCluster;

/// Where a rule stands.
pub(super) struct Origin<'a> {
    /// The route's namespace.
    pub(super) namespace: &'a str,
    /// Whether its requests are to be answered with an error.
    pub(super) fails_requests: bool,
    name: String,
}

impl<'a> Origin<'a> {
    /// The rule at `index` of a route; none where it is dropped.
    pub(super) fn new(route: &'a JudgedRoute, index: usize, name: Option<&str>) -> Option<Self> {
        let fails_requests = match route.problem(index) {
            None => false,
            Some(problem) if problem.fails_requests => true,
            Some(_) => return None,
        };
        let object = route.reference().name;
        Some(Self {
            namespace: route.object().metadata().namespace(),
            fails_requests,
            name: match name {
                Some(name) => format!("{object}/{name}"),
                None => format!("{object}/{index}"),
            },
        })
    }
}

/// A route with the header changes of its filters.
pub(super) fn route(
    origin: &Origin<'_>,
    matches: RouteMatch,
    action: Action,
    filters: &[HttpFilter],
) -> Route {
    let mut route = Route {
        name: origin.name.clone(),
        r#match: Some(matches),
        action: Some(action),
        ..Route::default()
    };
    for filter in filters {
        if let Some(modifier) = &filter.request_header_modifier {
            route.request_headers_to_add = additions(modifier);
            route.request_headers_to_remove.clone_from(&modifier.remove);
        }
        if let Some(modifier) = &filter.response_header_modifier {
            route.response_headers_to_add = additions(modifier);
            route
                .response_headers_to_remove
                .clone_from(&modifier.remove);
        }
    }
    route
}

/// What the specifications ask for where there is no backend: 500 for HTTP (HTTPRouteRule), and
/// UNAVAILABLE for gRPC (GRPCRouteRule), which 503 becomes.
pub(super) fn refusal(kind: RouteKind) -> Action {
    let status = if kind == RouteKind::Grpc { 503 } else { 500 };
    Action::DirectResponse(DirectResponseAction {
        status,
        ..DirectResponseAction::default()
    })
}

/// Forwards to the backends by their weights, with copies to the mirrors; none where no backend
/// leads anywhere.
pub(super) fn forward(
    mesh: &MeshState,
    origin: &Origin<'_>,
    kind: RouteKind,
    backends: &[BackendRef],
    filters: &[HttpFilter],
) -> Option<RouteAction> {
    let cluster = |backend| BackendCluster::of(mesh, origin.namespace, kind, backend);
    let backends: Vec<(&BackendRef, BackendCluster)> = backends
        .iter()
        .filter(|backend| backend.weight() > 0)
        .map(|backend| (backend, cluster(backend)))
        .collect();
    if !backends.iter().any(|(_, cluster)| cluster.exists) {
        return None;
    }
    let cluster_specifier = match backends.as_slice() {
        [(backend, cluster)] if backend.filters.is_empty() => {
            ClusterSpecifier::Cluster(cluster.name.clone())
        }
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|(backend, cluster)| weight(backend, cluster))
                .collect(),
            ..WeightedCluster::default()
        }),
    };
    let mirrors = filters.iter().filter_map(|filter| {
        let mirror = filter.request_mirror.as_ref()?;
        let cluster = cluster(&mirror.backend_ref);
        let parts = mirror.parts_per_million();
        // One that leads nowhere is left out, and the status tells (HTTPRequestMirrorFilter).
        (cluster.exists && parts > 0).then(|| mirror_policy(cluster.name, parts))
    });
    let not_found = match kind {
        RouteKind::Grpc => ClusterNotFoundResponseCode::ServiceUnavailable,
        _ => ClusterNotFoundResponseCode::InternalServerError,
    };
    Some(RouteAction {
        cluster_specifier: Some(cluster_specifier),
        // The share of a backend that leads nowhere is answered as if all did not.
        cluster_not_found_response_code: not_found.into(),
        request_mirror_policies: mirrors.collect(),
        // No timeout: without a word about it, none is Envoy's 15 s.
        timeout: Some(timeout(RuleTimeouts::default())),
        ..RouteAction::default()
    })
}

fn mirror_policy(cluster: String, parts_per_million: u32) -> RequestMirrorPolicy {
    let fraction = RuntimeFractionalPercent {
        default_value: Some(FractionalPercent {
            numerator: parts_per_million,
            denominator: DenominatorType::Million.into(),
        }),
        ..RuntimeFractionalPercent::default()
    };
    RequestMirrorPolicy {
        cluster,
        runtime_fraction: (parts_per_million < 1_000_000).then_some(fraction),
        // The copy is the same request: the API knows of no change to its host.
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    }
}

fn weight(backend: &BackendRef, cluster: &BackendCluster) -> ClusterWeight {
    let mut weight = ClusterWeight {
        name: cluster.name.clone(),
        weight: Some(UInt32Value {
            value: cluster.weight,
        }),
        ..ClusterWeight::default()
    };
    for filter in &backend.filters {
        if let Some(modifier) = &filter.request_header_modifier {
            weight.request_headers_to_add = additions(modifier);
            weight
                .request_headers_to_remove
                .clone_from(&modifier.remove);
        }
        if let Some(modifier) = &filter.response_header_modifier {
            weight.response_headers_to_add = additions(modifier);
            weight
                .response_headers_to_remove
                .clone_from(&modifier.remove);
        }
        if let Some(rewrite) = &filter.url_rewrite {
            let host = rewrite.hostname.clone();
            weight.host_rewrite_specifier = host.map(HostRewriteSpecifier::HostRewriteLiteral);
        }
    }
    weight
}

fn additions(modifier: &HeaderModifier) -> Vec<HeaderValueOption> {
    let option = |header: &WantedHeader, action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue {
            key: header.name.clone(),
            // Envoy reads %...% as a variable; a document means the character.
            value: header.value.replace('%', "%%"),
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    };
    let set = modifier.set.iter();
    let set = set.map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = modifier.add.iter();
    set.chain(add.map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd)))
        .collect()
}

/// One attempt is all there is, so the shorter of the two bounds it.
pub(super) fn timeout(timeouts: RuleTimeouts) -> envoy_types::pb::google::protobuf::Duration {
    let bounds = [timeouts.request, timeouts.backend_request];
    let shortest = bounds
        .into_iter()
        .flatten()
        .map(|bound| bound.0)
        .filter(|bound| !bound.is_zero())
        .min();
    let shortest = shortest.unwrap_or(Duration::ZERO);
    envoy_types::pb::google::protobuf::Duration {
        seconds: i64::try_from(shortest.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(shortest.subsec_nanos()).unwrap_or(0),
    }
}
