//! Tunnelling: a connection's bytes travel in a CONNECT or POST request (RFC 9110, section 9.3.6).

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::AsyncReadExt as _;

use super::dial::{DialError, Wishes, attempt};
use super::relay::{End, Limits};
use super::session::Session;
use crate::config::cluster::{Priority, UpstreamProtocol};
use crate::config::dynamic_forward_proxy::DynamicHost;
use crate::config::endpoint::Endpoint;
use crate::config::route::AppendAction;
use crate::config::tcp_proxy::Tunnel;
use crate::http::error::StreamError;
use crate::http::h1::grammar;
use crate::http::headers::Headers;
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};
use crate::http::tunnel::{self, Raw, Side as _};
use crate::listener::connection::Connection;
use crate::network::filter_state::{TUNNEL_RESPONSE_HEADERS, TUNNEL_RESPONSE_TRAILERS, Value};
use crate::telemetry::access_log::record::Record;
use crate::tls::stream::Stream;
use crate::upstream::exchange::{Exchange, Lease};
use crate::upstream::{Client, Cluster, ExchangeRequest, UpstreamError};

/// The namespace of tcp_proxy's dynamic metadata.
const METADATA: &str = "envoy.filters.network.tcp_proxy";

/// A tunnel that an endpoint has accepted.
pub(super) struct Opened {
    pub(super) server: Server,
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) local: Option<SocketAddr>,
    pub(super) cluster: Arc<str>,
    pub(super) attempts: u32,
}

/// The way to the server.
pub(super) enum Server {
    /// A connection that no longer speaks HTTP.
    Stream {
        stream: Stream,
        /// Counts the request.
        lease: Lease,
        /// Counts the connection.
        guard: Box<dyn Any>,
    },
    /// The body of a request and of its response.
    Exchange(Exchange),
}

/// Asks an endpoint of the cluster for a tunnel. `None` where the client went away meanwhile.
pub(super) async fn open(
    session: &Session,
    tunnel: &Tunnel,
    cluster: &Arc<str>,
    client: &mut Stream,
) -> Option<Result<Opened, DialError>> {
    let connection = &session.connection;
    let destination = {
        let state = connection.state.filter_state.borrow();
        let client = Client::from(&**connection);
        Wishes::new(&state, connection.original_destination(), client).destination
    };
    let head = request(session, tunnel);
    // Made of what the client said: a space in it would end the target of the CONNECT.
    if head.authority.is_empty() || !grammar::is_authority(&head.authority) {
        return Some(Err(DialError::Upstream {
            cluster: Arc::clone(cluster),
            attempts: 0,
            endpoint: None,
            error: UpstreamError::Protocol {
                reason: "invalid hostname of a tunnel".into(),
            },
        }));
    }
    let asking = attempt(
        &session.worker,
        &session.proxy,
        cluster,
        async |cluster, chosen| ask(tunnel, &head, cluster, destination, connection, chosen).await,
    );
    let outcome = tokio::select! {
        biased;
        outcome = asking => outcome,
        () = gone(client) => return None,
    };
    Some(outcome.map(|(server, attempts)| Opened {
        endpoint: server.1,
        local: server.2,
        server: server.0,
        cluster: Arc::clone(cluster),
        attempts,
    }))
}

/// Resolves when the client has closed its connection; what it says is kept for later.
async fn gone(client: &mut Stream) {
    let mut bytes = [0; 1024];
    match client.read(&mut bytes).await {
        Ok(length) if length > 0 => {
            client.unread(&bytes[..length]);
            std::future::pending().await
        }
        _ => {}
    }
}

fn request(session: &Session, tunnel: &Tunnel) -> RequestHead {
    let record = Record::of_connection(&session.connection);
    let mut head = RequestHead::new();
    tunnel.hostname.render(&record, &mut head.authority);
    head.body = BodyLength::Streamed;
    match &tunnel.post {
        None => {
            head.method.extend_from_slice(b"CONNECT");
            head.body = BodyLength::None;
        }
        Some(path) => {
            head.method.extend_from_slice(b"POST");
            head.path.extend_from_slice(path);
        }
    }
    let mut value = Vec::new();
    for addition in &tunnel.headers {
        value.clear();
        addition.value.render(&record, &mut value);
        if value.is_empty() && !addition.keep_empty {
            continue;
        }
        let exists = head.headers.named(&addition.name).next().is_some();
        match addition.action {
            AppendAction::AddIfAbsent if exists => {}
            AppendAction::OverwriteIfExists if !exists => {}
            AppendAction::Overwrite | AppendAction::OverwriteIfExists => {
                head.headers.set_named(&addition.name, &value);
            }
            _ => head.headers.push(&addition.name, &value),
        }
    }
    if let Some(id) = &tunnel.request_id {
        let random = session.worker.random_128().to_ne_bytes();
        let text = uuid::Builder::from_random_bytes(random)
            .into_uuid()
            .to_string();
        head.headers.set_named(&id.header, text.as_bytes());
        let state = &session.connection.state;
        state.set_metadata(METADATA, &id.metadata_key, text.into());
    }
    head
}

type Asked = (Server, Arc<Endpoint>, Option<SocketAddr>);

/// Sends the request once and waits for the response's head.
async fn ask(
    tunnel: &Tunnel,
    head: &RequestHead,
    cluster: &Rc<Cluster>,
    original_destination: Option<SocketAddr>,
    connection: &Connection,
    chosen: &mut Option<Arc<Endpoint>>,
) -> Result<Asked, UpstreamError> {
    let protocol = cluster.config().protocol;
    let http1 = matches!(
        protocol,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream
    );
    let want = ExchangeRequest {
        downstream: Version::Http11,
        original_destination,
        name: {
            let state = connection.state.filter_state.borrow();
            DynamicHost::of_filter_state(&state).map(Rc::new)
        },
        // After CONNECT, a connection of HTTP/1 is nobody else's.
        upgrade: http1 && tunnel.post.is_none(),
        fresh: false,
        client: Client::from(connection),
        priority: Priority::Default,
    };
    let mut exchange = cluster.exchange(want, chosen).await?;
    let mut response = ResponseHead::new();
    answered(&mut exchange, head, &mut response)
        .await
        .map_err(|error| UpstreamError::Protocol {
            reason: error.to_string().into(),
        })?;
    if tunnel.keep_headers {
        let status = response.status.to_string();
        let mut fields = vec![(Box::from(":status"), Box::from(status))];
        fields.extend(response_fields(&response));
        keep(connection, TUNNEL_RESPONSE_HEADERS, fields);
    }
    if !(200..300).contains(&response.status) {
        return Err(UpstreamError::Protocol {
            reason: format!("tunnel_response:{}", response.status).into(),
        });
    }
    let (endpoint, local) = (Arc::clone(exchange.endpoint()), exchange.local_addr());
    let is_stream = tunnel.post.is_none() && matches!(exchange, Exchange::H1(_));
    let server = if is_stream {
        let upgraded = exchange.into_upgraded();
        let upgraded = upgraded.ok_or_else(|| UpstreamError::Protocol {
            reason: "no tunnel after CONNECT".into(),
        })?;
        let mut stream = upgraded.stream;
        stream.unread(&upgraded.read_ahead);
        Server::Stream {
            stream,
            lease: upgraded.lease,
            guard: upgraded.guard,
        }
    } else {
        Server::Exchange(exchange)
    };
    Ok((server, endpoint, local))
}

/// Sends the head of the request; resolves with the final head of the response.
async fn answered(
    exchange: &mut Exchange,
    head: &RequestHead,
    response: &mut ResponseHead,
) -> Result<(), StreamError> {
    exchange.send_head(head, false)?;
    poll_fn(|cx: &mut Context<'_>| {
        if let Poll::Ready(Err(error)) = exchange.poll_flush(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            match exchange.poll_head(cx, response) {
                Poll::Ready(Ok(())) if response.status < 200 => {}
                polled => return polled,
            }
        }
    })
    .await
}

/// The fields of a response as text, with the length that framing took away.
fn response_fields(response: &ResponseHead) -> Vec<(Box<str>, Box<str>)> {
    let mut fields: Vec<_> = texts(&response.headers).collect();
    if let BodyLength::Sized(length) = response.body {
        fields.push(("content-length".into(), length.to_string().into()));
    }
    fields
}

fn texts(headers: &Headers) -> impl Iterator<Item = (Box<str>, Box<str>)> {
    headers.iter().map(|(_, name, value)| {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        (name.into(), String::from_utf8_lossy(value).into())
    })
}

fn keep(connection: &Connection, key: &'static str, fields: Vec<(Box<str>, Box<str>)>) {
    let mut state = connection.state.filter_state.borrow_mut();
    state.set(&Arc::from(key), Value::Headers(fields.into()));
}

/// Leaves the trailers of the response, where there are any, as filter state.
pub(super) fn keep_trailers(tunnel: &Tunnel, exchange: &mut Exchange, connection: &Connection) {
    if !tunnel.keep_trailers {
        return;
    }
    if let Some(trailers) = exchange.take_trailers() {
        keep(
            connection,
            TUNNEL_RESPONSE_TRAILERS,
            texts(&trailers).collect(),
        );
    }
}

/// Carries bytes both ways until one way of ending comes.
pub(super) async fn carry(
    downstream: Stream,
    exchange: &mut Exchange,
    limits: Limits,
    passed: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> End {
    let limits = tunnel::Limits {
        idle: limits.idle,
        until: limits.until,
        ..tunnel::Limits::default()
    };
    let mut downstream = Raw::new(downstream, Vec::new());
    match tunnel::pump(&mut downstream, exchange, limits, passed).await {
        tunnel::End::Closed | tunnel::End::EndpointEnded => End::Closed,
        tunnel::End::Idle => End::Idle,
        tunnel::End::Expired => End::Expired,
        tunnel::End::Told => End::Told,
        tunnel::End::ClientBroke(error) => End::DownstreamBroke(kind(&error)),
        tunnel::End::EndpointBroke(error) => {
            downstream.abort();
            End::UpstreamBroke(kind(&error))
        }
    }
}

fn kind(error: &StreamError) -> io::ErrorKind {
    match error {
        StreamError::Io(error) => error.kind(),
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        _ => io::ErrorKind::UnexpectedEof,
    }
}
