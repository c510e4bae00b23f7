//! The kinds of resources.

use std::fmt;

/// A kind of resource, in the order in which kinds are requested and pushed: what is pointed at
/// comes before what points at it, except that listeners come before the routes they name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// RTDS: before all else, for it may decide what the others mean.
    Runtime,
    /// CDS
    Cluster,
    /// EDS
    Endpoint,
    /// LDS
    Listener,
    /// RDS
    Route,
    /// SDS
    Secret,
}

impl ResourceType {
    /// All kinds, in order.
    pub const ALL: [Self; 6] = [
        Self::Runtime,
        Self::Cluster,
        Self::Endpoint,
        Self::Listener,
        Self::Route,
        Self::Secret,
    ];

    /// The full name of the message, such as `envoy.config.cluster.v3.Cluster`.
    #[must_use]
    pub fn message_name(self) -> &'static str {
        self.type_url()
            .rsplit_once('/')
            .map_or("", |(_, name)| name)
    }

    /// The type URL in requests, responses and the resources themselves.
    #[must_use]
    pub fn type_url(self) -> &'static str {
        match self {
            Self::Runtime => "type.googleapis.com/envoy.service.runtime.v3.Runtime",
            Self::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            Self::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            Self::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            Self::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            Self::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        }
    }

    /// The kind that a type URL names.
    #[must_use]
    pub fn of_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.type_url() == url)
    }

    /// Whether a request without names means all resources, and whether (in the state of the
    /// world) a resource that is absent from a response is gone.
    #[must_use]
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }

    /// Its place in [`ResourceType::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Runtime => "runtime layer",
            Self::Cluster => "cluster",
            Self::Endpoint => "endpoints",
            Self::Listener => "listener",
            Self::Route => "route configuration",
            Self::Secret => "secret",
        })
    }
}
