//! tcp_proxy: a connection of bytes, relayed to an endpoint of a cluster.
//!
//! What TCP says beside bytes is passed on: half-close, reset, refusal (as a reset, for the kernel
//! has accepted already). An idle connection is never cut unless `idle_timeout` is configured, as
//! databases keep theirs for days; keep-alive finds peers that are gone. Neither does a change of
//! configuration cut one: it applies to the next.

mod dial;
mod relay;
#[cfg(test)]
mod relay_tests;
mod session;
pub mod stats;
mod tunnel;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

pub use dial::{DialError, Dialled};
use dial::{Wishes, route};
use session::Session;

use super::filter_state::{FilterState, TCP_IDLE_TIMEOUT};
use super::filters;
use crate::config::tcp_proxy::{ConnectMode, TcpProxy};
use crate::listener::connection::Connection;
use crate::runtime::timer::Timer;
use crate::runtime::worker::Worker;
use crate::telemetry::access_log::flags::Flags;
use crate::telemetry::access_log::record::LogKind;
use crate::tls::stream::{Socket, Stream};
use crate::upstream::Client;

/// A connection that says nothing is asked whether it is alive after so long, and so often then.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(30));

/// Connects to an endpoint for a client that is silent and whose connection no filter has seen: its
/// server may be one that speaks first.
///
/// # Errors
/// [`DialError`]
pub async fn dial(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    original_destination: Option<SocketAddr>,
    client: Client,
) -> Result<Dialled, DialError> {
    let state = FilterState::EMPTY;
    let cluster = route(worker, proxy, &state);
    let wishes = Wishes::new(&state, original_destination, client);
    dial::dial(worker, proxy, &cluster, &wishes).await
}

/// Relays a client's connection until it ends. `dialled` is the server, where it was connected to
/// while the client was silent.
pub async fn serve(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    proxy: Arc<TcpProxy>,
    mut stream: Stream,
    dialled: Option<Dialled>,
) {
    let mut session = Session::begin(worker, connection, proxy);
    keep_alive(stream.socket());
    if session.proxy.log_options.on_start {
        session.log(LogKind::TcpConnectionStart);
    }
    let until = session.until();
    let cluster = {
        let state = session.connection.state.filter_state.borrow();
        route(worker, &session.proxy, &state)
    };
    let mut awaits_data = !session.connection.chain.filters.is_empty();
    if let ConnectMode::OnData { most } = session.proxy.connect_mode
        && dialled.is_none()
    {
        match first_data(&mut stream, most, session.idle_timeout(), until).await {
            First::Data => session.stats.early_data_received_count_total.increment(1),
            First::End => return,
            First::Idle => return session.idle(),
            First::Expired => return session.expired(),
        }
        filters::on_data(&session.connection);
        awaits_data = false;
    }
    if let Some(tunnel) = session.wants_tunnel() {
        let opening = tunnel::open(&session, tunnel, &cluster, &mut stream);
        return match within(until, opening).await {
            None => session.expired(),
            Some(None) => {}
            Some(Some(Ok(opened))) => session.tunnel(stream, opened, until, awaits_data).await,
            Some(Some(Err(error))) => fail(session, stream, &error),
        };
    }
    let dialled = match dialled {
        Some(dialled) => Ok(dialled),
        None => match within(until, session.dial(&cluster)).await {
            Some(outcome) => outcome,
            None => return session.expired(),
        },
    };
    match dialled {
        Ok(dialled) => {
            keep_alive(dialled.upstream.stream.socket());
            session.relay(stream, dialled, until, awaits_data).await;
        }
        Err(error) => fail(session, stream, &error),
    }
}

/// The client was told that it is connected: a reset tells it that it is not.
fn fail(mut session: Session, stream: Stream, error: &DialError) {
    stream.abort();
    session.failed(error);
}

/// Counts and logs a connection that a filter before the tcp_proxy ended.
pub fn refused(
    worker: &Rc<Worker>,
    connection: Rc<Connection>,
    proxy: Arc<TcpProxy>,
    flags: Flags,
) {
    Session::begin(worker, connection, proxy).flags |= flags;
}

fn keep_alive(socket: &Socket) {
    if let Socket::Tcp(tcp) = socket {
        let (time, interval) = KEEP_ALIVE;
        let options = TcpKeepalive::new().with_time(time).with_interval(interval);
        if let Err(error) = SockRef::from(tcp).set_tcp_keepalive(&options) {
            tracing::debug!(%error, "no keep-alive");
        }
    }
}

/// What a client did first.
enum First {
    /// It sent bytes, which are to be read again.
    Data,
    /// It went away.
    End,
    /// Neither, in the time that it may be idle.
    Idle,
    /// Neither, in the time that it may last.
    Expired,
}

/// Waits for the first bytes of a client, of which at most `most` are taken from the system.
async fn first_data(
    stream: &mut Stream,
    most: u32,
    idle: Option<Duration>,
    until: Option<Instant>,
) -> First {
    let most = usize::try_from(most)
        .unwrap_or(usize::MAX)
        .clamp(1, 16 << 10);
    let mut bytes = vec![0; most];
    let (mut idle_timer, mut end_timer) = (Timer::new(), Timer::new());
    tokio::select! {
        biased;
        read = stream.read(&mut bytes) => match read {
            Ok(length) if length > 0 => {
                stream.unread(&bytes[..length]);
                First::Data
            }
            _ => First::End,
        },
        () = end_timer.until(until) => First::Expired,
        () = idle_timer.until(idle.map(|idle| Instant::now() + idle)) => First::Idle,
    }
}

/// The future's output, unless `until` comes before it.
async fn within<F: Future>(until: Option<Instant>, future: F) -> Option<F::Output> {
    match until {
        None => Some(future.await),
        Some(until) => tokio::time::timeout_at(until, future).await.ok(),
    }
}

/// `idle_timeout`, or what filter state says in its place.
fn idle_timeout(proxy: &TcpProxy, state: &FilterState) -> Option<Duration> {
    match state.milliseconds(TCP_IDLE_TIMEOUT) {
        Some(Duration::ZERO) => None,
        Some(timeout) => Some(timeout),
        None => proxy.idle_timeout,
    }
}
