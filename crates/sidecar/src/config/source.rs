//! `ConfigSource`: where a discovered resource comes from.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What a `ConfigSource` asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResourceSource {
    /// Who is asked.
    pub origin: Origin,
    /// `initial_fetch_timeout`: how long warming waits, 15 s unless set; `None` (a zero) for ever.
    pub initial_fetch_timeout: Option<Duration>,
}

/// `config_source_specifier`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// `ads`, and `self`: the one aggregated stream.
    Ads,
    /// `api_config_source` with `envoy_grpc`: a stream of its own.
    Grpc(GrpcSource),
    /// `path_config_source`, or `path`
    File {
        /// A `DiscoveryResponse` in YAML or JSON.
        path: PathBuf,
        /// `watched_directory`: reload when something is moved in it, not when the file changes.
        watched_directory: Option<PathBuf>,
    },
}

/// An `ApiConfigSource` over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrpcSource {
    /// `envoy_grpc.cluster_name`: `sds-grpc` without such a cluster is the built-in source.
    pub cluster: Arc<str>,
    /// `api_type`: delta, or the state of the world.
    pub delta: bool,
    /// `envoy_grpc.authority`, else empty: the cluster's name.
    pub authority: Arc<str>,
    /// `initial_metadata` of the stream. May hold a credential: never shown.
    pub metadata: Vec<Metadata>,
    /// `envoy_grpc.max_receive_message_length`, bytes.
    pub max_message_bytes: Option<u32>,
}

/// One header of a stream.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// In lower case.
    pub name: Arc<str>,
    /// Its value.
    pub value: Arc<str>,
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: (hidden)", self.name)
    }
}
