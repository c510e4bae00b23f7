//! What to try: something that the configuration says is captured.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::rig::{far, is_local};
use crate::config::{Config, Family, Include};

/// A destination out that is captured.
pub(super) fn outbound(config: &Config, family: Family) -> Option<SocketAddr> {
    let mut candidates = vec![far(family)];
    if let Include::Only(nets) = &config.include_cidrs {
        let nets = nets.iter().filter(|net| Family::of(net.addr()) == family);
        candidates.extend(nets.flat_map(|net| spread(*net)));
    }
    // Where all of the documentation's addresses are excluded, any other will do.
    candidates.push(match family {
        Family::V4 => Ipv4Addr::new(198, 18, 255, 254).into(),
        Family::V6 => Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1).into(),
    });
    candidates
        .into_iter()
        .filter(|address| !is_unfit(*address))
        .find_map(|address| {
            let port = ports().find(|port| config.captures_outbound(address, *port))?;
            Some(SocketAddr::new(address, port))
        })
}

/// A port of the pod that is captured.
pub(super) fn inbound(config: &Config) -> Option<u16> {
    ports().find(|port| config.captures_inbound(*port))
}

fn ports() -> impl Iterator<Item = u16> {
    (80..=u16::MAX).chain(1..80)
}

/// Some addresses of a net, those first that nobody is likely to have.
fn spread(net: IpNet) -> Vec<IpAddr> {
    let offsets = |size: u128| {
        let last = size.saturating_sub(1);
        [
            last.saturating_sub(1),
            last / 2,
            last / 3,
            last / 5,
            last.min(1),
            0,
        ]
    };
    match net {
        IpNet::V4(net) => {
            let size = 1u128 << (32 - net.prefix_len());
            let start = u32::from(net.network());
            let at = |offset| Ipv4Addr::from(start + u32::try_from(offset).unwrap_or(0)).into();
            offsets(size).map(at).to_vec()
        }
        IpNet::V6(net) => {
            let size = 1u128
                .checked_shl(128 - u32::from(net.prefix_len()))
                .unwrap_or(u128::MAX);
            let start = u128::from(net.network());
            let at = |offset| Ipv6Addr::from(start.saturating_add(offset)).into();
            offsets(size).map(at).to_vec()
        }
    }
}

/// Whether a connection to it would not leave the pod, or could not be made.
fn is_unfit(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(address) => address.is_broadcast() || address.octets()[0] == 0,
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_special
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified()
        || is_local(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::standard;

    #[test]
    fn finds_what_is_captured_and_nothing_where_nothing_is() {
        let target =
            |config: &Config, family| outbound(config, family).map(|found| found.to_string());
        let mut config = standard();
        assert_eq!(target(&config, Family::V4).unwrap(), "192.0.2.254:80");
        config.exclude_outbound_ports = vec!["70-89".parse().unwrap()];
        assert_eq!(target(&config, Family::V4).unwrap(), "192.0.2.254:90");
        config.exclude_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
        assert_eq!(target(&config, Family::V4).unwrap(), "198.18.255.254:90");
        config.include_cidrs = Include::Only(vec!["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(target(&config, Family::V4).unwrap(), "10.255.255.254:90");
        assert_eq!(target(&config, Family::V6), None);
        config.exclude_cidrs.push("10.128.0.0/9".parse().unwrap());
        assert_eq!(target(&config, Family::V4).unwrap(), "10.127.255.255:90");
        config.include_outbound_ports = vec![25.into()];
        assert_eq!(
            target(&config, Family::V6).unwrap(),
            "[2001:db8:6f75:7472::2]:25"
        );
        config.include_cidrs = Include::Only(vec![
            "203.0.113.9/32".parse().unwrap(),
            "::/0".parse().unwrap(),
        ]);
        assert_eq!(target(&config, Family::V4).unwrap(), "203.0.113.9:90");

        assert_eq!(inbound(&config), Some(80));
        config.exclude_inbound_ports = vec!["1-65535".parse().unwrap()];
        assert_eq!(inbound(&config), None);
    }
}
