//! Names to addresses: of endpoints, of discovery servers and of the certificate authority.
//!
//! Not by the C library's `getaddrinfo`: a static program in an image without a C library has none of
//! the parts that it loads at run time. `/etc/hosts` is asked first and, as there, alone if it has
//! the name; else the servers, search domains and options of `/etc/resolv.conf`. Both are read at
//! each use: so they may change, and nothing of it takes memory in between.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use nix::ifaddrs::getifaddrs;
use rand::RngExt as _;

use crate::config::dns::{LookupFamily, LookupSettings};

/// How long a name may take, over all search domains, that a connection to its address waits for:
/// the connection is tried again anyway.
const TIMEOUT: Duration = Duration::from_secs(8);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It is no name.
    #[error("{name:?} is no DNS name: {reason}")]
    Name {
        /// What it is.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What says whom to ask cannot be used.
    #[error("cannot resolve {name}: /etc/resolv.conf: {source}")]
    Settings {
        /// Which name.
        name: String,
        /// What is wrong.
        source: Box<NetError>,
    },
    /// The DNS server says no, or nothing.
    #[error("cannot resolve {name}: {source}")]
    Lookup {
        /// Which name.
        name: String,
        /// What it said.
        source: Box<NetError>,
    },
    /// There was no answer in time.
    #[error("cannot resolve {name}: no answer within {limit:?}")]
    Timeout {
        /// Which name.
        name: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

impl ResolveError {
    /// Whether a server said that there is no such name, or that it has no address: which is an
    /// answer, and not the lack of one.
    pub fn says_no(&self) -> bool {
        matches!(self, ResolveError::Lookup { source, .. } if source.is_no_records_found())
    }
}

impl From<ResolveError> for std::io::Error {
    fn from(error: ResolveError) -> Self {
        std::io::Error::other(error)
    }
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// In the order in which they were given, the preferred family first.
    pub addresses: Vec<IpAddr>,
    /// How long that is good for, where the DNS said so.
    pub ttl: Option<Duration>,
}

/// All addresses of `host`, which may be one itself, IPv4 first; never none.
///
/// # Errors
/// [`ResolveError`]
pub async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let settings = LookupSettings {
        family: LookupFamily::All,
        ..LookupSettings::default()
    };
    addresses_by(host, port, &settings).await
}

/// The same, looked up in a given way.
///
/// # Errors
/// [`ResolveError`]
pub async fn addresses_by(
    host: &str,
    port: u16,
    settings: &LookupSettings,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let found = tokio::time::timeout(TIMEOUT, resolve(host, settings)).await;
    let found = found.map_err(|_| ResolveError::Timeout {
        name: host.to_owned(),
        limit: TIMEOUT,
    })??;
    let mut addresses = found.addresses;
    addresses.sort_by_key(IpAddr::is_ipv6);
    let with_port = |address| SocketAddr::new(address, port);
    Ok(addresses.into_iter().map(with_port).collect())
}

/// The addresses of `host`, which may be one itself.
///
/// # Errors
/// [`ResolveError`]
pub async fn resolve(host: &str, settings: &LookupSettings) -> Result<Found, ResolveError> {
    let known = |addresses| Found {
        addresses,
        ttl: None,
    };
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(known(vec![address]));
    }
    let name = Name::from_str_relaxed(host).map_err(|error| ResolveError::Name {
        name: host.to_owned(),
        reason: error.to_string(),
    })?;
    // A pod without the file has no names of its own.
    let hosts = Hosts::from_system().unwrap_or_default();
    let listed = in_hosts(&hosts, &name);
    drop(hosts);
    let mut found = match of_family(listed, settings.family) {
        listed if !listed.is_empty() => known(listed),
        _ => {
            let limit = settings.timeout.saturating_mul(settings.tries);
            let looked_up = tokio::time::timeout(limit, by_server(host, name, settings)).await;
            looked_up.map_err(|_| ResolveError::Timeout {
                name: host.to_owned(),
                limit,
            })??
        }
    };
    if settings.routable_only {
        let (v4, v6) = routable();
        found
            .addresses
            .retain(|address| if address.is_ipv4() { v4 } else { v6 });
    }
    Ok(found)
}

/// What the hosts file says.
fn in_hosts(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)))
        .flat_map(|lookup| {
            let records = lookup.answers().iter();
            records
                .filter_map(|record| record.data.ip_addr())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Those of the family that is wanted.
fn of_family(mut addresses: Vec<IpAddr>, family: LookupFamily) -> Vec<IpAddr> {
    let has = |addresses: &[IpAddr], v6: bool| addresses.iter().any(|each| each.is_ipv6() == v6);
    let v6 = match family {
        LookupFamily::All => {
            addresses.sort_by_key(IpAddr::is_ipv4);
            return addresses;
        }
        LookupFamily::V4Only => false,
        LookupFamily::V6Only => true,
        LookupFamily::Auto => has(&addresses, true),
        LookupFamily::V4Preferred => !has(&addresses, false),
    };
    addresses.retain(|address| address.is_ipv6() == v6);
    addresses
}

/// Whether there is an interface with an IPv4 address, and one with an IPv6 address, besides
/// loopback.
fn routable() -> (bool, bool) {
    let Ok(interfaces) = getifaddrs() else {
        return (true, true);
    };
    let addresses = interfaces.filter_map(|interface| interface.address);
    addresses.fold((false, false), |(v4, v6), address| {
        let is_v4 = address
            .as_sockaddr_in()
            .is_some_and(|address| !address.ip().is_loopback());
        let is_v6 = address
            .as_sockaddr_in6()
            .is_some_and(|address| !address.ip().is_loopback());
        (v4 || is_v4, v6 || is_v6)
    })
}

/// What the DNS says.
async fn by_server(
    host: &str,
    name: Name,
    settings: &LookupSettings,
) -> Result<Found, ResolveError> {
    let unusable = |source| ResolveError::Settings {
        name: host.to_owned(),
        source: Box::new(source),
    };
    let mut builder = whom_to_ask(settings).map_err(unusable)?;
    let options = builder.options_mut();
    options.ip_strategy = match settings.family {
        LookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        LookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        LookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::All => LookupIpStrategy::Ipv6AndIpv4,
    };
    options.use_hosts_file = ResolveHosts::Never;
    // It is dropped after this one question.
    options.cache_size = 1;
    options.timeout = settings.timeout;
    options.attempts = settings.tries.saturating_sub(1) as usize;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    if let Some(payload) = settings.payload {
        options.edns0 = true;
        options.edns_payload_len = payload;
    }
    let resolver = builder.build().map_err(unusable)?;
    let found = resolver.lookup_ip(name).await;
    let found = found.map_err(|source| ResolveError::Lookup {
        name: host.to_owned(),
        source: Box::new(source),
    })?;
    // Aliases on the way count: none of it is good for longer than its shortest part.
    let ttl = found.as_lookup().answers().iter().map(|record| record.ttl);
    Ok(Found {
        addresses: found.iter().collect(),
        ttl: ttl.min().map(|seconds| Duration::from_secs(seconds.into())),
    })
}

/// The servers and search domains: those of `/etc/resolv.conf`, as far as the settings leave them.
fn whom_to_ask(
    settings: &LookupSettings,
) -> Result<ResolverBuilder<TokioRuntimeProvider>, NetError> {
    let (mut config, options) = match read_system_conf() {
        Err(_) if !settings.servers.is_empty() => Default::default(),
        read => read?,
    };
    let keep = settings.servers.is_empty() || settings.servers_are_fallback;
    if !keep || config.name_servers.is_empty() {
        let servers = settings.servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        config.name_servers = servers.collect();
    }
    let servers = &mut config.name_servers;
    if settings.tcp_only {
        for server in &mut *servers {
            let connections = &mut server.connections;
            connections.retain(|connection| connection.protocol == ProtocolConfig::Tcp);
        }
    }
    if settings.rotate && !servers.is_empty() {
        let first = rand::rng().random_range(0..servers.len());
        servers.rotate_left(first);
    }
    if !settings.search {
        config.domain = None;
        config.search.clear();
    }
    let provider = TokioRuntimeProvider::default();
    Ok(TokioResolver::builder_with_config(config, provider).with_options(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_need_no_resolver_and_names_must_be_names() {
        for (host, expected) in [("10.0.0.1", "10.0.0.1:7"), ("fd00::1", "[fd00::1]:7")] {
            let found = addresses(host, 7).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
        let error = addresses("a..b", 7).await.unwrap_err().to_string();
        assert!(error.contains("\"a..b\" is no DNS name"), "{error}");
    }

    #[test]
    fn the_hosts_file_has_both_families() {
        let mut hosts = Hosts::default();
        let text = "# comment\n10.0.0.1 control.mesh.svc control\nfd00::1 control.mesh.svc\n";
        hosts.read_hosts_conf(text.as_bytes()).unwrap();
        for (name, expected) in [
            ("control.mesh.svc", vec!["10.0.0.1", "fd00::1"]),
            ("Control", vec!["10.0.0.1"]),
            ("other", vec![]),
        ] {
            let found = in_hosts(&hosts, &Name::from_str_relaxed(name).unwrap());
            let expected: Vec<IpAddr> = expected.iter().map(|each| each.parse().unwrap()).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
}
