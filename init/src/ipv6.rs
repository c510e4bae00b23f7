//! What becomes of IPv6, and the address of its own that the proxy's inbound side needs.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use crate::config::Ipv6;
use crate::error::Error;
use crate::netlink;
use crate::options::Ipv6Mode;

/// `::6`. Unlike 127.0.0.6, which all of 127.0.0.0/8 comes with, it has to be added to `lo`.
const INBOUND_SOURCE: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// What the kernel says of IPv6 in this namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The kernel has IPv6 at all.
    pub(crate) is_present: bool,
    /// Loopback may have addresses.
    pub(crate) is_enabled_on_loopback: bool,
    /// Some interface has an address.
    pub(crate) has_address: bool,
}

impl Facts {
    /// # Errors
    /// When the kernel's files cannot be read.
    pub(crate) fn read() -> Result<Self, Error> {
        let addresses = match read("/proc/net/if_inet6")? {
            Some(addresses) => addresses,
            // IPv6 is not built in, its module is not loaded, or it is off (ipv6.disable=1).
            None => {
                return Ok(Self {
                    is_present: false,
                    is_enabled_on_loopback: false,
                    has_address: false,
                });
            }
        };
        let disabled = read("/proc/sys/net/ipv6/conf/lo/disable_ipv6")?;
        Ok(Self {
            is_present: true,
            is_enabled_on_loopback: disabled.is_none_or(|value| value.trim() == "0"),
            has_address: !addresses.trim().is_empty(),
        })
    }
}

fn read(path: &str) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && Path::new("/proc/net").exists() =>
        {
            Ok(None)
        }
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What to do, from what is wanted and what is there. A family that is there is never left open.
///
/// # Errors
/// When IPv6 is demanded and the pod has none.
pub(crate) fn settle(mode: Ipv6Mode, facts: Facts) -> Result<Ipv6, Error> {
    match mode {
        _ if !facts.is_present => match mode {
            Ipv6Mode::On => Err(Error::NoIpv6(
                "the kernel has no IPv6 (no /proc/net/if_inet6)".to_owned(),
            )),
            Ipv6Mode::Auto | Ipv6Mode::Off => Ok(Ipv6::Absent),
        },
        Ipv6Mode::Off => Ok(Ipv6::Reject),
        Ipv6Mode::Auto | Ipv6Mode::On if facts.is_enabled_on_loopback => Ok(Ipv6::Capture),
        // Redirected connections and the proxy's inbound side live on loopback, so what arrives
        // by another interface cannot be captured. It may come up at any time.
        Ipv6Mode::Auto => Ok(Ipv6::Reject),
        Ipv6Mode::On => Err(Error::NoIpv6(
            "it is disabled on loopback (sysctl net.ipv6.conf.lo.disable_ipv6=1), by which \
             redirected connections go"
                .to_owned(),
        )),
    }
}

/// Gives `lo` the proxy's inbound source address if IPv6 is captured, and takes it away otherwise.
/// Whether anything changed.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn set_inbound_source(ipv6: Ipv6) -> Result<bool, Error> {
    let (action, result) = match ipv6 {
        Ipv6::Capture => (
            "add ::6/128 to lo",
            netlink::add_address("lo", INBOUND_SOURCE, 128),
        ),
        Ipv6::Reject => (
            "remove ::6/128 from lo",
            netlink::remove_address("lo", INBOUND_SOURCE, 128),
        ),
        Ipv6::Absent => return Ok(false),
    };
    result.map_err(|source| Error::Netlink {
        action: action.to_owned(),
        hint: " (CAP_NET_ADMIN is needed, and IPv6 on lo)",
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_family_that_is_there_is_left_open() {
        let facts = |is_present, is_enabled_on_loopback| Facts {
            is_present,
            is_enabled_on_loopback,
            has_address: true,
        };
        for (mode, facts, settled) in [
            (Ipv6Mode::Auto, facts(true, true), Some(Ipv6::Capture)),
            (Ipv6Mode::Auto, facts(true, false), Some(Ipv6::Reject)),
            (Ipv6Mode::Auto, facts(false, false), Some(Ipv6::Absent)),
            (Ipv6Mode::On, facts(true, true), Some(Ipv6::Capture)),
            (Ipv6Mode::On, facts(true, false), None),
            (Ipv6Mode::On, facts(false, false), None),
            (Ipv6Mode::Off, facts(true, true), Some(Ipv6::Reject)),
            (Ipv6Mode::Off, facts(true, false), Some(Ipv6::Reject)),
            (Ipv6Mode::Off, facts(false, false), Some(Ipv6::Absent)),
        ] {
            assert_eq!(settle(mode, facts).ok(), settled, "{mode:?} {facts:?}");
        }
    }
}
