//! The listener filters at work: what is learnt of a connection before its filter chain is chosen.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::choose::choose;
use super::filter_stats::FilterStats;
use super::inspect::{self, Found, Inspected};
use super::original_dst::original_destination;
use super::proxy_protocol::{self, Parsed};
use super::running::{Running, Version};
use super::socket::Accepted;
use crate::config::address::Address;
use crate::config::listener::{DownstreamTransport, FilterChain, NetworkFilter};
use crate::config::listener_filter::{FilterKind, ProxyProtocol, TlsInspector};
use crate::network::state::ConnectionState;
use crate::network::tcp_proxy::{self, DialError, Dialled};
use crate::runtime::worker::Worker;
use crate::tls::stream::Socket;
use crate::tls::{client_hello, fingerprint};
use crate::upstream::{self, OriginalSource};

/// How long a client may be silent before a server that speaks first is given the word. A client
/// that speaks first sends its bytes with the end of the handshake.
const SILENCE: Duration = Duration::from_millis(10);

/// A client, and what is known of it.
pub struct Client {
    /// Its connection.
    pub socket: Socket,
    /// What was read of it, without the header of the PROXY protocol.
    pub read_ahead: Vec<u8>,
    /// The client, as the PROXY protocol tells or as the socket has it.
    pub peer: Address,
    /// The other end of the socket.
    pub direct_peer: Address,
    /// Where it was going.
    pub local: Address,
    /// Our end of the socket.
    pub direct_local: Address,
    /// Whether where it was going is not just our end of the socket.
    pub restored: bool,
    /// What its first bytes are.
    pub found: Found,
    /// What listener filters leave for network filters.
    pub state: ConnectionState,
    /// The server, if it was dialled because the client was silent, and the chain whose it is.
    pub dialled: Option<(Arc<FilterChain>, Dialled)>,
}

impl Client {
    /// One of which nothing is known but what the system tells.
    pub fn new(accepted: Accepted) -> Self {
        Client {
            socket: accepted.socket,
            read_ahead: Vec::new(),
            peer: accepted.peer.clone(),
            direct_peer: accepted.peer,
            local: accepted.local.clone(),
            direct_local: accepted.local,
            restored: false,
            found: Found::default(),
            state: ConnectionState::default(),
            dialled: None,
        }
    }

    /// Closes it. Where bytes are left that nobody served it is a reset, as when they are left with
    /// the system.
    pub fn refuse(self) {
        if !self.read_ahead.is_empty() {
            self.socket.abort();
        }
    }
}

/// Why a connection goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It was made to the proxy's own port, which takes only redirected ones: serving it would loop.
    Direct,
    /// A filter does not let it in.
    ByFilter,
    /// The client went away.
    Gone,
    /// The client's connection broke.
    Broken,
    /// The filters waited too long.
    Timeout,
}

/// Runs the listener's filters on a connection, in order, for as long as the listener allows.
///
/// # Errors
/// Why it goes no further.
pub async fn detect(
    worker: &Rc<Worker>,
    running: &Running,
    version: &Version,
    client: &mut Client,
) -> Result<(), Refused> {
    let timeout = version.config().listener_filters_timeout;
    let continues = version.config().continue_on_timeout;
    let mut detection = Detection {
        worker,
        running,
        version,
        client,
        at: 0,
    };
    if detection.advance()? == Advance::Over {
        return Ok(());
    }
    running.stats.downstream_pre_cx_active.increment(1.0);
    let outcome = match timeout {
        Some(timeout) => tokio::time::timeout(timeout, detection.wait()).await,
        None => Ok(detection.wait().await),
    };
    running.stats.downstream_pre_cx_active.decrement(1.0);
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => {
            running.stats.downstream_pre_cx_timeout.increment(1);
            match continues {
                true => Ok(()),
                false => Err(Refused::Timeout),
            }
        }
    }
}

/// How far the filters have got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advance {
    /// One needs more bytes.
    Waiting,
    /// All have run.
    Over,
}

struct Detection<'a> {
    worker: &'a Rc<Worker>,
    running: &'a Running,
    version: &'a Version,
    client: &'a mut Client,
    /// The filter whose turn it is.
    at: usize,
}

type Dialling = Pin<Box<dyn Future<Output = Result<(Arc<FilterChain>, Dialled), DialError>>>>;

impl Detection<'_> {
    /// Runs filters until one needs more bytes.
    fn advance(&mut self) -> Result<Advance, Refused> {
        let config = self.version.config().clone();
        while let Some(filter) = config.filters.get(self.at) {
            if filter.looks_at(self.client.local.port()) {
                match self.run(&filter.kind)? {
                    Advance::Waiting => return Ok(Advance::Waiting),
                    Advance::Over => {}
                }
            }
            self.at += 1;
        }
        Ok(Advance::Over)
    }

    fn run(&mut self, kind: &FilterKind) -> Result<Advance, Refused> {
        let stats = &self.version.filter_stats[self.at];
        match (kind, stats) {
            (FilterKind::OriginalDst, _) => self.original_destination(),
            (FilterKind::OriginalSrc(mark), _) => {
                let source = self
                    .client
                    .peer
                    .ip()
                    .map(|ip| OriginalSource { ip, mark: *mark });
                self.client.state.original_source.set(source);
                Ok(Advance::Over)
            }
            (FilterKind::LocalRateLimit(limit), _) => {
                let enabled = limit.enabled.as_ref().is_none_or(|enabled| enabled.get());
                if !enabled || limit.bucket.draw(Instant::now()) {
                    return Ok(Advance::Over);
                }
                if let FilterStats::RateLimit(stats) = stats {
                    stats.rate_limited.increment(1);
                }
                Err(Refused::ByFilter)
            }
            (FilterKind::ProxyProtocol(config), _) => self.proxy_protocol(config),
            (FilterKind::TlsInspector(config), FilterStats::Tls(stats)) => {
                let client = &mut *self.client;
                match inspect::tls(&client.read_ahead, config) {
                    Inspected::NeedMore => return Ok(Advance::Waiting),
                    Inspected::Is(hello) => {
                        if config.ja3 || config.ja4 {
                            fingerprint(client, config);
                        }
                        client.found.hello = Some(hello);
                    }
                    Inspected::TooLarge => {
                        stats.client_hello_too_large.increment(1);
                        return Err(Refused::ByFilter);
                    }
                    Inspected::Not if config.close_on_error => {
                        stats.tls_not_found.increment(1);
                        return Err(Refused::ByFilter);
                    }
                    Inspected::Not => {}
                }
                stats.count(&client.found, client.read_ahead.len());
                Ok(Advance::Over)
            }
            (FilterKind::HttpInspector, FilterStats::Http(stats)) => {
                let client = &mut *self.client;
                if client.found.hello.is_some() {
                    return Ok(Advance::Over);
                }
                match inspect::http_version(&client.read_ahead) {
                    None => return Ok(Advance::Waiting),
                    Some(version) => {
                        stats.count(version);
                        client.found.http = version;
                    }
                }
                Ok(Advance::Over)
            }
            // Each filter has the stats of its kind.
            (FilterKind::TlsInspector(_) | FilterKind::HttpInspector, _) => Ok(Advance::Over),
        }
    }

    fn original_destination(&mut self) -> Result<Advance, Refused> {
        let Socket::Tcp(tcp) = &self.client.socket else {
            return Ok(Advance::Over);
        };
        let peer = self.client.direct_peer.socket();
        if let Some(original) = peer.and_then(|peer| original_destination(tcp, peer)) {
            self.client.local = Address::Socket(original);
            self.client.restored = true;
        }
        let (local, direct) = (&self.client.local, &self.client.direct_local);
        if local == direct && self.running.listens_on(local) {
            self.running.stats.downstream_cx_direct.increment(1);
            return Err(Refused::Direct);
        }
        Ok(Advance::Over)
    }

    fn proxy_protocol(&mut self, config: &ProxyProtocol) -> Result<Advance, Refused> {
        let FilterStats::ProxyProtocol(stats) = &self.version.filter_stats[self.at] else {
            return Ok(Advance::Over);
        };
        match proxy_protocol::parse(&self.client.read_ahead, config) {
            Parsed::NeedMore => return Ok(Advance::Waiting),
            Parsed::Absent => stats.not_found_allowed.increment(1),
            Parsed::Missing => {
                stats.not_found_disallowed.increment(1);
                return Err(Refused::ByFilter);
            }
            Parsed::Disallowed(version) => {
                stats.version(version).disallowed.increment(1);
                return Err(Refused::ByFilter);
            }
            Parsed::Broken(version) => {
                stats.version(version).error.increment(1);
                return Err(Refused::ByFilter);
            }
            Parsed::Header(header, length) => {
                stats.version(header.version).found.increment(1);
                let client = &mut *self.client;
                client.read_ahead.drain(..length);
                if let Some((source, destination)) = header.addresses {
                    client.peer = Address::Socket(source);
                    let destination = Address::Socket(destination);
                    if client.local != destination {
                        client.local = destination;
                        client.restored = true;
                    }
                }
                proxy_protocol::keep(header.tlvs, config, &client.state);
            }
        }
        Ok(Advance::Over)
    }

    /// Whether a server may be given the word: the bytes of the connection itself are waited for,
    /// and where the server takes the word nothing is passed over that could have refused.
    fn may_dial(&self) -> bool {
        let port = self.client.local.port();
        let filters = self.version.config().filters.iter().skip(self.at);
        let mut left = filters.filter(|filter| filter.looks_at(port));
        let only_inspects = left.all(|filter| match &filter.kind {
            // Where only TLS is wanted, there is no server that speaks first.
            FilterKind::TlsInspector(config) => !config.close_on_error,
            kind => matches!(kind, FilterKind::HttpInspector),
        });
        only_inspects && self.client.read_ahead.is_empty()
    }

    /// Reads as much as the filters need.
    async fn wait(&mut self) -> Result<(), Refused> {
        // The usual client has spoken already: no timer is needed for it.
        let mut silent = std::pin::pin!(tokio::time::sleep(SILENCE));
        let mut silence_is_over = false;
        let mut dialling: Option<Dialling> = None;
        loop {
            let may_dial = !silence_is_over && self.may_dial();
            tokio::select! {
                biased;
                read = self.client.socket.read_more(&mut self.client.read_ahead) => match read {
                    // A filter waits for what will not come. To go on would take its client past
                    // it, and past those behind it.
                    Ok(0) => {
                        self.running.stats.downstream_listener_filter_remote_close.increment(1);
                        return Err(Refused::Gone);
                    }
                    Ok(_) => {
                        if self.advance()? == Advance::Over {
                            return Ok(());
                        }
                    }
                    Err(_) => {
                        self.running.stats.downstream_listener_filter_error.increment(1);
                        return Err(Refused::Broken);
                    }
                },
                () = &mut silent, if may_dial => {
                    silence_is_over = true;
                    dialling = self.dial();
                }
                outcome = dialled(&mut dialling), if dialling.is_some() => {
                    dialling = None;
                    match outcome {
                        Ok(server) => self.client.dialled = Some(server),
                        // The client will hear of it from the tcp_proxy, which tries as it is
                        // configured. Only inspectors are passed over (`may_dial`).
                        Err(_) => return Ok(()),
                    }
                }
                // The server speaks first: the chain for undetected bytes it is. Only inspectors are
                // passed over (`may_dial`).
                () = first_byte(&mut self.client.dialled), if self.client.dialled.is_some() => {
                    return Ok(());
                }
            }
        }
    }

    /// Begins to connect to the server of the chain that would be chosen now, if it is such that
    /// may speak first.
    fn dial(&self) -> Option<Dialling> {
        let chain = choose(self.version.config(), self.client)?;
        let NetworkFilter::TcpProxy(proxy) = &chain.filter else {
            return None;
        };
        let DownstreamTransport::Plain = chain.transport else {
            return None;
        };
        // Filters may want another cluster, or none.
        if !chain.filters.is_empty() || !proxy.connects_at_once() {
            return None;
        }
        let (worker, proxy) = (self.worker.clone(), proxy.clone());
        let local = self.client.local.socket();
        let client = upstream::Client {
            connection: 0,
            ends: self.client.peer.socket().zip(local),
            ..self.client.state.upstream_client()
        };
        let local = local.filter(|_| self.client.restored);
        Some(Box::pin(async move {
            let server = tcp_proxy::dial(&worker, &proxy, local, client).await?;
            Ok((chain, server))
        }))
    }
}

/// Keeps who a client of TLS is like.
fn fingerprint(client: &mut Client, config: &TlsInspector) {
    if let Some(hello) = client_hello::message(&client.read_ahead) {
        let found = fingerprint::fingerprints(&hello, config.ja3, config.ja4);
        client.state.fingerprints = Some(Box::new(found));
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
