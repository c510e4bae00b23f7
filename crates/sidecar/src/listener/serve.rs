//! The way of a connection from its acceptance to its network filter.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use super::accept::Open;
use super::choose::choose;
use super::connection::Connection;
use super::detect::{Client, Refused, detect};
use super::running::{Running, Version};
use super::socket::Accepted;
use crate::config::listener::{DownstreamTransport, FilterChain, NetworkFilter};
use crate::http::connection_manager;
use crate::network::filters::{self, Admission};
use crate::network::{direct_response, echo, tcp_proxy};
use crate::runtime::worker::Worker;
use crate::tls::client_hello::ClientHello;
use crate::tls::stream::{PlainStream, Socket, Stream};

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// What it speaks, who takes it, which chain, TLS, and then its network filter until it ends.
pub async fn serve(worker: Rc<Worker>, running: Rc<Running>, accepted: Accepted, open: Open) {
    let (at, at_by_clock) = (Instant::now(), SystemTime::now());
    let _open = open;
    let mut client = Client::new(accepted);
    let (running, version) = match find_listener(&worker, running, &mut client).await {
        Ok(found) => found,
        Err(Refused::Direct) => {
            tracing::debug!(peer = %client.peer, local = %client.local, "refused a connection to the proxy's own port: it takes only redirected ones");
            return client.socket.abort();
        }
        Err(_) => return client.refuse(),
    };
    let listener = version.config().clone();
    let Some(chain) = choose(&listener, &client) else {
        running.stats.no_filter_chain_match.increment(1);
        tracing::debug!(peer = %client.peer, local = %client.local, listener = %listener.name, "no filter chain matches");
        return client.refuse();
    };
    let _counted = Counted::begin(&running, at);
    // Another chain's server is let go.
    let dialled = client.dialled.take();
    let dialled = dialled.and_then(|(of, server)| Arc::ptr_eq(&of, &chain).then_some(server));
    let Client {
        socket,
        read_ahead,
        peer,
        direct_peer,
        local,
        direct_local,
        found,
        state,
        ..
    } = client;
    let hello = found.hello;
    let Some(stream) = secure(&running, &chain, socket, hello.as_ref(), read_ahead).await else {
        return;
    };
    let connection = Rc::new(Connection {
        id: CONNECTIONS.fetch_add(1, Relaxed),
        peer,
        direct_peer,
        local,
        direct_local,
        server_name: hello.and_then(|hello| hello.server_name),
        tls: stream.handshake().cloned(),
        accepted: at,
        accepted_at: at_by_clock,
        drain: running.drain_of(&chain),
        listener,
        chain: chain.clone(),
        state,
    });
    let _admission = if chain.filters.is_empty() {
        Admission::default()
    } else {
        match Box::pin(filters::admit(&worker, &connection)).await {
            Ok(admission) => admission,
            Err(refusal) => return filters::refused(&worker, &connection, refusal, stream).await,
        }
    };
    match &chain.filter {
        NetworkFilter::TcpProxy(proxy) => {
            tcp_proxy::serve(&worker, connection, proxy.clone(), stream, dialled).await;
        }
        NetworkFilter::Http(manager) => {
            // A server that was dialled while the client was silent is let go: the pools make
            // their own connections, and no request was sent on this one.
            drop(dialled);
            connection_manager::serve(&worker, connection, manager.clone(), stream).await;
        }
        NetworkFilter::DirectResponse(response) => direct_response::serve(response, stream).await,
        NetworkFilter::Echo => echo::serve(stream).await,
    }
}

/// Runs the filters of the listener that has the socket, and then of the one that it hands over to.
async fn find_listener(
    worker: &Rc<Worker>,
    running: Rc<Running>,
    client: &mut Client,
) -> Result<(Rc<Running>, Rc<Version>), Refused> {
    let version = running.version();
    detect(worker, &running, &version, client).await?;
    if version.config().hand_over
        && client.restored
        && let Some(local) = client.local.socket()
        && let Some(other) = worker.listeners.at(local)
        && !Rc::ptr_eq(&other, &running)
    {
        let version = other.version();
        detect(worker, &other, &version, client).await?;
        return Ok((other, version));
    }
    Ok((running, version))
}

/// Ends TLS where the chain says so.
async fn secure(
    running: &Running,
    chain: &FilterChain,
    socket: Socket,
    hello: Option<&ClientHello>,
    read_ahead: Vec<u8>,
) -> Option<Stream> {
    let DownstreamTransport::Tls(context) = &chain.transport else {
        return Some(Stream::Plain(PlainStream::new(socket, read_ahead)));
    };
    let handshake = context.accept(socket, hello, read_ahead);
    match tokio::time::timeout(chain.transport_timeout, handshake).await {
        Ok(Ok(stream)) => {
            let stream = Stream::from(stream);
            if let Some(handshake) = stream.handshake() {
                running.stats.ssl.shook_hands(handshake);
            }
            Some(stream)
        }
        Ok(Err(error)) => {
            running.stats.ssl.failed(&error);
            tracing::debug!(chain = %chain.name, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            running
                .stats
                .downstream_cx_transport_socket_connect_timeout
                .increment(1);
            None
        }
    }
}

/// Counts a connection that a filter chain takes, from its begin to its end.
struct Counted {
    running: Rc<Running>,
    accepted: Instant,
}

impl Counted {
    fn begin(running: &Rc<Running>, accepted: Instant) -> Self {
        let stats = &running.stats;
        stats.downstream_cx_total.increment(1);
        stats.downstream_cx_active.increment(1.0);
        stats.worker.downstream_cx_total.increment(1);
        stats.worker.downstream_cx_active.increment(1.0);
        Counted {
            running: running.clone(),
            accepted,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let stats = &self.running.stats;
        stats.downstream_cx_destroy.increment(1);
        stats.downstream_cx_active.decrement(1.0);
        stats.worker.downstream_cx_active.decrement(1.0);
        stats
            .downstream_cx_length_ms
            .record(self.accepted.elapsed().as_secs_f64() * 1000.0);
    }
}
