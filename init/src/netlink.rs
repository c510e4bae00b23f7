//! The little of the kernel's netlink that we need, for addresses, interfaces and what iptables
//! leaves behind in nftables (rtnetlink(7); `linux/if_link.h`, `linux/netfilter/nf_tables.h`).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto,
    socket,
};

const HEADER: usize = 16;
/// NLM_F_REQUEST and NLM_F_ACK.
const REQUEST: u16 = 0x1 | 0x4;
/// NLM_F_CREATE and NLM_F_EXCL.
const CREATE: u16 = 0x400 | 0x200;
/// NLM_F_CREATE and NLM_F_REPLACE.
const REPLACE: u16 = 0x400 | 0x100;
/// NLM_F_NONREC: delete only what is empty.
const ONLY_EMPTY: u16 = 0x100;
const NLMSG_ERROR: u16 = 2;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const RTM_NEWNEIGH: u16 = 28;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: the address can be used at once.
const IFA_F_NODAD: u8 = 0x02;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
const NFT_MSG_DELCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 5;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// A message under construction.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        Self(bytes)
    }

    fn push(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn attribute(self, kind: u16, value: &[u8]) -> Self {
        self.nest(kind, |message| message.push(value))
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.nest(kind, |message| message.push(value.as_bytes()).push(&[0]))
    }

    fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        let mut filled = fill(self);
        let length = u16::try_from(filled.0.len() - start).unwrap_or(u16::MAX);
        filled.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled.0.resize(filled.0.len().next_multiple_of(4), 0);
        filled
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The bytes of an address and the number of its family.
fn octets(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    }
}

/// `struct ifinfomsg`
fn interface_header(index: u32, up: bool) -> Vec<u8> {
    let flags = if up { IFF_UP } else { 0 };
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes
}

/// A netlink socket.
struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    fn open(protocol: SockProtocol) -> io::Result<Self> {
        let family = AddressFamily::Netlink;
        let descriptor = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { descriptor })
    }

    /// Sends one datagram and waits for the kernel's word on the message numbered `sequence`.
    fn ask(&self, bytes: &[u8], sequence: u32) -> io::Result<()> {
        let kernel = NetlinkAddr::new(0, 0);
        sendto(
            self.descriptor.as_raw_fd(),
            bytes,
            &kernel,
            MsgFlags::empty(),
        )?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let length = recv(self.descriptor.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            if let Some(result) = acknowledgement(&buffer[..length], sequence) {
                return result;
            }
        }
    }
}

/// What a datagram says of the message numbered `sequence`, if anything. An error about a batch as
/// a whole has the number of its first message.
fn acknowledgement(mut datagram: &[u8], sequence: u32) -> Option<io::Result<()>> {
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    while datagram.len() >= HEADER + 4 {
        let length = usize::try_from(number(&datagram[..4])?).ok()?;
        let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
        let code = i32::from_ne_bytes(datagram[HEADER..HEADER + 4].try_into().ok()?);
        let is_ours = number(&datagram[8..12])? == sequence;
        if kind == NLMSG_ERROR && (is_ours || code != 0) {
            return Some(match code {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            });
        }
        datagram = datagram.get(length.max(HEADER).next_multiple_of(4)..)?;
    }
    None
}

fn route(message: Message) -> io::Result<()> {
    Socket::open(SockProtocol::NetlinkRoute)?.ask(&message.finish(), 1)
}

fn index(interface: &str) -> io::Result<u32> {
    Ok(nix::net::if_::if_nametoindex(interface)?)
}

/// Makes a pair of interfaces that are each other's other end, both up.
pub(crate) fn add_veth(ends: [(&str, Mac); 2]) -> io::Result<()> {
    let [(name, mac), (peer, peer_mac)] = ends;
    let message = Message::new(RTM_NEWLINK, CREATE, 1)
        .push(&interface_header(0, false))
        .text(IFLA_IFNAME, name)
        .attribute(IFLA_ADDRESS, &mac)
        .nest(IFLA_LINKINFO, |message| {
            message
                .text(IFLA_INFO_KIND, "veth")
                .nest(IFLA_INFO_DATA, |message| {
                    message.nest(VETH_INFO_PEER, |message| {
                        message
                            .push(&interface_header(0, false))
                            .text(IFLA_IFNAME, peer)
                            .attribute(IFLA_ADDRESS, &peer_mac)
                    })
                })
        });
    route(message)?;
    // An end cannot be made up before it has its other end.
    for (name, _) in ends {
        route(Message::new(RTM_NEWLINK, 0, 1).push(&interface_header(index(name)?, true)))?;
    }
    Ok(())
}

/// Removes an interface, and with a pair both ends; whether it was there.
pub(crate) fn remove_interface(name: &str) -> io::Result<bool> {
    let index = match nix::net::if_::if_nametoindex(name) {
        Ok(index) => index,
        Err(Errno::ENODEV) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    route(Message::new(RTM_DELLINK, 0, 1).push(&interface_header(index, false)))?;
    Ok(true)
}

fn address(kind: u16, flags: u16, interface: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    let (family, bytes) = octets(address);
    // struct ifaddrmsg
    let message = Message::new(kind, flags, 1)
        .push(&[family, prefix, IFA_F_NODAD, 0])
        .push(&index(interface)?.to_ne_bytes())
        .attribute(IFA_LOCAL, &bytes)
        .attribute(IFA_ADDRESS, &bytes);
    route(message)
}

/// Gives an interface an address; whether it was new.
pub(crate) fn add_address(interface: &str, ip: IpAddr, prefix: u8) -> io::Result<bool> {
    absent_if(
        address(RTM_NEWADDR, CREATE, interface, ip, prefix),
        &[Errno::EEXIST],
    )
}

/// Takes an address away from an interface; whether it was there.
pub(crate) fn remove_address(interface: &str, ip: IpAddr, prefix: u8) -> io::Result<bool> {
    absent_if(
        address(RTM_DELADDR, 0, interface, ip, prefix),
        &[Errno::EADDRNOTAVAIL],
    )
}

/// Makes one destination reachable by an interface.
pub(crate) fn add_route(interface: &str, destination: IpAddr) -> io::Result<()> {
    const TABLE_MAIN: u8 = 254;
    const PROTOCOL_STATIC: u8 = 4;
    const SCOPE_LINK: u8 = 253;
    const TYPE_UNICAST: u8 = 1;
    let (family, bytes) = octets(destination);
    let prefix = if destination.is_ipv4() { 32 } else { 128 };
    // struct rtmsg
    let message = Message::new(RTM_NEWROUTE, CREATE, 1)
        .push(&[
            family,
            prefix,
            0,
            0,
            TABLE_MAIN,
            PROTOCOL_STATIC,
            SCOPE_LINK,
            TYPE_UNICAST,
        ])
        .push(&[0; 4])
        .attribute(RTA_DST, &bytes)
        .attribute(RTA_OIF, &index(interface)?.to_ne_bytes());
    route(message)
}

/// Tells the kernel the hardware address of a neighbour, so that it never asks for it.
pub(crate) fn add_neighbour(interface: &str, ip: IpAddr, mac: Mac) -> io::Result<()> {
    let (family, bytes) = octets(ip);
    // struct ndmsg
    let message = Message::new(RTM_NEWNEIGH, REPLACE, 1)
        .push(&[family, 0, 0, 0])
        .push(&index(interface)?.to_ne_bytes())
        .push(&NUD_PERMANENT.to_ne_bytes())
        .push(&[0, 0])
        .attribute(NDA_DST, &bytes)
        .attribute(NDA_LLADDR, &mac);
    route(message)
}

/// Deletes a chain of nftables if no rule is in it or leads to it; whether it is gone by this.
pub(crate) fn delete_empty_nft_chain(is_ipv6: bool, table: &str, chain: &str) -> io::Result<bool> {
    nft(|sequence| {
        Message::new(NFT_MSG_DELCHAIN, ONLY_EMPTY, sequence)
            .push(&nft_header(is_ipv6))
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, chain)
    })
}

/// Deletes a table of nftables if it has no chain, set or object; whether it is gone by this.
pub(crate) fn delete_empty_nft_table(is_ipv6: bool, table: &str) -> io::Result<bool> {
    nft(|sequence| {
        Message::new(NFT_MSG_DELTABLE, ONLY_EMPTY, sequence)
            .push(&nft_header(is_ipv6))
            .text(NFTA_TABLE_NAME, table)
    })
}

/// `struct nfgenmsg` of a message for one family.
fn nft_header(is_ipv6: bool) -> [u8; 4] {
    [if is_ipv6 { AF_INET6 } else { AF_INET }, 0, 0, 0]
}

fn nft(message: impl FnOnce(u32) -> Message) -> io::Result<bool> {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    let edge = |kind, sequence| {
        let mut bytes = Message::new(kind, 0, sequence)
            .push(&[0, 0, high, low])
            .finish();
        // The edges of a batch are not acknowledged.
        bytes[6..8].copy_from_slice(&1u16.to_ne_bytes());
        bytes
    };
    let batch = [
        edge(NFNL_MSG_BATCH_BEGIN, 1),
        message(2).finish(),
        edge(NFNL_MSG_BATCH_END, 3),
    ]
    .concat();
    let result = Socket::open(SockProtocol::NetlinkNetFilter)?.ask(&batch, 2);
    absent_if(result, &[Errno::ENOENT, Errno::EBUSY])
}

/// Makes of an error that says that there is nothing to do that nothing was done.
fn absent_if(result: io::Result<()>, harmless: &[Errno]) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) => {
            let code = error.raw_os_error().map(Errno::from_raw);
            if code.is_some_and(|code| harmless.contains(&code)) {
                Ok(false)
            } else {
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_lengths_are_right() {
        let bytes = Message::new(RTM_NEWLINK, 0, 7)
            .nest(IFLA_LINKINFO, |message| {
                message.text(IFLA_INFO_KIND, "veth")
            })
            .finish();
        assert_eq!(bytes.len(), 16 + 4 + 4 + 8);
        assert_eq!(bytes[..4], 32u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 16u16.to_ne_bytes());
        assert_eq!(bytes[20..22], 9u16.to_ne_bytes());
        assert_eq!(&bytes[24..29], b"veth\0");
    }

    #[test]
    fn reads_the_answer_to_the_right_message() {
        let answer = |sequence: u32, code: i32| {
            Message::new(NLMSG_ERROR, 0, sequence)
                .push(&code.to_ne_bytes())
                .push(&[0; 16])
                .finish()
        };
        let two = [answer(1, 0), answer(2, 0)].concat();
        assert!(acknowledgement(&two, 2).unwrap().is_ok());
        assert!(acknowledgement(&two, 3).is_none());
        let refused = acknowledgement(&answer(2, -1), 2).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(1));
        assert!(acknowledgement(&two[..10], 1).is_none());
    }
}
