//! Dynamic forward proxies: clusters whose endpoints are the hosts that clients ask for.
//!
//! Who may use one reaches whatever the proxy reaches, by the proxy's own user, whose connections the
//! pod's redirects let pass: also loopback, and what no other listener would route to. So it is only
//! for listeners whose clients are trusted with that, or with rules before it (`rbac`) and
//! `resolved_address_filter` around it, which holds for addresses that clients write themselves, too.
//! The proxy's own ports 15001 and 15006 refuse connections that were not redirected, so there is no
//! way round by them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::dns::{LookupSettings, RefreshRates};
use crate::network::filter_state::FilterState;

/// The settings of a cache, of which there is one of each name: the clusters and filters that name it
/// hold the same.
#[derive(Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// `name`
    pub name: Box<str>,
    /// The `DnsCacheConfig`, encoded.
    pub encoded: Box<[u8]>,
}

/// `DnsCacheConfig`: how the names are looked up, and for how long they are known.
#[derive(Debug)]
pub struct DnsCache {
    /// What filters must say of it, too.
    pub settings: Arc<CacheSettings>,
    /// How names are looked up.
    pub lookup: LookupSettings,
    /// When they are looked up again, if they are still asked for.
    pub refresh: RefreshRates,
    /// `dns_query_timeout`: the longest that a request waits for an answer.
    pub timeout: Option<Duration>,
    /// `host_ttl`: a name that was not asked for in this time is forgotten.
    pub host_ttl: Duration,
    /// `max_hosts`: so many names at once, on each worker.
    pub max_hosts: usize,
    /// `dns_cache_circuit_breaker.max_pending_requests`: so many requests wait for answers at once,
    /// on each worker.
    pub max_pending: usize,
    /// `resolved_address_filter`
    pub addresses: Option<AddressRule>,
    /// The cluster speaks TLS, in which a host that is an address has no name to verify; where a
    /// client names no port it is 443, else 80.
    pub has_tls: bool,
}

/// Which addresses must not be connected to.
#[derive(Debug)]
pub struct AddressRule {
    /// `ranges`
    pub ranges: Vec<IpNet>,
    /// `invert_match`: all others.
    pub invert: bool,
}

impl AddressRule {
    /// Whether an address may be connected to.
    pub fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.ranges.iter().any(|range| range.contains(&address)) == self.invert
    }
}

/// A host that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicHost {
    /// The name, or an address, in lower case.
    pub host: Arc<str>,
    /// The port, if it names one.
    pub port: Option<u16>,
}

impl DynamicHost {
    /// As filters before told.
    pub fn of_filter_state(state: &FilterState) -> Option<DynamicHost> {
        state.dynamic_host().map(|host| DynamicHost {
            host: host.to_ascii_lowercase().into(),
            port: state.dynamic_port(),
        })
    }

    /// Of an authority: `name`, `name:port`, `[address]:port`; `None` where it is none of these.
    pub fn of_authority(authority: &[u8]) -> Option<DynamicHost> {
        let text = std::str::from_utf8(authority).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']')?;
                match rest {
                    "" => (host, None),
                    _ => (host, Some(rest.strip_prefix(':')?)),
                }
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map(str::parse).transpose().ok()?;
        (!host.is_empty()).then(|| DynamicHost {
            host: host.to_ascii_lowercase().into(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_name_a_host_and_maybe_a_port() {
        let cases = [
            ("Example.com", Some(("example.com", None))),
            ("example.com:8080", Some(("example.com", Some(8080)))),
            ("[::1]:8080", Some(("::1", Some(8080)))),
            ("[::1]", Some(("::1", None))),
            ("10.0.0.1:1", Some(("10.0.0.1", Some(1)))),
            ("", None),
            (":80", None),
            ("a:b", None),
            ("a:65536", None),
            ("[::1", None),
            ("[::1]80", None),
            ("::1", None),
        ];
        for (authority, expected) in cases {
            let expected = expected.map(|(host, port)| DynamicHost {
                host: host.into(),
                port,
            });
            let found = DynamicHost::of_authority(authority.as_bytes());
            assert_eq!(found, expected, "{authority}");
        }
    }
}
