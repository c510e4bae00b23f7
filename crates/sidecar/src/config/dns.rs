//! What clusters of type STRICT_DNS and LOGICAL_DNS say: the names, how they are looked up, and how
//! often.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::endpoint::LoadAssignment;

/// STRICT_DNS, LOGICAL_DNS, or `envoy.clusters.dns`.
#[derive(Debug)]
pub struct Dns {
    /// Endpoints by name.
    pub assignment: LoadAssignment<Name>,
    /// LOGICAL_DNS: all addresses of the name are one endpoint.
    pub logical: bool,
    /// `wait_for_warm_on_init` (true unless set): the cluster is warm with the first answer, good or
    /// bad.
    pub wait: bool,
    /// When names are looked up again.
    pub refresh: RefreshRates,
    /// How they are looked up.
    pub lookup: LookupSettings,
}

/// A host that may be a name or an address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The name, or an address.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
}

/// When a name is looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshRates {
    /// `dns_refresh_rate`; 5 s unless set.
    pub normal: Duration,
    /// `dns_failure_refresh_rate`: the first wait after a failure and the longest after many; both
    /// are `normal` unless set.
    pub failure: (Duration, Duration),
    /// `respect_dns_ttl`: after an answer, wait as long as it is good for.
    pub respect_ttl: bool,
    /// `dns_min_refresh_rate`: but at least this long.
    pub least: Duration,
    /// `dns_jitter`: a random part of this is added after an answer.
    pub jitter: Duration,
}

/// `dns_lookup_family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6, and IPv4 only if there is no IPv6 address.
    Auto,
    /// IPv4 alone.
    V4Only,
    /// IPv6 alone.
    V6Only,
    /// IPv4, and IPv6 only if there is no IPv4 address.
    V4Preferred,
    /// Both.
    All,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSettings {
    /// Which addresses.
    pub family: LookupFamily,
    /// `resolvers`: asked instead of those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// `use_resolvers_as_fallback`: only where `/etc/resolv.conf` names none.
    pub servers_are_fallback: bool,
    /// `use_tcp_for_dns_lookups`
    pub tcp_only: bool,
    /// False: `no_default_search_domain`.
    pub search: bool,
    /// Bound of one question to one server.
    pub timeout: Duration,
    /// Questions before giving up, over all servers.
    pub tries: u32,
    /// `rotate_nameservers`
    pub rotate: bool,
    /// `edns0_max_payload_size`, bytes.
    pub payload: Option<u16>,
    /// `filter_unroutable_families`: leave out addresses of a family that no interface has.
    pub routable_only: bool,
}

impl Default for LookupSettings {
    /// Envoy's: 5 s a question, four of them.
    fn default() -> Self {
        LookupSettings {
            family: LookupFamily::Auto,
            servers: Vec::new(),
            servers_are_fallback: false,
            tcp_only: false,
            search: true,
            timeout: Duration::from_secs(5),
            tries: 4,
            rotate: false,
            payload: None,
            routable_only: false,
        }
    }
}
