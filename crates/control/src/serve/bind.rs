//! Sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::ServeError;

const BACKLOG: i32 = 1024;

/// Listens on an address, or on all of both families; of IPv4 alone where there is no IPv6.
pub(super) fn listen(address: Option<IpAddr>, port: u16) -> Result<TcpListener, ServeError> {
    let all = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let wanted = address.map_or(all, |address| SocketAddr::new(address, port));
    let failed = |address| move |source| ServeError::Bind { address, source };
    match open(wanted) {
        Ok(listener) => Ok(listener),
        Err(error) if address.is_none() && without_ipv6(&error) => {
            let all = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
            open(all).map_err(failed(all))
        }
        Err(error) => Err(failed(wanted)(error)),
    }
}

fn without_ipv6(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    error.kind() == io::ErrorKind::AddrNotAvailable
        || code == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // IPv4 too, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(StdListener::from(socket))
}
