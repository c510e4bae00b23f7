//! Making the sockets that listen, and accepting from them.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::udp::datagram;
use crate::config::address::Address;
use crate::config::listener::ListenAddress;
use crate::config::socket_option::SocketState;
use crate::runtime::socket_option;
use crate::tls::socket::{Socket, expect_same_host};
use crate::upstream::connect::keepalive_options;

/// Linux caps it at `net.core.somaxconn`: a redirect brings bursts that nobody paced.
const LONGEST_BACKLOG: u32 = 65_535;

/// Whether a Unix socket's path is a name that is no file (`@name`).
pub fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// Fails where somebody listens.
pub fn probe(wanted: &ListenAddress) -> io::Result<()> {
    let Some(address) = wanted.address.socket() else {
        return Ok(());
    };
    bind_alone(address, wanted, true).map(drop)
}

/// Where the port is 0, a port that nobody has, with the socket that has it now: as long as it is
/// open, the system gives it to nobody else.
pub fn choose_port(wanted: &ListenAddress) -> io::Result<Option<(SocketAddr, RawSocket)>> {
    let address = wanted
        .address
        .socket()
        .filter(|address| address.port() == 0);
    let Some(address) = address else {
        return Ok(None);
    };
    let socket = bind_alone(address, wanted, false)?;
    // With its port, others that share it may join.
    socket.set_reuse_address(!wanted.udp)?;
    socket.set_reuse_port(wanted.reuse_port)?;
    let bound = socket.local_addr()?.as_socket();
    Ok(bound.map(|bound| (bound, socket)))
}

fn bind_alone(address: SocketAddr, wanted: &ListenAddress, reuse: bool) -> io::Result<RawSocket> {
    let socket = new_socket(address, wanted)?;
    if address.is_ipv6() {
        socket.set_only_v6(!wanted.ipv4_compat)?;
    }
    // Connections of an earlier process that are closing are not in the way. There are none of
    // datagrams, of which it would let two programs share.
    socket.set_reuse_address(reuse && !wanted.udp)?;
    before_bind(&socket, wanted, address.is_ipv6())?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Opens and binds one socket. `address` is that of `wanted`, with the port that was chosen for it.
pub fn open(address: &Address, wanted: &ListenAddress) -> io::Result<RawSocket> {
    match address {
        Address::Socket(address) => {
            let socket = new_socket(*address, wanted)?;
            if address.is_ipv6() {
                // Each family has a socket of its own, unless it is asked for otherwise.
                socket.set_only_v6(!wanted.ipv4_compat)?;
            }
            socket.set_reuse_address(!wanted.udp)?;
            socket.set_reuse_port(wanted.reuse_port)?;
            socket.set_nonblocking(true)?;
            // What it accepts inherits both.
            if wanted.same_host && !wanted.udp {
                expect_same_host(&socket);
            }
            if let Some(keepalive) = wanted.keepalive.as_ref().filter(|_| !wanted.udp) {
                socket.set_tcp_keepalive(&keepalive_options(keepalive))?;
            }
            let ipv6 = address.is_ipv6();
            before_bind(&socket, wanted, ipv6)?;
            if wanted.udp && address.ip().is_unspecified() {
                datagram::tell_destinations(&socket, ipv6)?;
            }
            apply(&socket, wanted, SocketState::Prebind, Some(ipv6))?;
            socket.bind(&(*address).into())?;
            apply(&socket, wanted, SocketState::Bound, Some(ipv6))?;
            Ok(socket)
        }
        Address::Pipe(path) => {
            let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            apply(&socket, wanted, SocketState::Prebind, None)?;
            if !is_abstract(path) {
                remove_socket(path)?;
            }
            socket.bind(&unix_address(path)?)?;
            if let Some(mode) = wanted.mode {
                // Nobody can connect yet: it does not listen.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
            }
            apply(&socket, wanted, SocketState::Bound, None)?;
            Ok(socket)
        }
    }
}

fn new_socket(address: SocketAddr, wanted: &ListenAddress) -> io::Result<RawSocket> {
    let (kind, protocol) = match (wanted.udp, wanted.multipath) {
        (true, _) => (Type::DGRAM, Protocol::UDP),
        (false, true) => (Type::STREAM, Protocol::MPTCP),
        (false, false) => (Type::STREAM, Protocol::TCP),
    };
    RawSocket::new(Domain::for_address(address), kind, Some(protocol))
}

/// What decides which addresses can be bound.
fn before_bind(socket: &RawSocket, wanted: &ListenAddress, ipv6: bool) -> io::Result<()> {
    if let Some(transparent) = wanted.transparent {
        match ipv6 {
            true => socket.set_ip_transparent_v6(transparent)?,
            false => socket.set_ip_transparent_v4(transparent)?,
        }
    }
    if let Some(freebind) = wanted.freebind {
        match ipv6 {
            true => socket.set_freebind_v6(freebind)?,
            false => socket.set_freebind_v4(freebind)?,
        }
    }
    Ok(())
}

fn apply(
    socket: &RawSocket,
    wanted: &ListenAddress,
    state: SocketState,
    ipv6: Option<bool>,
) -> io::Result<()> {
    socket_option::apply(&wanted.options, state, socket, ipv6)?;
    Ok(())
}

/// What an earlier process left there. Anything but a socket stays, and binding says that it is in
/// the way.
fn remove_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

fn unix_address(path: &Path) -> io::Result<SockAddr> {
    if !is_abstract(path) {
        return SockAddr::unix(path);
    }
    let mut name = path.as_os_str().as_bytes().to_vec();
    name[0] = 0;
    SockAddr::unix(PathBuf::from(OsString::from_vec(name)))
}

/// Begins to listen.
pub fn listen(socket: &RawSocket, wanted: &ListenAddress) -> io::Result<()> {
    let backlog = wanted.backlog.unwrap_or(LONGEST_BACKLOG);
    let ipv6 = wanted.address.socket().map(|address| address.is_ipv6());
    if wanted.udp {
        return apply(socket, wanted, SocketState::Listening, ipv6);
    }
    if let (Some(length), Some(_)) = (wanted.fast_open, ipv6) {
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        socket_option::set_number(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, length)?;
    }
    socket.listen(backlog.min(LONGEST_BACKLOG) as i32)?;
    apply(socket, wanted, SocketState::Listening, ipv6)
}

/// A socket that listens, on its worker.
pub enum Acceptor {
    /// TCP
    Tcp(TcpListener),
    /// A Unix socket, and its address.
    Unix(UnixListener, Address),
}

/// A connection as the system gives it.
pub struct Accepted {
    /// Its socket.
    pub socket: Socket,
    /// The other end.
    pub peer: Address,
    /// Our end.
    pub local: Address,
}

impl Acceptor {
    /// Takes over a socket that listens at `address`.
    pub fn new(socket: RawSocket, address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Socket(_) => Acceptor::Tcp(TcpListener::from_std(socket.into())?),
            Address::Pipe(_) => {
                Acceptor::Unix(UnixListener::from_std(socket.into())?, address.clone())
            }
        })
    }

    /// Ready with the next connection.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match self {
            Acceptor::Tcp(listener) => listener
                .poll_accept(cx)
                .map(|accepted| accepted.and_then(|(tcp, peer)| Accepted::tcp(tcp, peer))),
            Acceptor::Unix(listener, address) => listener
                .poll_accept(cx)
                .map(|accepted| Ok(Accepted::unix(accepted?.0, address))),
        }
    }

    /// All connections that the system has accepted already. Not through the runtime: it would
    /// stop after some to give others their turn, and closing the socket resets those that are
    /// left.
    pub fn drain(self, mut each: impl FnMut(io::Result<Accepted>)) -> io::Result<()> {
        match self {
            Acceptor::Tcp(listener) => {
                let listener = listener.into_std()?;
                until_empty(|| {
                    let (tcp, peer) = listener.accept()?;
                    tcp.set_nonblocking(true)?;
                    each(TcpStream::from_std(tcp).and_then(|tcp| Accepted::tcp(tcp, peer)));
                    Ok(())
                })
            }
            Acceptor::Unix(listener, address) => {
                let listener = listener.into_std()?;
                until_empty(|| {
                    let (unix, _) = listener.accept()?;
                    unix.set_nonblocking(true)?;
                    let unix = UnixStream::from_std(unix);
                    each(unix.map(|unix| Accepted::unix(unix, &address)));
                    Ok(())
                })
            }
        }
    }
}

fn until_empty(mut accept: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    loop {
        match accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if !is_about_the_connection(&error) => return Err(error),
            _ => {}
        }
    }
}

/// Whether the error is of one connection, and says nothing of the next.
pub fn is_about_the_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNABORTED | libc::EPERM | libc::EPROTO | libc::EINTR | libc::ENOTCONN)
    )
}

impl Accepted {
    /// A TCP connection; it fails where that has ended already.
    pub fn tcp(tcp: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        let _ = tcp.set_nodelay(true);
        Ok(Accepted {
            peer: Address::Socket(plain(peer)),
            local: Address::Socket(plain(tcp.local_addr()?)),
            socket: Socket::Tcp(tcp),
        })
    }

    /// A connection to the Unix socket at that address. Its client has no name of its own, and is
    /// known by ours.
    pub fn unix(unix: UnixStream, address: &Address) -> Self {
        Accepted {
            socket: Socket::Unix(unix),
            peer: address.clone(),
            local: address.clone(),
        }
    }
}

/// An IPv4 address that a socket for both families tells as IPv6.
fn plain(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
