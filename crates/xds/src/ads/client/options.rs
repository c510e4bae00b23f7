//! What a client connects to, and as whom.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::Channel;

use super::values::Variant;
use crate::pb::envoy::config::core::v3::Node;

/// Why a connection could not be made.
pub type ConnectError = Box<dyn Error + Send + Sync>;

/// Makes a connection, for each stream anew.
pub type ChannelFactory =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Channel, ConnectError>> + Send + Sync>;

/// Gives what goes into the headers of a stream, for each stream anew (a token is renewed on disk).
pub type MetadataSource = Arc<dyn Fn() -> Result<MetadataMap, ConnectError> + Send + Sync>;

/// The header `authorization: Bearer <token>`, marked so that nothing logs it.
///
/// # Errors
/// A token with a character that no header can hold. The error does not show the token.
pub fn bearer(token: &str) -> Result<MetadataMap, ConnectError> {
    let value = format!("Bearer {}", token.trim());
    let mut value: AsciiMetadataValue = value
        .parse()
        .map_err(|_| "the token has a character that no header can hold")?;
    value.set_sensitive(true);
    let mut metadata = MetadataMap::new();
    metadata.insert("authorization", value);
    Ok(metadata)
}

/// Which service to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// `AggregatedDiscoveryService`: all kinds on one stream.
    Aggregated,
    /// `SecretDiscoveryService`: secrets only.
    Secrets,
}

/// What to connect to, and as whom.
#[derive(Clone)]
pub struct Options {
    /// Which service to call.
    pub service: Service,
    /// Which form of the protocol to speak.
    pub variant: Variant,
    /// Who we are.
    pub node: Node,
    /// The largest response in bytes; a large mesh in one response takes tens of megabytes.
    pub max_response: usize,
    /// Makes the connections.
    pub channel: ChannelFactory,
    /// Gives the headers of each stream.
    pub metadata: MetadataSource,
}

impl Options {
    /// Options with the largest response at 256 MiB and no headers.
    #[must_use]
    pub fn new(service: Service, variant: Variant, node: Node, channel: ChannelFactory) -> Self {
        let metadata: MetadataSource = Arc::new(|| Ok(MetadataMap::new()));
        Self {
            service,
            variant,
            node,
            max_response: 256 << 20,
            channel,
            metadata,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Options")
            .field("service", &self.service)
            .field("variant", &self.variant)
            .field("node", &self.node.id)
            .finish_non_exhaustive()
    }
}
