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
use crate::config::listener::{DownstreamTransport, FilterChain, Listener, NetworkFilter};
use crate::http::connection_manager;
use crate::network::filters::{self, Admission};
use crate::network::tcp_proxy::{self, Dialled};
use crate::network::{direct_response, echo};
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::Record;
use crate::tls::client_hello::ClientHello;
use crate::tls::stream::{PlainStream, Socket, Stream, Traffic};

static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// What it speaks, who takes it, which chain, TLS, and then its network filter until it ends.
pub async fn serve(worker: Rc<Worker>, running: Rc<Running>, accepted: Accepted, open: Open) {
    let begin = Begin {
        accepted: Instant::now(),
        accepted_at: SystemTime::now(),
    };
    let _open = open;
    let mut client = Client::new(accepted);
    let (running, version) = match find_listener(&worker, running, &mut client).await {
        Ok(found) => found,
        Err((_, Refused::Direct)) => {
            tracing::debug!(peer = %client.peer, local = %client.local, "refused a connection to the proxy's own port: it takes only redirected ones");
            return client.socket.abort();
        }
        Err((version, _)) => return refuse(&worker, version.config(), client, begin, ""),
    };
    let listener = version.config().clone();
    let Some(chain) = choose(&listener, &client) else {
        running.stats.no_filter_chain_match.increment(1);
        tracing::debug!(peer = %client.peer, local = %client.local, listener = %listener.name, "no filter chain matches");
        return refuse(&worker, &listener, client, begin, "filter_chain_not_found");
    };
    let _counted = Counted::begin(&running, begin.accepted);
    // Another chain's server is let go.
    let dialled = client.dialled.take();
    let dialled = dialled.and_then(|(of, server)| Arc::ptr_eq(&of, &chain).then_some(server));
    let (known, socket, read_ahead, hello) = begin.connection(client, &listener, &chain);
    let secured = secure(&running, &chain, socket, hello.as_ref(), read_ahead).await;
    let mut connection = Connection {
        server_name: hello.and_then(|hello| hello.server_name),
        drain: running.drain_of(&chain),
        ..known
    };
    let Some(mut stream) = secured else {
        return log(&worker, &connection, Record::of_connection(&connection));
    };
    connection.tls = stream.handshake().cloned();
    let connection = Rc::new(connection);
    let traffic = (!listener.access_log.is_empty()).then(Rc::<Traffic>::default);
    if let Some(traffic) = &traffic {
        stream.count_into(traffic.clone());
    }
    run_filters(&worker, &connection, stream, dialled).await;
    if let Some(traffic) = traffic.filter(|_| !connection.state.is_logged.get()) {
        let record = Record {
            details: match &chain.filter {
                NetworkFilter::DirectResponse(_) => "direct_response",
                _ => "",
            },
            bytes_received: traffic.received.get(),
            bytes_sent: traffic.sent.get(),
            ..Record::of_connection(&connection)
        };
        log(&worker, &connection, record);
    }
}

async fn run_filters(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    stream: Stream,
    dialled: Option<Dialled>,
) {
    let chain = &connection.chain;
    let _admission = if chain.filters.is_empty() {
        Admission::default()
    } else {
        match Box::pin(filters::admit(worker, connection)).await {
            Ok(admission) => admission,
            Err(refusal) => return filters::refused(worker, connection, refusal, stream).await,
        }
    };
    let connection = connection.clone();
    match &chain.filter {
        NetworkFilter::TcpProxy(proxy) => {
            tcp_proxy::serve(worker, connection, proxy.clone(), stream, dialled).await;
        }
        NetworkFilter::Http(manager) => {
            // A server that was dialled while the client was silent is let go: the pools make
            // their own connections, and no request was sent on this one.
            drop(dialled);
            connection_manager::serve(worker, connection, manager.clone(), stream).await;
        }
        NetworkFilter::DirectResponse(response) => direct_response::serve(response, stream).await,
        NetworkFilter::Echo => echo::serve(stream).await,
    }
}

/// Closes a connection that no chain has, and logs it. `why` is empty where a listener filter did
/// not let it in.
fn refuse(worker: &Worker, listener: &Arc<Listener>, client: Client, begin: Begin, why: &str) {
    if listener.access_log.is_empty() {
        return client.refuse();
    }
    let has_bytes = !client.read_ahead.is_empty();
    let (connection, socket, ..) = begin.connection(client, listener, &FilterChain::none());
    if has_bytes {
        socket.abort();
    }
    let flags = match why {
        "" => Flags::NONE,
        _ => Flags::NO_ROUTE_FOUND,
    };
    let record = Record {
        flags,
        details: why,
        ..Record::of_connection(&connection)
    };
    log(worker, &connection, record);
}

/// Writes the line of a connection in its listener's access log.
fn log(worker: &Worker, connection: &Connection, record: Record<'_>) {
    worker
        .access_log
        .write(&connection.listener.access_log, &record);
}

/// When a connection was accepted.
#[derive(Clone, Copy)]
struct Begin {
    accepted: Instant,
    accepted_at: SystemTime,
}

impl Begin {
    /// What is known of a client, and what is to be read of it.
    fn connection(
        self,
        client: Client,
        listener: &Arc<Listener>,
        chain: &Arc<FilterChain>,
    ) -> (Connection, Socket, Vec<u8>, Option<ClientHello>) {
        let connection = Connection {
            id: CONNECTIONS.fetch_add(1, Relaxed),
            peer: client.peer,
            direct_peer: client.direct_peer,
            local: client.local,
            direct_local: client.direct_local,
            restored: client.restored,
            server_name: None,
            tls: None,
            accepted: self.accepted,
            accepted_at: self.accepted_at,
            drain: Rc::default(),
            listener: listener.clone(),
            chain: chain.clone(),
            state: client.state,
        };
        (
            connection,
            client.socket,
            client.read_ahead,
            client.found.hello,
        )
    }
}

/// Runs the filters of the listener that has the socket, and then of the one that it hands over to.
async fn find_listener(
    worker: &Rc<Worker>,
    running: Rc<Running>,
    client: &mut Client,
) -> Result<(Rc<Running>, Rc<Version>), (Rc<Version>, Refused)> {
    let version = running.version();
    if let Err(refused) = detect(worker, &running, &version, client).await {
        return Err((version, refused));
    }
    if version.config().hand_over
        && client.restored
        && let Some(local) = client.local.socket()
        && let Some(other) = worker.listeners.at(local)
        && !Rc::ptr_eq(&other, &running)
    {
        let version = other.version();
        // A server that was dialled for a chain of the first listener would end the wait for this
        // one's filters as soon as it speaks.
        client.dialled = None;
        return match detect(worker, &other, &version, client).await {
            Ok(()) => Ok((other, version)),
            Err(refused) => Err((version, refused)),
        };
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
