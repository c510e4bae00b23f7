//! Making one connection to an endpoint: source address, TCP or Unix socket, TLS.

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::client::{Client, OriginalSource};
use super::error::UpstreamError;
use super::target::Target;
use super::{eyeballs, proxy_protocol};
use crate::config::address::Address;
use crate::config::cluster::{BindConfig, Source, TcpKeepalive};
use crate::config::socket_option::{SocketOption, SocketState};
use crate::runtime::socket_option;
use crate::tls::client::ServerNames;
use crate::tls::error::TlsError;
use crate::tls::overrides::Overrides;
use crate::tls::socket::expect_same_host;
use crate::tls::stream::{PlainStream, Socket, Stream};

/// Connects to the target; `alpn` is offered where its TLS context has no protocols of its own, and
/// `overrides` go before what it has.
///
/// # Errors
/// [`UpstreamError`]; also when TCP and TLS together take longer than the cluster's
/// `connect_timeout`.
pub async fn connect(
    target: &Target,
    alpn: &[&[u8]],
    client: &Client,
    overrides: &Overrides,
) -> Result<Stream, UpstreamError> {
    let limit = target.context.config.connect_timeout;
    let connected = connect_unbounded(target, alpn, client, overrides);
    let connected = tokio::time::timeout(limit, connected);
    connected.await.unwrap_or(Err(UpstreamError::Timeout))
}

async fn connect_unbounded(
    target: &Target,
    alpn: &[&[u8]],
    client: &Client,
    overrides: &Overrides,
) -> Result<Stream, UpstreamError> {
    let others = &target.endpoint.additional_addresses;
    let mut socket = match &target.endpoint.address {
        Address::Socket(address) if others.is_empty() => {
            Socket::Tcp(connect_tcp(target, *address, client.source).await?)
        }
        Address::Socket(address) => {
            let preference = &target.context.config.happy_eyeballs;
            let mut addresses = eyeballs::order(*address, others, preference);
            let first = addresses.remove(0);
            let attempt = |address| connect_tcp(target, address, client.source);
            Socket::Tcp(Box::pin(eyeballs::race(first, addresses, attempt)).await?)
        }
        Address::Pipe(path) => Socket::Unix(connect_pipe(path).await.map_err(remote_error)?),
    };
    if let Some(config) = target.transport.proxy_protocol() {
        let header = proxy_protocol::header(config, client);
        let mut plain = PlainStream::new(socket, Vec::new());
        plain.write_all(&header).await.map_err(remote_error)?;
        socket = plain.into_socket();
    }
    match target.transport.tls() {
        None => Ok(Stream::Plain(PlainStream::new(socket, Vec::new()))),
        Some(context) => {
            let stats = &target.context.stats;
            let names = ServerNames {
                host: &target.endpoint.hostname,
                requested: overrides.server_name.as_deref(),
                protocols: &overrides.protocols,
            };
            let failed = |error: TlsError| {
                stats.ssl.failed(&error);
                UpstreamError::Tls {
                    reason: error.reason().into(),
                }
            };
            let tls = context.connect(socket, alpn, names).await.map_err(failed)?;
            overrides.check(tls.handshake()).map_err(failed)?;
            stats.ssl.shook_hands(tls.handshake());
            Ok(Stream::from(tls))
        }
    }
}

async fn connect_tcp(
    target: &Target,
    address: SocketAddr,
    client: Option<OriginalSource>,
) -> Result<TcpStream, UpstreamError> {
    let config = &target.context.config;
    let socket = new_socket(address, config.keepalive.as_ref()).map_err(local_error)?;
    if let Some(client) = client {
        bind_as(&socket, client, address).map_err(|error| {
            target.context.stats.bind_errors.increment(1);
            let (ip, error) = (client.ip, describe(&error));
            UpstreamError::Local {
                reason: format!("cannot bind to the client's address {ip}: {error}").into(),
            }
        })?;
        return socket.connect(address).await.map_err(remote_error);
    }
    let Some(bind) = &config.bind else {
        return socket.connect(address).await.map_err(remote_error);
    };
    let bound = prepare(&socket, bind, address).map_err(|error| {
        target.context.stats.bind_errors.increment(1);
        UpstreamError::Local {
            reason: error.into(),
        }
    })?;
    if bound.is_some_and(is_own_hop) {
        expect_same_host(&socket);
    }
    let connected = socket.connect(address).await.map_err(remote_error)?;
    let late = options_of(bind, address);
    if !late.is_empty() {
        let v6 = Some(address.is_ipv6());
        let set = socket_option::apply(late, SocketState::Listening, &connected, v6);
        set.map_err(|error| UpstreamError::Local {
            reason: error.to_string().into(),
        })?;
    }
    Ok(connected)
}

/// Gives a socket that is to connect to `address` its options and its source, and says which that
/// is.
///
/// # Errors
/// What the system refused, for people.
pub fn prepare(
    socket: &TcpSocket,
    config: &BindConfig,
    address: SocketAddr,
) -> Result<Option<SocketAddr>, String> {
    let v6 = Some(address.is_ipv6());
    let options = options_of(config, address);
    let set =
        |state| socket_option::apply(options, state, socket, v6).map_err(|error| error.to_string());
    if config.freebind {
        let socket = SockRef::from(socket);
        let freed = match address {
            SocketAddr::V4(_) => socket.set_freebind_v4(true),
            SocketAddr::V6(_) => socket.set_freebind_v6(true),
        };
        freed.map_err(|error| format!("cannot set freebind: {}", describe(&error)))?;
    }
    set(SocketState::Prebind)?;
    let source = source_for(config, address).map(|source| source.address);
    if let Some(source) = source {
        bind(socket, source)
            .map_err(|error| format!("cannot bind to source {source}: {}", describe(&error)))?;
    }
    set(SocketState::Bound)?;
    Ok(source)
}

/// The options of a socket that connects to `address`.
fn options_of(config: &BindConfig, address: SocketAddr) -> &[SocketOption] {
    let own = source_for(config, address).and_then(|source| source.options.as_ref());
    own.unwrap_or(&config.options)
}

/// Whether this is the source that a sidecar uses towards its own application: 127.0.0.6 and its
/// like, or ::6.
fn is_own_hop(source: SocketAddr) -> bool {
    const SIX: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
    source.ip().is_loopback() || source.ip() == SIX
}

/// A socket to connect to `address` with.
///
/// # Errors
/// The system's.
pub fn new_socket(address: SocketAddr, keepalive: Option<&TcpKeepalive>) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_nodelay(true)?;
    if let Some(keepalive) = keepalive {
        SockRef::from(&socket).set_tcp_keepalive(&keepalive_options(keepalive))?;
    }
    Ok(socket)
}

/// As the system takes them.
pub fn keepalive_options(keepalive: &TcpKeepalive) -> socket2::TcpKeepalive {
    let mut options = socket2::TcpKeepalive::new();
    if let Some(time) = keepalive.time {
        options = options.with_time(time);
    }
    if let Some(interval) = keepalive.interval {
        options = options.with_interval(interval);
    }
    if let Some(probes) = keepalive.probes {
        options = options.with_retries(probes);
    }
    options
}

/// The source of the endpoint's family. Without one the kernel chooses.
fn source_for(bind: &BindConfig, address: SocketAddr) -> Option<&Source> {
    match address {
        SocketAddr::V4(_) => bind.v4.as_ref(),
        SocketAddr::V6(_) => bind.v6.as_ref(),
    }
}

/// Binds, but leaves the choice of the port to the connect: it then only has to differ for the same
/// destination. Chosen at the bind, ports run out and the search for a free one takes milliseconds.
///
/// # Errors
/// The source is not this machine's.
pub fn bind(socket: &TcpSocket, source: SocketAddr) -> io::Result<()> {
    if source.port() == 0 {
        setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    }
    socket.bind(source)
}

/// Binds to an address that is not ours but the client's. The system lets that be with
/// `CAP_NET_ADMIN` or `CAP_NET_RAW`.
fn bind_as(socket: &TcpSocket, client: OriginalSource, endpoint: SocketAddr) -> io::Result<()> {
    let options = SockRef::from(socket);
    let ip = match (client.ip, endpoint) {
        (IpAddr::V4(ip), SocketAddr::V6(_)) => IpAddr::V6(ip.to_ipv6_mapped()),
        (ip, _) => ip,
    };
    match endpoint {
        SocketAddr::V4(_) => options.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => options.set_ip_transparent_v6(true)?,
    }
    if client.mark != 0 {
        options.set_mark(client.mark)?;
    }
    bind(socket, SocketAddr::new(ip, 0))
}

/// Connects to a Unix socket, an abstract one where the path starts with `@`.
///
/// # Errors
/// The system's.
pub async fn connect_pipe(path: &Path) -> io::Result<UnixStream> {
    match path.as_os_str().as_bytes().strip_prefix(b"@") {
        None => UnixStream::connect(path).await,
        // Tokio takes a leading zero byte for an abstract name.
        Some(name) => {
            let mut name_in_kernel = vec![0];
            name_in_kernel.extend_from_slice(name);
            UnixStream::connect(OsStr::from_bytes(&name_in_kernel)).await
        }
    }
}

/// Without the number that the standard library appends.
fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

fn local_error(error: io::Error) -> UpstreamError {
    UpstreamError::Local {
        reason: format!("cannot make a socket: {}", describe(&error)).into(),
    }
}

fn remote_error(error: io::Error) -> UpstreamError {
    match error.kind() {
        // Every source port for this destination is in use, or the source has gone.
        io::ErrorKind::AddrNotAvailable => UpstreamError::Local {
            reason: format!("immediate connect error: {}", describe(&error)).into(),
        },
        kind => UpstreamError::Connect {
            refused: kind == io::ErrorKind::ConnectionRefused,
            reason: format!("delayed connect error: {}", describe(&error)).into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_that_of_the_family() {
        let bind = BindConfig {
            v4: Some(SocketAddr::from(([127, 0, 0, 6], 0)).into()),
            ..BindConfig::default()
        };
        let v4 = SocketAddr::from(([10, 0, 0, 1], 80));
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 80));
        assert_eq!(source_for(&bind, v4), bind.v4.as_ref());
        assert_eq!(source_for(&bind, v6), None);
    }
}
