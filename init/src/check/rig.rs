//! The pair of interfaces that the test is made over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::failed;
use crate::config::{Config, Family};
use crate::error::Error;
use crate::netlink::{self, Mac};

/// The end that belongs to the pod, as an `eth0` does.
const NEAR: &str = "outrider-check0";
/// The end that stands for the rest of the world. It has no address.
pub(super) const FAR: &str = "outrider-check1";
/// Locally administered addresses.
pub(super) const NEAR_MAC: Mac = [0x02, 0x00, 0x6f, 0x75, 0x74, 0x00];
pub(super) const FAR_MAC: Mac = [0x02, 0x00, 0x6f, 0x75, 0x74, 0x01];

/// The pod's address on the pair: of the blocks for documentation (RFC 5737, RFC 3849), which no
/// network uses.
pub(super) fn near(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 253).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x6f75, 0x7472, 0, 0, 0, 1).into(),
    }
}

/// The address of the peer that is not there.
pub(super) fn far(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(192, 0, 2, 254).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0x6f75, 0x7472, 0, 0, 0, 2).into(),
    }
}

/// The pair. Removed on drop, and with it its addresses and routes.
pub(super) struct Rig(());

impl Rig {
    pub(super) fn build(config: &Config) -> Result<Self, Error> {
        if let Some(pattern) = config
            .exclude_interfaces
            .iter()
            .find(|pattern| pattern.matches(NEAR))
        {
            return Err(Error::Options(format!(
                "--exclude-interfaces {} takes in {NEAR}, over which the self-test is made: use a \
                 narrower pattern",
                pattern.as_str()
            )));
        }
        remove()?;
        netlink::add_veth([(NEAR, NEAR_MAC), (FAR, FAR_MAC)]).map_err(|source| Error::Netlink {
            action: "make a pair of interfaces for the self-test".to_owned(),
            hint: " (CAP_NET_ADMIN is needed, and the kernel's module veth on the node)",
            source,
        })?;
        let rig = Self(());
        wait_until_running()?;
        Ok(rig)
    }

    /// Gives the pair addresses of a family.
    pub(super) fn add_family(&self, family: Family) -> Result<(), Error> {
        let prefix = match family {
            Family::V4 => 30,
            Family::V6 => 126,
        };
        netlink::add_address(NEAR, near(family), prefix)
            .and_then(|_| netlink::add_neighbour(NEAR, far(family), FAR_MAC))
            .map_err(failed(format!("give {NEAR} an {family} address")))
    }

    /// Makes the pair the way to `address`.
    pub(super) fn route_to(&self, address: IpAddr) -> Result<(), Error> {
        if address == far(Family::of(address)) {
            return Ok(());
        }
        netlink::add_route(NEAR, address).map_err(failed(format!("route {address} over {NEAR}")))
    }
}

/// Until the kernel has seen to it that the link is up, an interface drops what is sent by it. On a
/// node that starts many pods at once this takes its time.
fn wait_until_running() -> Result<(), Error> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let action = || format!("wait for the interface {NEAR}");
    loop {
        let interfaces = getifaddrs()
            .map_err(std::io::Error::from)
            .map_err(failed(action()))?;
        let is_running = |interface: nix::ifaddrs::InterfaceAddress| {
            interface.interface_name == NEAR
                && interface.flags.contains(InterfaceFlags::IFF_RUNNING)
        };
        if interfaces.into_iter().any(is_running) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(failed(action())(std::io::ErrorKind::TimedOut.into()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Err(error) = remove() {
            eprintln!("outrider-init: {error}");
        }
    }
}

pub(super) fn remove() -> Result<(), Error> {
    netlink::remove_interface(NEAR)
        .map(drop)
        .map_err(|source| Error::Netlink {
            action: format!("remove the interface {NEAR}"),
            hint: "",
            source,
        })
}

/// Whether the pod itself has this address.
pub(super) fn is_local(address: IpAddr) -> bool {
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces
        .filter_map(|interface| interface.address)
        .any(|storage| {
            let v4 = storage
                .as_sockaddr_in()
                .map(|socket| IpAddr::V4(socket.ip()));
            let v6 = storage
                .as_sockaddr_in6()
                .map(|socket| IpAddr::V6(socket.ip()));
            v4.or(v6) == Some(address)
        })
}
