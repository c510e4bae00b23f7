//! The kinds of documents, in the shapes that Kubernetes gives them.
//!
//! A field that is in none of these types is refused by its path. Fields whose names begin with an
//! underscore are Kubernetes' own, concern only its node proxy or its bookkeeping, and may be
//! present without meaning anything to the mesh.

mod duration;
mod endpoint_slice;
mod grpc_route;
mod http_filter;
mod http_match;
mod http_route;
mod metadata;
mod peer_authentication;
mod pod;
mod request_mirror;
mod route;
mod service;
mod status;
mod tcp_route;
mod tls_route;
mod workload_entry;

pub use duration::GatewayDuration;
pub use endpoint_slice::{AddressType, EndpointPort, EndpointSlice, SliceEndpoint};
pub use grpc_route::{GrpcMatch, GrpcRoute, GrpcRouteRule, MethodMatch};
pub use http_filter::{
    FilterKind, HeaderModifier, HeaderValue, HttpFilter, PathModifier, PathModifierKind,
    RequestRedirect, UrlRewrite,
};
pub use http_match::{HttpMatch, MatchKind, Method, PathMatch, PathMatchKind, ValueMatch};
pub use http_route::{HttpRoute, HttpRouteRule, RuleTimeouts};
pub use metadata::{INJECT_LABEL, Namespace, ObjectMeta, ServiceAccount};
pub use peer_authentication::{
    MutualTls, MutualTlsMode, PeerAuthentication, PeerAuthenticationSpec, Selector,
};
pub use pod::{MUTUAL_TLS_LABEL, Pod};
pub use request_mirror::RequestMirror;
pub use route::{BackendRef, ParentRef, ProblemKind, RuleProblem};
pub use service::{IpFamily, PortName, Service, ServicePort, TransportProtocol};
pub use status::ObjectStatus;
pub use tcp_route::{StreamRule, TcpRoute};
pub use tls_route::TlsRoute;
pub use workload_entry::{WorkloadEntry, WorkloadEntrySpec};
