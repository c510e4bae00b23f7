//! Names of discovery servers and of the certificate authority to addresses.
//!
//! Not by the C library's `getaddrinfo`: a static program in an image without a C library has none of
//! the parts that it loads at run time. `/etc/hosts` is asked first and, as there, alone if it has
//! the name; else the servers, search domains and options of `/etc/resolv.conf`. Both are read at
//! each use, which is each connection to a control plane: so they may change, and nothing of it takes
//! memory in between.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use hickory_resolver::net::NetError;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};

/// How long a name may take, over all search domains: a connection is tried again anyway.
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
    #[error("cannot resolve {name}: no answer within {TIMEOUT:?}")]
    Timeout {
        /// Which name.
        name: String,
    },
}

impl From<ResolveError> for std::io::Error {
    fn from(error: ResolveError) -> Self {
        std::io::Error::other(error)
    }
}

/// All addresses of `host`, which may be one itself, IPv4 first; never none.
///
/// # Errors
/// [`ResolveError`]
pub async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let with_port = |address: IpAddr| SocketAddr::new(address, port);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![with_port(address)]);
    }
    let name = Name::from_str_relaxed(host).map_err(|error| ResolveError::Name {
        name: host.to_owned(),
        reason: error.to_string(),
    })?;
    // A pod without the file has no names of its own.
    let hosts = Hosts::from_system().unwrap_or_default();
    let known = in_hosts(&hosts, &name);
    if !known.is_empty() {
        return Ok(known.into_iter().map(with_port).collect());
    }
    drop(hosts);
    let looked_up = tokio::time::timeout(TIMEOUT, by_server(host, name)).await;
    let found = looked_up.map_err(|_| ResolveError::Timeout {
        name: host.to_owned(),
    })??;
    Ok(found.into_iter().map(with_port).collect())
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

/// What the DNS says.
async fn by_server(host: &str, name: Name) -> Result<Vec<IpAddr>, ResolveError> {
    let settings = |source| ResolveError::Settings {
        name: host.to_owned(),
        source: Box::new(source),
    };
    let mut builder = TokioResolver::builder_tokio().map_err(settings)?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // It is dropped after this one question.
    options.cache_size = 1;
    let resolver = builder.build().map_err(settings)?;
    let found = resolver.lookup_ip(name).await;
    let found = found.map_err(|source| ResolveError::Lookup {
        name: host.to_owned(),
        source: Box::new(source),
    })?;
    let mut addresses: Vec<IpAddr> = found.iter().collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
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
