//! The gRPC service around the streams.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request, Response, Status, Streaming, async_trait};

use super::{Answer, DeltaStream, Progress, ResourceSet, SotwStream};
use crate::ads::ResourceType;
use crate::pb::envoy::config::core::v3::Node;
use crate::pb::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use crate::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

/// The largest request in bytes: on reconnecting, a client names all it has.
const MAX_REQUEST: usize = 16 << 20;
/// How long a stream may be open before it says who it is.
const FIRST_REQUEST: Duration = Duration::from_secs(15);
/// How many responses wait for a slow client; the streams hold back by themselves.
const RESPONSES: usize = 4;

/// Where the resources come from.
#[async_trait]
pub trait Source: Send + Sync + 'static {
    /// Who calls, as proved before anything that it says is read.
    type Caller: Send + 'static;
    /// A client that was admitted. It is dropped when its stream ends.
    type Client: Send + Sync + 'static;

    /// Finds out who calls: `metadata` has its token, `extensions` what the transport knows of it.
    /// No message of a caller that cannot prove who it is is read: messages take memory.
    ///
    /// # Errors
    /// What to tell a caller that is nobody.
    async fn authenticate(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<Self::Caller, Status>;

    /// Decides whether a caller may have the stream of a node.
    ///
    /// # Errors
    /// What to tell a client that may not.
    async fn admit(&self, node: Node, caller: Self::Caller) -> Result<Self::Client, Status>;

    /// The resources for a client, as they change. When the sender is dropped the stream ends.
    fn watch(&self, client: &Self::Client) -> watch::Receiver<Arc<ResourceSet>>;

    /// A client is being sent resources of a kind, made from this version of its set.
    fn sent(&self, _client: &Self::Client, _kind: ResourceType, _version: &str) {}

    /// A client took or refused a response.
    fn answered(&self, client: &Self::Client, answer: Answer);
}

/// The aggregated discovery service (delta) for `source`, to be added to a tonic server.
/// `identifier` names this server to clients.
pub fn service<S: Source>(
    source: Arc<S>,
    identifier: impl Into<String>,
) -> AggregatedDiscoveryServiceServer<Aggregated<S>> {
    let service = Aggregated {
        source,
        identifier: identifier.into(),
    };
    AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST)
}

/// The implementation behind [`service`].
#[derive(Debug)]
pub struct Aggregated<S> {
    source: Arc<S>,
    identifier: String,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[async_trait]
impl<S: Source> AggregatedDiscoveryService for Aggregated<S> {
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented(
            "this server speaks delta only: set api_type to DELTA_GRPC in the ads_config",
        ))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (metadata, extensions, mut requests) = request.into_parts();
        let caller = self.source.authenticate(&metadata, &extensions).await?;
        let mut opening = first(&mut requests).await?;
        let node = opening
            .node
            .take()
            .ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
        let client = self.source.admit(node, caller).await?;
        let watch = self.source.watch(&client);
        let source = Arc::clone(&self.source);
        let observe = move |progress| match progress {
            Progress::Sent(kind, version) => source.sent(&client, kind, &version),
            Progress::Answered(answer) => source.answered(&client, answer),
        };
        let responses = stream_delta(&self.identifier, opening, requests, watch, observe);
        Ok(Response::new(Box::pin(responses)))
    }
}

/// The first request of a stream.
pub(crate) async fn first<R>(requests: &mut Streaming<R>) -> Result<R, Status> {
    tokio::time::timeout(FIRST_REQUEST, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no request came"))??
        .ok_or_else(|| Status::invalid_argument("the stream ended before its first request"))
}

/// Runs a delta stream until either side ends it.
pub(crate) fn stream_delta(
    identifier: &str,
    opening: DeltaDiscoveryRequest,
    requests: Streaming<DeltaDiscoveryRequest>,
    mut watch: watch::Receiver<Arc<ResourceSet>>,
    observe: impl FnMut(Progress) + Send + 'static,
) -> ReceiverStream<Result<DeltaDiscoveryResponse, Status>> {
    let set = Arc::clone(&watch.borrow_and_update());
    let mut stream = DeltaStream::new(identifier, set);
    stream.on_request(opening);
    run(stream, requests, watch, observe)
}

/// Runs a state-of-the-world stream, which `stream` makes, until either side ends it.
pub(crate) fn stream_sotw(
    stream: impl FnOnce(Arc<ResourceSet>) -> SotwStream,
    requests: Streaming<DiscoveryRequest>,
    mut watch: watch::Receiver<Arc<ResourceSet>>,
    observe: impl FnMut(Progress) + Send + 'static,
) -> ReceiverStream<Result<DiscoveryResponse, Status>> {
    let set = Arc::clone(&watch.borrow_and_update());
    run(stream(set), requests, watch, observe)
}

/// What the two kinds of streams have in common.
trait Machine: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;
    fn on_request(&mut self, request: Self::Request) -> Option<Answer>;
    fn on_resources(&mut self, set: Arc<ResourceSet>);
    fn next_response(&mut self) -> Option<Self::Response>;
    /// The type and the version of a response.
    fn describe(response: &Self::Response) -> (&str, &str);
}

macro_rules! machine {
    ($machine:ty, $request:ty, $response:ty, $version:ident) => {
        impl Machine for $machine {
            type Request = $request;
            type Response = $response;

            fn on_request(&mut self, request: $request) -> Option<Answer> {
                <$machine>::on_request(self, request)
            }

            fn on_resources(&mut self, set: Arc<ResourceSet>) {
                <$machine>::on_resources(self, set);
            }

            fn next_response(&mut self) -> Option<$response> {
                <$machine>::next_response(self)
            }

            fn describe(response: &$response) -> (&str, &str) {
                (&response.type_url, &response.$version)
            }
        }
    };
}

machine!(
    DeltaStream,
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
    system_version_info
);
machine!(
    SotwStream,
    DiscoveryRequest,
    DiscoveryResponse,
    version_info
);

fn run<M: Machine>(
    mut machine: M,
    mut requests: Streaming<M::Request>,
    mut watch: watch::Receiver<Arc<ResourceSet>>,
    mut observe: impl FnMut(Progress) + Send + 'static,
) -> ReceiverStream<Result<M::Response, Status>> {
    let (send, responses) = mpsc::channel(RESPONSES);
    tokio::spawn(async move {
        loop {
            while let Some(response) = machine.next_response() {
                let (type_url, version) = M::describe(&response);
                if let Some(kind) = ResourceType::of_type_url(type_url) {
                    observe(Progress::Sent(kind, version.to_owned()));
                }
                if send.send(Ok(response)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => {
                        if let Some(answer) = machine.on_request(request) {
                            observe(Progress::Answered(answer));
                        }
                    }
                    // The client is gone, and whoever could read a status with it.
                    Ok(None) | Err(_) => return,
                },
                changed = watch.changed() => {
                    if changed.is_err() {
                        let status = Status::unavailable("the server has ended this stream");
                        let _ = send.send(Err(status)).await;
                        return;
                    }
                    machine.on_resources(Arc::clone(&watch.borrow_and_update()));
                }
                () = send.closed() => return,
            }
        }
    });
    ReceiverStream::new(responses)
}
