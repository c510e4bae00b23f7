//! Connections out.

use std::io;
use std::net::SocketAddr;
use std::net::UdpSocket;

use socket2::{Domain, Socket, Type};

use super::receiver::{Counter, Received, Receiver, Receivers, loopback, unspecified};
use super::rig::far;
use super::{PATIENCE, Verdict, failed};
use crate::config::Family;
use crate::error::Error;

/// Connects to `target` and expects to come out on `port` of the proxy.
pub(super) fn captured(
    target: SocketAddr,
    port: u16,
    receivers: &Receivers,
) -> Result<Verdict, Error> {
    let family = Family::of(target.ip());
    let receiver = receivers.tcp(loopback(family, port), Counter::Outbound(port))?;
    let client = client(target)?;
    match connect(&client, target) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Ok(Verdict::Open(format!(
                "the connection to {target} left the pod"
            )));
        }
        Err(error) => {
            return Ok(Verdict::Open(format!(
                "the connection to {target} failed: {error}"
            )));
        }
    }
    let local = client.local_addr().map_err(failed("name its own socket"))?;
    let Some(local) = local.as_socket() else {
        return Ok(Verdict::Open("the socket has no address".to_owned()));
    };
    Ok(match receiver.received(local, target)? {
        Received::Whole => Verdict::Closed(format!(
            "a connection to {target} came to {port} with its original destination"
        )),
        Received::Counted => Verdict::Closed(format!(
            "a connection to {target}, where nobody is, was redirected to the proxy on {port} and accepted"
        )),
        Received::Misnamed(why) => Verdict::Open(format!(
            "a connection to {target} came to {port}, but its original destination is lost: {why}"
        )),
        Received::Nothing => Verdict::Open(format!(
            "a connection to {target} was accepted, but not by the rules to {port}"
        )),
    })
}

/// Connects to the peer that is not there, and expects to be refused at once.
pub(super) fn refused(family: Family) -> Result<Verdict, Error> {
    let target = SocketAddr::new(far(family), 80);
    let client = client(target)?;
    Ok(match connect(&client, target) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Verdict::Closed(format!("a connection to {target} was refused"))
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            Verdict::Open(format!("the connection to {target} left the pod"))
        }
        Err(error) => Verdict::Open(format!(
            "the connection to {target} was not refused: {error}"
        )),
        Ok(()) => Verdict::Open(format!("the connection to {target} was accepted")),
    })
}

/// Sends a datagram to a name server that is not there, and expects it on `port`, and the answer
/// from the server's address.
pub(super) fn dns_captured(
    server: SocketAddr,
    port: u16,
    receivers: &Receivers,
) -> Result<Verdict, Error> {
    const QUERY: &[u8] = b"outrider-init";
    let family = Family::of(server.ip());
    let receiver = receivers.udp(loopback(family, port), Counter::Dns(port))?;
    let client = UdpSocket::bind(unspecified(family, 0)).map_err(failed("make a UDP socket"))?;
    client
        .connect(server)
        .and_then(|()| client.set_read_timeout(Some(PATIENCE)))
        .map_err(failed(format!("reach {server}")))?;
    let open = |why: &str| Ok(Verdict::Open(format!("a query to {server} {why}")));
    if let Err(error) = client.send(QUERY) {
        return open(&format!("could not be sent: {error}"));
    }
    let socket = match receiver {
        Receiver::Ours(socket) => UdpSocket::from(std::os::fd::OwnedFd::from(socket)),
        Receiver::Proxy { .. } => {
            return Ok(match receiver.received(loopback(family, 0), server)? {
                Received::Nothing => Verdict::Open(format!("a query to {server} left the pod")),
                _ => Verdict::Closed(format!(
                    "a query to {server} was redirected to the proxy on {port}"
                )),
            });
        }
    };
    socket
        .set_read_timeout(Some(PATIENCE))
        .map_err(failed("wait for the query"))?;
    let mut buffer = [0; 64];
    loop {
        match socket.recv_from(&mut buffer) {
            // Queries of others are redirected to us as well; they try again.
            Ok((length, from)) if buffer[..length] == *QUERY => {
                socket
                    .send_to(QUERY, from)
                    .map_err(failed("answer the query"))?;
                break;
            }
            Ok(_) => {}
            Err(_) => return open("left the pod"),
        }
    }
    match client.recv(&mut buffer) {
        Ok(_) => Ok(Verdict::Closed(format!(
            "a query to {server} came to {port}, and its answer back"
        ))),
        Err(error) => open(&format!("came to {port}, but its answer is lost: {error}")),
    }
}

fn client(target: SocketAddr) -> Result<Socket, Error> {
    Socket::new(Domain::for_address(target), Type::STREAM, None)
        .map_err(failed("make a TCP socket"))
}

fn connect(client: &Socket, target: SocketAddr) -> io::Result<()> {
    match client.connect_timeout(&target.into(), PATIENCE) {
        // Accepted, and closed by a proxy that has nothing behind this address.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        result => result,
    }
}
