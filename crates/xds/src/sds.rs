//! A server of secrets for other programs in the pod, on a Unix socket.
//!
//! It speaks both forms of the protocol: Envoy asks in the state of the world even where its other
//! resources come as deltas. Who may connect is decided by the socket's mode.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::ads::ResourceType;
use crate::ads::server::{
    Answer, Progress, ResourceSet, SotwStream, first, stream_delta, stream_sotw,
};
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use crate::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 128;

/// Why the socket does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The path has something that is not a socket of ours.
    #[error("{path} exists and is not a socket: remove it or choose another path")]
    NotASocket {
        /// The path.
        path: String,
    },
    /// Another program serves there.
    #[error("{path} is served by another program")]
    InUse {
        /// The path.
        path: String,
    },
    /// The socket could not be made.
    #[error("cannot make the socket {path}: {error}")]
    Bind {
        /// The path.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The server failed while it ran.
    #[error("the server of secrets failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

/// The secret discovery service for what `secrets` holds of [`ResourceType::Secret`], to be added
/// to a tonic server. `identifier` names this server to clients.
pub fn service(
    secrets: watch::Receiver<Arc<ResourceSet>>,
    identifier: impl Into<String>,
) -> SecretDiscoveryServiceServer<Secrets> {
    SecretDiscoveryServiceServer::new(Secrets {
        secrets,
        identifier: identifier.into(),
    })
}

/// The implementation behind [`service`].
#[derive(Debug)]
pub struct Secrets {
    secrets: watch::Receiver<Arc<ResourceSet>>,
    identifier: String,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let mut requests = request.into_inner();
        let mut opening = first(&mut requests).await?;
        let secret = ResourceType::Secret.type_url();
        if opening.type_url.is_empty() {
            secret.clone_into(&mut opening.type_url);
        }
        let watch = self.secrets.clone();
        let responses = stream_delta(&self.identifier, opening, requests, watch, observe);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let mut requests = request.into_inner();
        let opening = first(&mut requests).await?;
        let identifier = self.identifier.clone();
        let stream = move |set| {
            let mut stream = SotwStream::new(ResourceType::Secret, &identifier, set);
            stream.on_request(opening);
            stream
        };
        let responses = stream_sotw(stream, requests, self.secrets.clone(), observe);
        Ok(Response::new(Box::pin(responses)))
    }

    async fn fetch_secrets(
        &self,
        _request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented(
            "secrets are served on a stream: use api_type GRPC",
        ))
    }
}

fn observe(progress: Progress) {
    if let Progress::Answered(Answer {
        names,
        refusal: Some(refusal),
        ..
    }) = progress
    {
        tracing::warn!(names = ?names, "a client refused a secret: {refusal}");
    }
}

/// Serves secrets on a Unix socket at `path` until `shutdown` resolves. Only users whom `mode` lets
/// write to the socket can connect. A socket that a dead process left is replaced.
///
/// # Errors
/// [`ServeError`]
pub async fn serve_unix(
    path: &Path,
    mode: u32,
    service: SecretDiscoveryServiceServer<Secrets>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let listener = listen(path, mode).await?;
    let served = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await;
    // Whoever connects from now on is to see that nobody is there, rather than wait.
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!("removing {}: {error}", path.display());
    }
    Ok(served?)
}

async fn listen(path: &Path, mode: u32) -> Result<UnixListener, ServeError> {
    let shown = || path.display().to_string();
    if let Ok(metadata) = fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(ServeError::NotASocket { path: shown() });
        }
        if UnixStream::connect(path).await.is_ok() {
            return Err(ServeError::InUse { path: shown() });
        }
        fs::remove_file(path).map_err(|error| ServeError::Bind {
            path: shown(),
            error,
        })?;
    }
    let bind = || {
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        // Before it listens, so that at no time anybody else can connect.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|error| ServeError::Bind {
        path: shown(),
        error,
    })
}
