//! A client of cleartext HTTP/2 with prior knowledge, on one connection.

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

/// One connection. The task that drives it ends with it.
pub struct Client {
    sender: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A body and its trailers.
#[derive(Debug, Default, Clone)]
pub struct Body {
    /// The bytes of all DATA frames.
    pub body: Vec<u8>,
    /// The trailers; empty when there are none.
    pub trailers: HeaderMap,
}

impl Client {
    /// Connects. Called on a runtime inside a pod (`pod.block_on`), it connects from there.
    ///
    /// # Errors
    /// When the connection is refused or the handshake fails.
    pub async fn connect(address: impl tokio::net::ToSocketAddrs) -> Result<Self> {
        let connection = tokio::net::TcpStream::connect(address)
            .await
            .context("connect")?;
        connection.set_nodelay(true)?;
        Self::handshake(connection).await
    }

    /// Uses a connection that exists, which may be one of TLS.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn handshake(
        connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self> {
        let (sender, driver) = h2::client::handshake(connection)
            .await
            .context("handshake")?;
        Ok(Self {
            sender,
            driver: tokio::spawn(driver),
        })
    }

    /// Sends a head and leaves the body to the caller.
    ///
    /// # Errors
    /// When the connection takes no more streams (it had GOAWAY, or ended).
    pub async fn open(
        &self,
        request: Request<()>,
        end: bool,
    ) -> Result<(h2::client::ResponseFuture, SendStream<Bytes>)> {
        let mut sender = self
            .sender
            .clone()
            .ready()
            .await
            .context("wait for a stream")?;
        sender.send_request(request, end).context("send the head")
    }

    /// Sends a whole request and reads the whole response.
    ///
    /// # Errors
    /// When the stream or the connection fails.
    pub async fn exchange(
        &self,
        request: Request<()>,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<Response<Body>> {
        let end = body.is_empty() && trailers.is_none();
        let (response, mut sender) = self.open(request, end).await?;
        let writing = async {
            if !end {
                write_body(&mut sender, body, trailers).await?;
            }
            anyhow::Ok(())
        };
        let reading = async {
            let (head, stream) = response
                .await
                .context("wait for the response")?
                .into_parts();
            anyhow::Ok(Response::from_parts(head, read_body(stream).await?))
        };
        // A response may come before the request has been sent wholly, and end it.
        tokio::pin!(writing, reading);
        let mut written = false;
        loop {
            tokio::select! {
                response = &mut reading => return response,
                result = &mut writing, if !written => { written = true; result?; }
            }
        }
    }

    /// Sends a GET and reads the whole response. `uri` has a scheme and an authority.
    ///
    /// # Errors
    /// When the stream or the connection fails.
    pub async fn get(&self, uri: &str) -> Result<Response<Body>> {
        let request = Request::get(uri).version(http::Version::HTTP_2).body(())?;
        self.exchange(request, Bytes::new(), None).await
    }

    /// Waits until the peer has ended the connection, which a GOAWAY leads to.
    ///
    /// # Errors
    /// When it ends with an error.
    pub async fn closed(mut self) -> Result<()> {
        match (&mut self.driver).await {
            Ok(result) => result.context("the connection failed"),
            Err(error) => bail!("the driver failed: {error}"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Reads a body to its end and gives the window back as it goes.
///
/// # Errors
/// When the stream is reset or the connection fails.
pub async fn read_body(mut stream: RecvStream) -> Result<Body> {
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data.context("read the body")?;
        stream
            .flow_control()
            .release_capacity(data.len())
            .context("release the window")?;
        body.extend_from_slice(&data);
    }
    let trailers = stream
        .trailers()
        .await
        .context("read the trailers")?
        .unwrap_or_default();
    Ok(Body { body, trailers })
}

/// Writes a body as the window allows, then the trailers, and ends the stream.
///
/// # Errors
/// When the stream is reset or the connection fails.
pub async fn write_body(
    sender: &mut SendStream<Bytes>,
    mut body: Bytes,
    trailers: Option<HeaderMap>,
) -> Result<()> {
    while !body.is_empty() {
        sender.reserve_capacity(body.len());
        let capacity = std::future::poll_fn(|context| sender.poll_capacity(context))
            .await
            .context("the stream ended")?
            .context("wait for the window")?;
        let part = body.split_to(capacity.min(body.len()));
        sender.send_data(part, false).context("send data")?;
    }
    match trailers {
        Some(trailers) => sender.send_trailers(trailers).context("send the trailers"),
        None => sender
            .send_data(Bytes::new(), true)
            .context("end the stream"),
    }
}
