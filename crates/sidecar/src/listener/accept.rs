//! From the socket to the network filter.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::connection::Connection;
use super::filter_chain_match::MatchInput;
use super::inspect::{self, Found};
use super::original_dst::original_destination;
use super::running::Running;
use crate::config::address::Address;
use crate::config::listener::{
    DownstreamTransport, FilterChain, Listener, NetworkFilter, TrafficDirection,
};
use crate::http::connection_manager;
use crate::network::filters::{self, Admission};
use crate::network::state::ConnectionState;
use crate::network::tcp_proxy::{self, Dialled};
use crate::network::{direct_response, echo};
use crate::runtime::worker::Worker;
use crate::tls::stream::{Socket, Stream};

/// How long a client may be silent before a server that speaks first is given the word. A client
/// that speaks first sends its bytes with the end of the handshake.
const SILENCE: Duration = Duration::from_millis(10);
/// How long accepting rests when the process has no descriptors left.
const REST: Duration = Duration::from_millis(50);

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// Accepts until it is told to stop; what is in the queue by then is still served, for its clients
/// have been told that they are connected.
pub async fn run(worker: Rc<Worker>, running: Rc<Running>, socket: TcpListener, stop: Rc<Notify>) {
    loop {
        tokio::select! {
            biased;
            () = stop.notified() => break,
            accepted = socket.accept() => match accepted {
                Ok((tcp, peer)) => spawn(&worker, &running, tcp, peer),
                Err(error) => failed(&error).await,
            }
        }
    }
    if let Err(error) = serve_queue(&worker, &running, socket) {
        tracing::warn!(%error, "connections in the accept queue are lost");
    }
}

/// Serves what the system has accepted already. Not through the runtime: it would stop after some
/// connections to give others their turn, and closing the socket resets those that are left.
fn serve_queue(
    worker: &Rc<Worker>,
    running: &Rc<Running>,
    socket: TcpListener,
) -> std::io::Result<()> {
    let socket = socket.into_std()?;
    loop {
        match socket.accept() {
            Ok((tcp, peer)) => {
                tcp.set_nonblocking(true)?;
                spawn(worker, running, TcpStream::from_std(tcp)?, peer);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if is_about_the_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

fn is_about_the_connection(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EPERM | libc::EPROTO | libc::EINTR)
    )
}

/// A connection that its client gave up is not worth a word; want of descriptors is worth a rest.
async fn failed(error: &std::io::Error) {
    if !is_about_the_connection(error) {
        tracing::warn!(%error, "cannot accept connections: raise the limit of open files (ulimit -n)?");
        tokio::time::sleep(REST).await;
    }
}

fn spawn(worker: &Rc<Worker>, running: &Rc<Running>, tcp: TcpStream, peer: SocketAddr) {
    let (worker, running) = (worker.clone(), running.clone());
    tokio::task::spawn_local(async move { serve(worker, running, tcp, peer).await });
}

/// The way of a connection: where it was going, who takes it, what it speaks, which chain, TLS, and
/// then its network filter until it ends.
async fn serve(worker: Rc<Worker>, running: Rc<Running>, tcp: TcpStream, peer: SocketAddr) {
    let (accepted, accepted_at) = (Instant::now(), SystemTime::now());
    let Ok(direct_local) = tcp.local_addr() else {
        return;
    };
    let _ = tcp.set_nodelay(true);
    let Some((running, local)) = destination(&worker, running, &tcp, peer, direct_local) else {
        Socket::from(tcp).abort();
        return;
    };
    let _counted = Counted::begin(&worker, &running, accepted);
    let listener = running.config();
    let Some(mut client) = detect(&worker, &running, &listener, tcp, peer, local).await else {
        return;
    };
    let Some(chain) = choose(&listener, &client.found, peer, local) else {
        running.stats.no_filter_chain_match.increment(1);
        tracing::debug!(%peer, %local, listener = %listener.name, "no filter chain matches");
        return;
    };
    let server_name = client
        .found
        .hello
        .as_ref()
        .and_then(|hello| hello.server_name.clone());
    // Another chain's server is let go.
    let dialled = client.dialled.take();
    let dialled = dialled.and_then(|(of, server)| Arc::ptr_eq(&of, &chain).then_some(server));
    let Some(stream) = secure(&running, &chain, client).await else {
        return;
    };
    let connection = Rc::new(Connection {
        id: CONNECTIONS.fetch_add(1, Relaxed),
        peer: Address::Socket(peer),
        direct_peer: Address::Socket(peer),
        local: Address::Socket(local),
        direct_local: Address::Socket(direct_local),
        server_name,
        tls: stream.handshake().cloned(),
        accepted,
        accepted_at,
        drain: running.drain_of(&chain),
        listener,
        chain: chain.clone(),
        state: ConnectionState::default(),
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

/// Where the connection was going, and the listener that takes it. `None`: it was made to the
/// listener's own port, which would loop.
fn destination(
    worker: &Rc<Worker>,
    running: Rc<Running>,
    tcp: &TcpStream,
    peer: SocketAddr,
    direct_local: SocketAddr,
) -> Option<(Rc<Running>, SocketAddr)> {
    let config = running.config();
    if !config.original_dst && !config.hand_over {
        return Some((running, direct_local));
    }
    let local = original_destination(tcp, peer).unwrap_or(direct_local);
    if running.listens_on(local) && local == direct_local {
        running.stats.downstream_cx_direct.increment(1);
        tracing::debug!(%peer, %local, "refused a connection to the proxy's own port: it takes only redirected ones");
        return None;
    }
    if config.hand_over
        && let Some(other) = worker.listeners.at(local)
    {
        return Some((other, local));
    }
    Some((running, local))
}

/// A client of which enough is known to choose its chain.
struct Client {
    tcp: TcpStream,
    read_ahead: Vec<u8>,
    found: Found,
    /// The server, if it was dialled because the client was silent, and the chain whose it is.
    dialled: Option<(Arc<FilterChain>, Dialled)>,
}

/// Reads as much as the inspectors need, for as long as the listener allows.
async fn detect(
    worker: &Rc<Worker>,
    running: &Rc<Running>,
    listener: &Arc<Listener>,
    tcp: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
) -> Option<Client> {
    let tls = listener.tls_inspector.looks_at(local.port());
    let http = listener.http_inspector.looks_at(local.port());
    let mut client = Client {
        tcp,
        read_ahead: Vec::new(),
        found: Found::default(),
        dialled: None,
    };
    if let Some(found) = inspect::inspect(&[], tls, http) {
        client.found = found;
        return Some(client);
    }
    running.stats.downstream_pre_cx_active.increment(1.0);
    let inspection = inspection(worker, listener, &mut client, peer, local, (tls, http));
    let outcome = match listener.listener_filters_timeout {
        Some(timeout) => tokio::time::timeout(timeout, inspection).await,
        None => Ok(inspection.await),
    };
    running.stats.downstream_pre_cx_active.decrement(1.0);
    match outcome {
        Ok(true) => Some(client),
        Ok(false) => None,
        Err(_) => {
            running.stats.downstream_pre_cx_timeout.increment(1);
            listener.continue_on_timeout.then_some(client)
        }
    }
}

/// False where the client went away.
async fn inspection(
    worker: &Rc<Worker>,
    listener: &Arc<Listener>,
    client: &mut Client,
    peer: SocketAddr,
    local: SocketAddr,
    (tls, http): (bool, bool),
) -> bool {
    // The usual client has spoken already: no timer is needed for it.
    let mut silent = std::pin::pin!(tokio::time::sleep(SILENCE));
    let mut may_dial = true;
    let mut dialling = None;
    loop {
        tokio::select! {
            biased;
            read = read_more(&client.tcp, &mut client.read_ahead) => match read {
                Ok(0) if client.read_ahead.is_empty() => return false,
                // It will say no more: what it said is neither TLS nor HTTP.
                Ok(0) => return true,
                Ok(_) => {
                    may_dial = false;
                    if let Some(found) = inspect::inspect(&client.read_ahead, tls, http) {
                        client.found = found;
                        return true;
                    }
                }
                Err(_) => return false,
            },
            () = &mut silent, if may_dial => {
                may_dial = false;
                if let Some(chain) = choose(listener, &client.found, peer, local)
                    // Filters may want another cluster, or none.
                    && chain.filters.is_empty()
                    && let NetworkFilter::TcpProxy(proxy) = &chain.filter
                    && proxy.connects_at_once()
                    && matches!(chain.transport, DownstreamTransport::Plain)
                {
                    let (proxy, chain) = (proxy.clone(), chain.clone());
                    dialling = Some(Box::pin(async move {
                        let server = tcp_proxy::dial(worker, &proxy, Some(local)).await?;
                        Ok::<_, tcp_proxy::DialError>((chain, server))
                    }));
                }
            }
            outcome = dialled(&mut dialling), if dialling.is_some() => {
                dialling = None;
                match outcome {
                    Ok(server) => client.dialled = Some(server),
                    // The client will hear of it from the tcp_proxy, which tries as it is configured.
                    Err(_) => return true,
                }
            }
            // The server speaks first: the chain for undetected bytes it is.
            () = first_byte(&mut client.dialled), if client.dialled.is_some() => return true,
        }
    }
}

/// Polls the dialling that there is.
async fn dialled<F: Future + Unpin>(dialling: &mut Option<F>) -> F::Output {
    match dialling {
        Some(dialling) => dialling.await,
        None => std::future::pending().await,
    }
}

async fn first_byte(dialled: &mut Option<(Arc<FilterChain>, Dialled)>) {
    match dialled {
        Some((_, dialled)) => dialled.first_byte().await,
        None => std::future::pending().await,
    }
}

/// Appends what has come; 0 is the end.
async fn read_more(tcp: &TcpStream, into: &mut Vec<u8>) -> std::io::Result<usize> {
    loop {
        tcp.readable().await?;
        into.reserve(2048);
        match tcp.try_read_buf(into) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            outcome => return outcome,
        }
    }
}

fn choose(
    listener: &Listener,
    found: &Found,
    peer: SocketAddr,
    local: SocketAddr,
) -> Option<Arc<FilterChain>> {
    let inspected = listener.tls_inspector.looks_at(local.port());
    let transport_protocol = found.transport_protocol(inspected);
    let server_name = found
        .hello
        .as_ref()
        .and_then(|hello| hello.server_name.as_deref());
    let chain = match (&found.hello, found.http) {
        (Some(hello), _) => listener.chains.find(&MatchInput {
            destination: local,
            server_name,
            transport_protocol,
            application_protocols: &hello.alpn,
            direct_source: peer,
            source: peer,
        }),
        (None, http) => listener.chains.find(&MatchInput {
            destination: local,
            server_name,
            transport_protocol,
            application_protocols: http.as_slice(),
            direct_source: peer,
            source: peer,
        }),
    };
    chain.cloned()
}

/// Ends TLS where the chain says so.
async fn secure(running: &Rc<Running>, chain: &FilterChain, client: Client) -> Option<Stream> {
    let DownstreamTransport::Tls(context) = &chain.transport else {
        return Some(Stream::plain(client.tcp, client.read_ahead));
    };
    let handshake = context.accept(client.tcp, client.found.hello.as_ref(), client.read_ahead);
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

/// Counts a connection from its begin to its end.
struct Counted {
    running: Rc<Running>,
    worker: Rc<Worker>,
    direction: TrafficDirection,
    accepted: Instant,
}

impl Counted {
    fn begin(worker: &Rc<Worker>, running: &Rc<Running>, accepted: Instant) -> Self {
        let direction = running.config().direction;
        running.stats.downstream_cx_total.increment(1);
        running.stats.downstream_cx_active.increment(1.0);
        worker.drain.opened(direction);
        Counted {
            running: running.clone(),
            worker: worker.clone(),
            direction,
            accepted,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.worker.drain.closed(self.direction);
        let stats = &self.running.stats;
        stats.downstream_cx_destroy.increment(1);
        stats.downstream_cx_active.decrement(1.0);
        stats
            .downstream_cx_length_ms
            .record(self.accepted.elapsed().as_secs_f64() * 1000.0);
    }
}
