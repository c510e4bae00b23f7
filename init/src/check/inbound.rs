//! Connections in, made by hand from the far end of the pair.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt,
    socket, sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;
use socket2::Type;

use super::frame::{ACK, RST, SYN, Segment};
use super::receiver::{Counter, Received, Receivers, bind, unspecified};
use super::rig::{FAR, far, near};
use super::{Verdict, failed};
use crate::config::Family;
use crate::error::Error;

/// How often the first packet is sent, each time with so long to wait for the answer.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);

/// Connects from outside to `port` of the pod, and expects to come out on `proxy_port`.
pub(super) fn captured(
    family: Family,
    port: u16,
    proxy_port: u16,
    receivers: &Receivers,
) -> Result<Verdict, Error> {
    let receiver = receivers.tcp(unspecified(family, proxy_port), Counter::Inbound)?;
    let wire = Wire::open().map_err(failed("open a packet socket on the far interface"))?;
    let target = SocketAddr::new(near(family), port);
    let mut peer = Peer::new(&wire, family, target);
    let open = |why: &str| {
        Ok(Verdict::Open(format!(
            "a connection from outside to {target} {why}"
        )))
    };
    match peer
        .connect()
        .map_err(failed("write to the far interface"))?
    {
        Answer::Accepted => {}
        Answer::Refused => return open("was refused by the pod, so it went past the rules"),
        Answer::Silence => return open("was not answered"),
    }
    let received = receiver.received(peer.address, target)?;
    peer.reset().map_err(failed("write to the far interface"))?;
    Ok(match received {
        Received::Whole => Verdict::Closed(format!(
            "a connection from outside to {target} came to {proxy_port} with its original destination"
        )),
        Received::Counted => Verdict::Closed(format!(
            "a connection from outside to {target} was redirected to the proxy on {proxy_port} and accepted"
        )),
        Received::Misnamed(why) => Verdict::Open(format!(
            "a connection to {target} came to {proxy_port}, but its original destination is lost: {why}"
        )),
        Received::Nothing => return open("was accepted, but not by the rules"),
    })
}

/// Connects from outside to a port of the pod that is open, and expects to be kept out.
pub(super) fn refused(family: Family) -> Result<Verdict, Error> {
    let listen = || -> io::Result<_> {
        let listener = bind(SocketAddr::new(near(family), 0), Type::STREAM)?;
        let address = listener.local_addr()?.as_socket();
        Ok((listener, address.ok_or(io::ErrorKind::AddrNotAvailable)?))
    };
    let (_listener, target) = listen().map_err(failed("listen on the near interface"))?;
    let wire = Wire::open().map_err(failed("open a packet socket on the far interface"))?;
    let mut peer = Peer::new(&wire, family, target);
    let action = "write to the far interface";
    Ok(match peer.connect().map_err(failed(action))? {
        Answer::Accepted => {
            peer.reset().map_err(failed(action))?;
            Verdict::Open(format!(
                "a connection from outside to {target} was accepted"
            ))
        }
        Answer::Refused => {
            Verdict::Closed(format!("a connection from outside to {target} was refused"))
        }
        Answer::Silence => Verdict::Closed(format!(
            "a connection from outside to {target} got no answer"
        )),
    })
}

/// How the pod answered.
enum Answer {
    Accepted,
    Refused,
    Silence,
}

/// Somebody outside of the pod.
struct Peer<'a> {
    wire: &'a Wire,
    address: SocketAddr,
    target: SocketAddr,
    sequence: u32,
    acknowledged: u32,
}

impl<'a> Peer<'a> {
    fn new(wire: &'a Wire, family: Family, target: SocketAddr) -> Self {
        // A port that conntrack does not remember from the last test.
        let nanoseconds = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .subsec_nanos();
        let port = 32_768 + u16::try_from(nanoseconds / 1_000 % 28_000).unwrap_or(0);
        Self {
            wire,
            address: SocketAddr::new(far(family), port),
            target,
            sequence: nanoseconds,
            acknowledged: 0,
        }
    }

    fn send(&self, flags: u8) -> io::Result<()> {
        let segment = Segment {
            from: self.address,
            to: self.target,
            sequence: self.sequence,
            acknowledged: self.acknowledged,
            flags,
        };
        self.wire.send(&segment.frame())
    }

    /// Goes through the handshake.
    fn connect(&mut self) -> io::Result<Answer> {
        for _ in 0..TRIES {
            self.send(SYN)?;
            let deadline = Instant::now() + PAUSE;
            while Instant::now() < deadline {
                let Some(segment) = self.wire.receive()? else {
                    continue;
                };
                if (segment.from, segment.to) != (self.target, self.address) {
                    continue;
                }
                if segment.flags & RST != 0 {
                    return Ok(Answer::Refused);
                }
                if segment.flags == SYN | ACK {
                    self.sequence = self.sequence.wrapping_add(1);
                    self.acknowledged = segment.sequence.wrapping_add(1);
                    self.send(ACK)?;
                    return Ok(Answer::Accepted);
                }
            }
        }
        Ok(Answer::Silence)
    }

    fn reset(&self) -> io::Result<()> {
        self.send(RST | ACK)
    }
}

/// A packet socket (packet(7)).
struct Wire {
    descriptor: OwnedFd,
    far: LinkAddr,
}

impl Wire {
    fn open() -> io::Result<Self> {
        let far = getifaddrs()?
            .filter(|interface| interface.interface_name == FAR)
            .find_map(|interface| interface.address?.as_link_addr().copied())
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{FAR} is gone")))?;
        let (kind, flags) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let descriptor = socket(AddressFamily::Packet, kind, flags, SockProtocol::EthAll)?;
        setsockopt(&descriptor, ReceiveTimeout, &TimeVal::new(0, 20_000))?;
        Ok(Self { descriptor, far })
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        sendto(
            self.descriptor.as_raw_fd(),
            frame,
            &self.far,
            MsgFlags::empty(),
        )?;
        Ok(())
    }

    /// The next TCP segment that any interface saw; none if there was none for a moment, or if the
    /// frame has none. (The address of the interface that the kernel gives out has no protocol, and
    /// a socket that is bound to it receives nothing.)
    fn receive(&self) -> io::Result<Option<Segment>> {
        let mut buffer = [0; 256];
        match recv(self.descriptor.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => Ok(Segment::parse(&buffer[..length])),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
