//! A client of the [gRPC echo](crate::servers::grpc).

use anyhow::{Context as _, Result};
use futures_util::Stream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::servers::grpc::{Echo, STREAM, UNARY};

/// One channel.
pub struct Client {
    inner: tonic::client::Grpc<Channel>,
}

impl Client {
    /// Connects to `http://HOST:PORT`. Called on a runtime inside a pod, it connects from there.
    ///
    /// # Errors
    /// When the address is no URI or the connection fails.
    pub async fn connect(uri: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(uri.to_owned()).context("parse the URI")?;
        let channel = endpoint.connect().await.context("connect")?;
        Ok(Self {
            inner: tonic::client::Grpc::new(channel),
        })
    }

    /// Calls the unary method.
    ///
    /// # Errors
    /// The status that the call ended with.
    pub async fn unary(&mut self, message: Echo) -> Result<Echo, Status> {
        self.ready().await?;
        let path = http::uri::PathAndQuery::from_static(UNARY);
        let codec = ProstCodec::<Echo, Echo>::default();
        Ok(self
            .inner
            .unary(Request::new(message), path, codec)
            .await?
            .into_inner())
    }

    /// Calls the method that streams in both directions.
    ///
    /// # Errors
    /// The status that the call ended with before its first message.
    pub async fn stream(
        &mut self,
        messages: impl Stream<Item = Echo> + Send + 'static,
    ) -> Result<Streaming<Echo>, Status> {
        self.ready().await?;
        let path = http::uri::PathAndQuery::from_static(STREAM);
        let codec = ProstCodec::<Echo, Echo>::default();
        Ok(self
            .inner
            .streaming(Request::new(messages), path, codec)
            .await?
            .into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        self.inner
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))
    }
}
