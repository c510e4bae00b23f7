//! What is to be captured: the validated form of the options, and what it means for one packet.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// Ports of the proxy itself that inbound capture leaves alone: the tunnel that other meshes use
/// (15008), the merged metrics and app health (15020), readiness (15021) and the metrics (15090).
pub(crate) const PROXY_SERVICE_PORTS: [u16; 4] = [15008, 15020, 15021, 15090];
/// The port of DNS servers.
pub(crate) const DNS_PORT: u16 = 53;

/// An address family, each of which has iptables of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that the proxy binds when it dials the app on behalf of an inbound connection.
    pub(crate) fn inbound_source(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.6/32",
            Self::V6 => "::6/128",
        }
    }

    /// Loopback's own address, which the kernel also puts in place of a redirected destination.
    pub(crate) fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.1/32",
            Self::V6 => "::1/128",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One port, or a range of them, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    pub(crate) fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(format!(
                "`{text}` is not a port: write a number from 1 to 65535, or a range like 8000-8010"
            )),
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(format!(
                "the range `{text}` ends before it starts: write {last}-{first}"
            ));
        }
        Ok(Self { first, last })
    }
}

/// As iptables writes it.
impl fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(formatter, "{}", self.first)
        } else {
            write!(formatter, "{}:{}", self.first, self.last)
        }
    }
}

/// All, or only those named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Include<T> {
    All,
    Only(Vec<T>),
}

/// The name of an interface, or the start of one followed by `+`, as iptables matches them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface(String);

impl Interface {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('+') {
            Some(start) => name.starts_with(start),
            None => name == self.0,
        }
    }
}

impl FromStr for Interface {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // IFNAMSIZ less the terminating zero; the kernel allows no slash and no space.
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"/\"'\\!".contains(&byte);
        if text == "+" {
            return Err("`+` is every interface, so nothing would be captured".to_owned());
        }
        if text.is_empty() || text.len() > 15 || !text.bytes().all(allowed) || text.starts_with('-')
        {
            return Err(format!(
                "`{text}` is not the name of an interface: at most 15 characters, a `+` at the \
                 end stands for any ending"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What becomes of IPv6 in this pod, settled (see `ipv6::settle`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ipv6 {
    /// Captured as IPv4 is.
    Capture,
    /// TCP that is neither loopback's nor the proxy's is refused, so that nothing bypasses.
    Reject,
    /// The kernel has none; there is nothing to install and nothing that could bypass.
    Absent,
}

/// All that the rules depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) proxy_uid: u32,
    pub(crate) proxy_gid: u32,
    pub(crate) inbound_port: u16,
    pub(crate) outbound_port: u16,
    /// Where DNS queries go, if they are captured.
    pub(crate) dns_port: Option<u16>,
    pub(crate) include_inbound_ports: Include<PortRange>,
    pub(crate) exclude_inbound_ports: Vec<PortRange>,
    /// Captured whatever their address.
    pub(crate) include_outbound_ports: Vec<PortRange>,
    pub(crate) exclude_outbound_ports: Vec<PortRange>,
    pub(crate) include_cidrs: Include<IpNet>,
    pub(crate) exclude_cidrs: Vec<IpNet>,
    pub(crate) exclude_interfaces: Vec<Interface>,
    /// Whether inbound packets that conntrack finds invalid are dropped.
    pub(crate) drop_invalid: bool,
    pub(crate) ipv6: Ipv6,
}

impl Config {
    /// Whether a connection of the app to `port` of `address`, beyond loopback, goes to the
    /// outbound port of the proxy.
    pub(crate) fn captures_outbound(&self, address: IpAddr, port: u16) -> bool {
        let family_captured = address.is_ipv4() || self.ipv6 == Ipv6::Capture;
        let excluded = contains_port(&self.exclude_outbound_ports, port)
            || (self.dns_port.is_some() && port == DNS_PORT)
            || self.exclude_cidrs.iter().any(|net| net.contains(&address));
        let included = contains_port(&self.include_outbound_ports, port)
            || match &self.include_cidrs {
                Include::All => true,
                Include::Only(nets) => nets.iter().any(|net| net.contains(&address)),
            };
        family_captured && !excluded && included
    }

    /// Whether a connection from outside to `port` of the pod goes to the inbound port of the
    /// proxy.
    pub(crate) fn captures_inbound(&self, port: u16) -> bool {
        let excluded =
            PROXY_SERVICE_PORTS.contains(&port) || contains_port(&self.exclude_inbound_ports, port);
        let included = match &self.include_inbound_ports {
            Include::All => true,
            Include::Only(ports) => contains_port(ports, port),
        };
        !excluded && included
    }
}

fn contains_port(ranges: &[PortRange], port: u16) -> bool {
    ranges.iter().any(|range| range.contains(port))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// What the options amount to when none is given, with IPv6 captured.
    pub(crate) fn standard() -> Config {
        Config {
            proxy_uid: 1337,
            proxy_gid: 1337,
            inbound_port: 15006,
            outbound_port: 15001,
            dns_port: None,
            include_inbound_ports: Include::All,
            exclude_inbound_ports: Vec::new(),
            include_outbound_ports: Vec::new(),
            exclude_outbound_ports: Vec::new(),
            include_cidrs: Include::All,
            exclude_cidrs: Vec::new(),
            exclude_interfaces: Vec::new(),
            drop_invalid: true,
            ipv6: Ipv6::Capture,
        }
    }

    #[test]
    fn ports_and_interfaces_are_read_strictly() {
        for (text, shown) in [("80", "80"), ("8000-8010", "8000:8010"), ("65535", "65535")] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), shown);
        }
        for text in ["0", "", "65536", "80-", "-80", "9-8", "80,81", "a", "1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
        assert!("net1".parse::<Interface>().unwrap().matches("net1"));
        assert!("net+".parse::<Interface>().unwrap().matches("net1"));
        assert!(!"net".parse::<Interface>().unwrap().matches("net1"));
        for text in [
            "",
            "+",
            "a b",
            "-A",
            "a/b",
            "sixteen-letters-",
            "a\nb",
            "!eth0",
        ] {
            assert!(text.parse::<Interface>().is_err(), "{text}");
        }
    }

    #[test]
    fn exclusions_win_over_inclusions() {
        let mut config = standard();
        config.include_cidrs = Include::Only(vec!["10.0.0.0/8".parse().unwrap()]);
        config.exclude_cidrs = vec!["10.1.0.0/16".parse().unwrap()];
        config.include_outbound_ports = vec![25.into()];
        config.exclude_outbound_ports = vec!["5000-5009".parse().unwrap()];
        config.include_inbound_ports = Include::Only(vec!["80-90".parse().unwrap(), 15021.into()]);
        config.exclude_inbound_ports = vec![85.into()];
        for (address, port, captured) in [
            ("10.2.0.1", 80, true),
            ("10.1.0.1", 80, false),
            ("10.2.0.1", 5005, false),
            ("192.0.2.1", 80, false),
            ("192.0.2.1", 25, true),
            ("10.1.0.1", 25, false),
            ("2001:db8::1", 80, false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(
                config.captures_outbound(address, port),
                captured,
                "{address} {port}"
            );
        }
        for (port, captured) in [(80, true), (85, false), (91, false), (15021, false)] {
            assert_eq!(config.captures_inbound(port), captured, "{port}");
        }
    }
}
