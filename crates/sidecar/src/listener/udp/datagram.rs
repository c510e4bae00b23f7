//! Receiving and sending datagrams on a socket that listens, with the address that each was sent
//! to: where a listener has all of a host's addresses, answers must come from the right one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike as _,
    SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use socket2::Socket;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Has the system tell where each datagram was sent to.
pub fn tell_destinations(socket: &Socket, ipv6: bool) -> io::Result<()> {
    match ipv6 {
        true => setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?,
        false => setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?,
    }
    Ok(())
}

/// A socket that listens.
pub struct Listening {
    socket: UdpSocket,
    bound: SocketAddr,
}

/// A datagram that has come.
pub struct Received {
    /// How long it is, or as much of it as there was room for.
    pub length: usize,
    /// Whether there was room for all of it.
    pub whole: bool,
    /// Who sent it.
    pub peer: SocketAddr,
    /// Where to.
    pub local: SocketAddr,
}

impl Listening {
    /// Takes over a socket that is bound.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: Socket) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Listening {
            bound: socket.local_addr()?,
            socket,
        })
    }

    /// Resolves when something has come.
    ///
    /// # Errors
    /// The system's.
    pub async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram, if there is one.
    ///
    /// # Errors
    /// There is none (`WouldBlock`), or the system's.
    pub fn receive(&self, bytes: &mut [u8]) -> io::Result<Received> {
        self.socket.try_io(Interest::READABLE, || {
            let mut room = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
            let mut parts = [IoSliceMut::new(bytes)];
            let message = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut parts,
                Some(&mut room),
                MsgFlags::empty(),
            )?;
            let sent_to = message.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::V4(Ipv4Addr::from(
                    info.ipi_addr.s_addr.to_ne_bytes(),
                ))),
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
                }
                _ => None,
            });
            let peer = message.address.as_ref().and_then(socket_address);
            Ok(Received {
                length: message.bytes,
                whole: !message.flags.contains(MsgFlags::MSG_TRUNC),
                peer: peer.ok_or(io::ErrorKind::InvalidData)?,
                local: match sent_to {
                    Some(ip) => SocketAddr::new(ip, self.bound.port()),
                    None => self.bound,
                },
            })
        })
    }

    /// Sends a datagram from `local`, which is one that was received at.
    ///
    /// # Errors
    /// There is no room for it now (`WouldBlock`), or the system's.
    pub fn send(&self, bytes: &[u8], local: SocketAddr, peer: SocketAddr) -> io::Result<()> {
        if local == self.bound {
            return self.socket.try_send_to(bytes, peer).map(drop);
        }
        self.socket.try_io(Interest::WRITABLE, || {
            let (descriptor, parts) = (self.socket.as_raw_fd(), [IoSlice::new(bytes)]);
            let to = SockaddrStorage::from(peer);
            let none = MsgFlags::empty();
            match local.ip() {
                IpAddr::V4(ip) => {
                    let info = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr {
                            s_addr: u32::from_ne_bytes(ip.octets()),
                        },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    let from = [ControlMessage::Ipv4PacketInfo(&info)];
                    sendmsg(descriptor, &parts, &from, none, Some(&to))?;
                }
                IpAddr::V6(ip) => {
                    let info = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr {
                            s6_addr: ip.octets(),
                        },
                        ipi6_ifindex: 0,
                    };
                    let from = [ControlMessage::Ipv6PacketInfo(&info)];
                    sendmsg(descriptor, &parts, &from, none, Some(&to))?;
                }
            }
            Ok(())
        })
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = || {
        address
            .as_sockaddr_in()
            .map(|v4: &SockaddrIn| SocketAddrV4::from(*v4).into())
    };
    let v6 = || {
        address
            .as_sockaddr_in6()
            .map(|v6: &SockaddrIn6| SocketAddrV6::from(*v6).into())
    };
    address.family()?;
    v4().or_else(v6)
}
