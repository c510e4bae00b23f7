//! A gRPC service that echoes, unary and in both directions. Its messages are written by hand, so
//! that nothing is generated at build time.

use std::convert::Infallible;
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use futures_util::{Stream, StreamExt as _};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::AsyncServer;

/// What both sides send.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Echo {
    /// Comes back as it is.
    #[prost(string, tag = "1")]
    pub text: String,
    /// A status code of gRPC to fail with; 0 answers.
    #[prost(int32, tag = "2")]
    pub fail: i32,
    /// The time before the answer, in milliseconds.
    #[prost(uint32, tag = "3")]
    pub delay: u32,
    /// The name of the server that answered; set by the server.
    #[prost(string, tag = "4")]
    pub server: String,
    /// The metadata that the server saw, `name: value` each; set by the server on the first
    /// answer.
    #[prost(string, repeated, tag = "5")]
    pub metadata: Vec<String>,
}

/// The path of the unary method.
pub const UNARY: &str = "/outrider.test.Echo/Unary";
/// The path of the method that streams in both directions.
pub const STREAM: &str = "/outrider.test.Echo/Stream";

/// Serves the two methods. Each message is answered by one with the same text. Its health service
/// says that the server as a whole serves, and no service by name.
///
/// # Errors
/// When it cannot be started.
pub fn echo(listener: TcpListener, name: &str) -> Result<AsyncServer> {
    let service = Service {
        name: name.to_owned(),
    };
    AsyncServer::start(listener, move |listener| async move {
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .add_service(super::health::Health);
        if let Err(error) = server.serve_with_incoming(incoming).await {
            eprintln!("testkit: a gRPC server ended: {error}");
        }
    })
}

#[derive(Clone)]
struct Service {
    name: String,
}

impl Service {
    async fn answer(&self, mut message: Echo, metadata: Vec<String>) -> Result<Echo, Status> {
        tokio::time::sleep(Duration::from_millis(message.delay.into())).await;
        if message.fail != 0 {
            return Err(Status::new(
                message.fail.into(),
                format!("{} fails", self.name),
            ));
        }
        message.server.clone_from(&self.name);
        message.metadata = metadata;
        Ok(message)
    }
}

fn metadata(map: &tonic::metadata::MetadataMap) -> Vec<String> {
    map.as_ref()
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect()
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;
type Answers = Pin<Box<dyn Stream<Item = Result<Echo, Status>> + Send>>;

impl UnaryService<Echo> for Service {
    type Response = Echo;
    type Future = Answer<Echo>;

    fn call(&mut self, request: Request<Echo>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let seen = metadata(request.metadata());
            Ok(Response::new(
                service.answer(request.into_inner(), seen).await?,
            ))
        })
    }
}

impl StreamingService<Echo> for Service {
    type Response = Echo;
    type ResponseStream = Answers;
    type Future = Answer<Answers>;

    fn call(&mut self, request: Request<Streaming<Echo>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let seen = metadata(request.metadata());
            let answers = request
                .into_inner()
                .enumerate()
                .then(move |(index, message)| {
                    let service = service.clone();
                    let seen = if index == 0 { seen.clone() } else { Vec::new() };
                    async move { service.answer(message?, seen).await }
                });
            Ok(Response::new(Box::pin(answers) as Answers))
        })
    }
}

impl NamedService for Service {
    const NAME: &'static str = "outrider.test.Echo";
}

impl<B> tower::Service<http::Request<B>> for Service
where
    B: hyper::body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let mut server = Grpc::new(ProstCodec::<Echo, Echo>::default());
            Ok(match request.uri().path() {
                UNARY => server.unary(service, request).await,
                STREAM => server.streaming(service, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}
