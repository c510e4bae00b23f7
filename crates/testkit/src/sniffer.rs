//! What really passes on a pod's wire.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
    sockopt,
};

use crate::cluster::Cluster;
use crate::netns::Pod;
use crate::poll::eventually;

/// The most that is kept of all streams together, in bytes; what exceeds it fails the test that
/// asks, for the answer would be wrong.
const MOST: usize = 256 << 20;

/// Records the TCP streams on one interface, a pod's, from its start to its drop.
pub struct Sniffer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    record: Mutex<Record>,
}

/// One direction of a TCP connection: from, to.
type Direction = (SocketAddr, SocketAddr);

#[derive(Default)]
struct Record {
    streams: HashMap<Direction, Stream>,
    packets: u64,
    bytes: u64,
    kept: usize,
    error: Option<String>,
}

#[derive(Default)]
struct Stream {
    /// The sequence number after the last byte that was kept.
    next: Option<u32>,
    payload: Vec<u8>,
}

impl Sniffer {
    /// Starts to record.
    ///
    /// # Errors
    /// When the socket cannot be made, for which root is needed.
    pub fn start(pod: &Pod) -> Result<Self> {
        Self::record_on(pod.run(|| open("eth0"))??)
    }

    /// Starts to record on the node's end of the cable of a cluster's pod, by the pod's address.
    ///
    /// # Errors
    /// No pod has the address, or the socket cannot be made.
    pub fn on_cable(cluster: &Cluster, address: IpAddr) -> Result<Self> {
        let interface = cluster.cable(address)?;
        Self::record_on(cluster.run(|| open(&interface))??)
    }

    fn record_on((descriptor, interface): (OwnedFd, usize)) -> Result<Self> {
        let shared: Arc<Shared> = Arc::default();
        let recorder = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("sniffer".to_owned())
            .spawn(move || record(&descriptor, interface, &recorder))
            .context("start the sniffer's thread")?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Whether any stream had these bytes, across the bounds of packets.
    ///
    /// # Errors
    /// When packets were lost to the record, so that "no" would prove nothing.
    pub fn contains(&self, bytes: impl AsRef<[u8]>) -> Result<bool> {
        let needle = bytes.as_ref();
        ensure!(!needle.is_empty(), "nothing to look for");
        let record = self.record()?;
        Ok(record
            .streams
            .values()
            .any(|stream| memchr::memmem::find(&stream.payload, needle).is_some()))
    }

    /// How many bytes of TCP payload have passed, those sent again included.
    ///
    /// # Errors
    /// When packets were lost to the record.
    pub fn bytes(&self) -> Result<u64> {
        Ok(self.record()?.bytes)
    }

    /// How many TCP packets have passed.
    ///
    /// # Errors
    /// When packets were lost to the record.
    pub fn packets(&self) -> Result<u64> {
        Ok(self.record()?.packets)
    }

    /// The destinations that connections were opened to, or that data went to.
    ///
    /// # Errors
    /// When packets were lost to the record.
    pub fn destinations(&self) -> Result<BTreeSet<SocketAddr>> {
        Ok(self.record()?.streams.keys().map(|(_, to)| *to).collect())
    }

    /// How each direction's payload began, at most `length` bytes of each.
    ///
    /// # Errors
    /// When packets were lost to the record.
    pub fn beginnings(&self, length: usize) -> Result<Vec<(Direction, Vec<u8>)>> {
        let record = self.record()?;
        let begin = |stream: &Stream| stream.payload.iter().take(length).copied().collect();
        Ok(record
            .streams
            .iter()
            .map(|(way, stream)| (*way, begin(stream)))
            .collect())
    }

    /// Waits until these bytes have been seen, as a test does first that then asks for others'
    /// absence.
    ///
    /// # Errors
    /// When they do not pass in time.
    pub fn wait_for(&self, bytes: impl AsRef<[u8]>, within: Duration) -> Result<()> {
        eventually(within, || {
            ensure!(self.contains(&bytes)?, "the bytes were not on the wire");
            Ok(())
        })
    }

    fn record(&self) -> Result<std::sync::MutexGuard<'_, Record>> {
        let record = self
            .shared
            .record
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &record.error {
            anyhow::bail!("the record of the wire is not whole: {error}");
        }
        Ok(record)
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket that sees every packet of the namespace, and the index of the interface that counts.
fn open(interface: &str) -> Result<(OwnedFd, usize)> {
    let interface = nix::net::if_::if_nametoindex(interface)
        .with_context(|| format!("find the interface {interface}"))?;
    let descriptor = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )
    .context("open a packet socket (it needs root)")?;
    setsockopt(&descriptor, sockopt::RcvBufForce, &(64 << 20)).context("size its buffer")?;
    Ok((descriptor, interface as usize))
}

fn record(descriptor: &OwnedFd, interface: usize, shared: &Shared) {
    let mut buffer = vec![0; 256 << 10];
    while !shared.stopping.load(Ordering::Acquire) {
        match recvfrom::<LinkAddr>(descriptor.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                let here = from.is_some_and(|from| from.ifindex() == interface);
                if here && let Some(segment) = Segment::parse(&buffer[..length]) {
                    let mut record = shared.record.lock().unwrap_or_else(PoisonError::into_inner);
                    record.add(&segment);
                }
            }
            Err(Errno::EAGAIN) => {
                let mut waiting = [PollFd::new(
                    std::os::fd::AsFd::as_fd(descriptor),
                    PollFlags::POLLIN,
                )];
                let _ = poll(&mut waiting, PollTimeout::from(50u8));
            }
            Err(Errno::EINTR) => {}
            Err(error) => {
                let mut record = shared.record.lock().unwrap_or_else(PoisonError::into_inner);
                record.error = Some(error.to_string());
                return;
            }
        }
    }
}

impl Record {
    fn add(&mut self, segment: &Segment<'_>) {
        self.packets += 1;
        self.bytes += segment.payload.len() as u64;
        let stream = self.streams.entry((segment.from, segment.to)).or_default();
        let before = stream.payload.len();
        stream.add(segment);
        self.kept += stream.payload.len() - before;
        if self.kept > MOST {
            self.error = Some(format!("more than {MOST} bytes passed"));
        }
    }
}

impl Stream {
    /// Appends what is new. What comes after a gap is kept too, for a byte too many in the record
    /// is harmless, one too few would hide plaintext.
    fn add(&mut self, segment: &Segment<'_>) {
        if segment.syn {
            self.next = Some(segment.sequence.wrapping_add(1));
        }
        let known = match self.next {
            // Bytes of this segment that came before, as the distance modulo 2^32.
            Some(next) => {
                let behind = next.wrapping_sub(segment.sequence);
                if behind < 1 << 31 { behind as usize } else { 0 }
            }
            None => 0,
        };
        if known < segment.payload.len() {
            self.payload.extend_from_slice(&segment.payload[known..]);
            let length = segment.payload.len() as u32;
            self.next = Some(segment.sequence.wrapping_add(length));
        }
    }
}

/// One TCP segment.
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    syn: bool,
    payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads an Ethernet frame; `None` when it has no TCP.
    fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (source, destination, tcp) = match frame.get(12..14)? {
            [0x08, 0x00] => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let total = usize::from(u16::from_be_bytes(*packet.get(2..)?.first_chunk()?));
                // Zero where the kernel's segment is larger than the field.
                let end = if total == 0 { packet.len() } else { total };
                (*packet.get(9)? == 6).then_some(())?;
                let source = Ipv4Addr::from(*packet.get(12..)?.first_chunk::<4>()?);
                let destination = Ipv4Addr::from(*packet.get(16..)?.first_chunk::<4>()?);
                (
                    IpAddr::from(source),
                    IpAddr::from(destination),
                    packet.get(header..end)?,
                )
            }
            [0x86, 0xdd] => {
                (*packet.get(6)? == 6).then_some(())?;
                let source = Ipv6Addr::from(*packet.get(8..)?.first_chunk::<16>()?);
                let destination = Ipv6Addr::from(*packet.get(24..)?.first_chunk::<16>()?);
                (
                    IpAddr::from(source),
                    IpAddr::from(destination),
                    packet.get(40..)?,
                )
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(*tcp.get(at..)?.first_chunk()?));
        Some(Self {
            from: SocketAddr::new(source, port(0)?),
            to: SocketAddr::new(destination, port(2)?),
            sequence: u32::from_be_bytes(*tcp.get(4..)?.first_chunk()?),
            syn: tcp.get(13)? & 0x02 != 0,
            payload: tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?,
        })
    }
}
