//! Which filter chain takes a connection.
//!
//! The rule is Envoy's (API reference, `FilterChainMatch`): nine criteria are looked at in a fixed
//! order; at each step only the chains that name the most specific value stay in the running, and
//! there is no way back. So a chain can lose the connection to a more specific one that then
//! matches nothing, in which case the default chain takes it.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::listener::{FilterChain, SourceType};
use crate::matching::{ConnectionInputs, Tree};

/// The chains of one listener, arranged for the decision. Finding one costs a few hash look-ups,
/// however many chains there are.
#[derive(Debug, Default)]
pub struct FilterChainIndex {
    ports: Keyed<u16, Destinations>,
    /// `filter_chain_matcher`, which decides instead.
    matcher: Option<Tree<Arc<FilterChain>>>,
    default: Option<Arc<FilterChain>>,
}

type Destinations = Prefixes<ServerNames>;
type ServerNames = Keyed<Box<str>, TransportProtocols>;
type TransportProtocols = Keyed<Box<str>, ApplicationProtocols>;
type ApplicationProtocols = Keyed<Box<[u8]>, DirectSources>;
type DirectSources = Prefixes<SourceTypes>;
type Sources = Prefixes<SourcePorts>;
type SourcePorts = Keyed<u16, Option<Arc<FilterChain>>>;

/// What is known about a connection when its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct MatchInput<'a, Protocol> {
    /// Where the client was going: the original destination, if it was recovered. `None`: to a Unix
    /// socket.
    pub destination: Option<SocketAddr>,
    /// The server name of the ClientHello, if tls_inspector saw one. Any case.
    pub server_name: Option<&'a str>,
    /// `tls` or `raw_buffer`, as tls_inspector found.
    pub transport_protocol: &'a str,
    /// The protocols of the ClientHello's ALPN in the client's order, or those that http_inspector
    /// found (`http/1.0`, `http/1.1`, `h2c`).
    pub application_protocols: &'a [Protocol],
    /// The other end of the socket.
    pub direct_source: Option<SocketAddr>,
    /// The client's address: the same, unless a listener filter told another.
    pub source: Option<SocketAddr>,
}

impl<'a, Protocol> MatchInput<'a, Protocol> {
    /// The same of a client that speaks these protocols.
    pub fn speaking<Other>(&self, protocols: &'a [Other]) -> MatchInput<'a, Other> {
        MatchInput {
            application_protocols: protocols,
            destination: self.destination,
            server_name: self.server_name,
            transport_protocol: self.transport_protocol,
            direct_source: self.direct_source,
            source: self.source,
        }
    }
}

/// What a Unix socket has for prefixes of IP addresses: nothing but those that are all of IPv4.
const NO_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::BROADCAST);

fn ip(address: Option<SocketAddr>) -> IpAddr {
    address.map_or(NO_ADDRESS, |address| address.ip().to_canonical())
}

fn port(address: Option<SocketAddr>) -> u16 {
    address.map_or(0, |address| address.port())
}

/// Two chains want the same connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Index of the later chain of the two.
    pub chain: usize,
    /// Index of the one that was there.
    pub with: usize,
}

impl FilterChainIndex {
    /// Has `matcher` choose.
    pub fn by_matcher(matcher: Tree<Arc<FilterChain>>, default: Option<Arc<FilterChain>>) -> Self {
        FilterChainIndex {
            matcher: Some(matcher),
            default,
            ..Self::default()
        }
    }

    /// Arranges `chains` by their matches.
    ///
    /// # Errors
    ///
    /// The first pair of chains whose criteria are equal, or overlap in every step.
    pub fn new(
        chains: &[Arc<FilterChain>],
        default: Option<Arc<FilterChain>>,
    ) -> Result<Self, Conflict> {
        let mut index = FilterChainIndex {
            default,
            ..Self::default()
        };
        for (position, chain) in chains.iter().enumerate() {
            index.insert(chain).map_err(|other| Conflict {
                chain: position,
                with: chains
                    .iter()
                    .position(|chain| Arc::ptr_eq(chain, &other))
                    .unwrap_or(position),
            })?;
        }
        Ok(index)
    }

    /// The chain that takes the connection; `None`: it is closed.
    pub fn find<Protocol: AsRef<[u8]>>(
        &self,
        input: &MatchInput<'_, Protocol>,
    ) -> Option<&Arc<FilterChain>> {
        let found = match &self.matcher {
            None => self.specific(input),
            Some(matcher) => matcher.find(&ConnectionInputs(input)),
        };
        found.or(self.default.as_ref())
    }

    fn specific<Protocol: AsRef<[u8]>>(
        &self,
        input: &MatchInput<'_, Protocol>,
    ) -> Option<&Arc<FilterChain>> {
        let (destination, source) = (ip(input.destination), ip(input.source));
        let names = self
            .ports
            .find(&port(input.destination))?
            .find(destination)?;
        find_server_name(names, input.server_name.unwrap_or_default())?
            .find(input.transport_protocol)?
            .find_first(input.application_protocols)?
            .find(ip(input.direct_source))?
            .find(source, destination)?
            .find(source)?
            .find(&port(input.source))?
            .as_ref()
    }

    fn insert(&mut self, chain: &Arc<FilterChain>) -> Result<(), Arc<FilterChain>> {
        let matcher = &chain.matcher;
        let destinations = self.ports.entry(matcher.destination_port);
        for_each(&matcher.destinations, |prefix| {
            let names = destinations.entry(prefix.copied());
            for_each(&matcher.server_names, |name| {
                let protocols = names
                    .entry(name.cloned())
                    .entry(non_empty(&matcher.transport_protocol));
                for_each(&matcher.application_protocols, |protocol| {
                    let sources = protocols.entry(protocol.cloned());
                    for_each(&matcher.direct_sources, |prefix| {
                        insert_source(sources.entry(prefix.copied()), chain)
                    })
                })
            })
        })
    }
}

fn insert_source(
    types: &mut SourceTypes,
    chain: &Arc<FilterChain>,
) -> Result<(), Arc<FilterChain>> {
    let matcher = &chain.matcher;
    let sources = types.entry(matcher.source_type);
    for_each(&matcher.sources, |prefix| {
        let ports = sources.entry(prefix.copied());
        for_each(&matcher.source_ports, |port| {
            match ports.entry(port.copied()) {
                Some(other) => Err(Arc::clone(other)),
                free => {
                    *free = Some(Arc::clone(chain));
                    Ok(())
                }
            }
        })
    })
}

/// Calls `each` with every item; with `None` where there is none, which means any.
fn for_each<T, E>(items: &[T], mut each: impl FnMut(Option<&T>) -> Result<(), E>) -> Result<(), E> {
    if items.is_empty() {
        return each(None);
    }
    items.iter().try_for_each(|item| each(Some(item)))
}

fn non_empty(text: &str) -> Option<Box<str>> {
    (!text.is_empty()).then(|| text.into())
}

/// The exact name, then each parent domain's wildcard from the longest on, then chains that name
/// none. Names are kept in lower case, and wildcards without their `*`.
fn find_server_name<'a>(names: &'a ServerNames, name: &str) -> Option<&'a TransportProtocols> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return find_server_name(names, &name.to_ascii_lowercase());
    }
    if !names.exact.is_empty()
        && let Some(found) = names.exact.get(name)
    {
        return Some(found);
    }
    // A dot at the very start leaves no label for the wildcard to stand for.
    for (dot, _) in name.match_indices('.').filter(|(dot, _)| *dot > 0) {
        if let Some(found) = names.exact.get(&name[dot..]) {
            return Some(found);
        }
    }
    names.any.as_deref()
}

/// A step that compares for equality.
#[derive(Debug)]
struct Keyed<K, T> {
    exact: HashMap<K, T>,
    any: Option<Box<T>>,
}

impl<K, T> Default for Keyed<K, T> {
    fn default() -> Self {
        Keyed {
            exact: HashMap::new(),
            any: None,
        }
    }
}

impl<K: Hash + Eq, T: Default> Keyed<K, T> {
    fn entry(&mut self, key: Option<K>) -> &mut T {
        match key {
            Some(key) => self.exact.entry(key).or_default(),
            None => self.any.get_or_insert_default(),
        }
    }

    fn find<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&T>
    where
        K: std::borrow::Borrow<Q>,
    {
        if !self.exact.is_empty()
            && let Some(found) = self.exact.get(key)
        {
            return Some(found);
        }
        self.any.as_deref()
    }
}

impl ApplicationProtocols {
    fn find_first<Protocol: AsRef<[u8]>>(&self, offered: &[Protocol]) -> Option<&DirectSources> {
        if !self.exact.is_empty() {
            let found = offered
                .iter()
                .find_map(|protocol| self.exact.get(protocol.as_ref()));
            if found.is_some() {
                return found;
            }
        }
        self.any.as_deref()
    }
}

/// A step that looks for the longest prefix.
#[derive(Debug)]
struct Prefixes<T> {
    /// All lengths that occur, longest first; IPv4 and IPv6 mixed.
    lengths: Vec<u8>,
    exact: HashMap<IpNet, T>,
    any: Option<Box<T>>,
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Prefixes {
            lengths: Vec::new(),
            exact: HashMap::new(),
            any: None,
        }
    }
}

impl<T: Default> Prefixes<T> {
    fn entry(&mut self, prefix: Option<IpNet>) -> &mut T {
        let Some(prefix) = prefix.map(|prefix| prefix.trunc()) else {
            return self.any.get_or_insert_default();
        };
        let length = prefix.prefix_len();
        if let Err(at) = self.lengths.binary_search_by(|other| length.cmp(other)) {
            self.lengths.insert(at, length);
        }
        self.exact.entry(prefix).or_default()
    }

    fn find(&self, address: IpAddr) -> Option<&T> {
        self.lengths
            .iter()
            .filter_map(|length| IpNet::new(address, *length).ok())
            .find_map(|prefix| self.exact.get(&prefix.trunc()))
            .or(self.any.as_deref())
    }
}

/// The step of `source_type`.
#[derive(Debug, Default)]
struct SourceTypes {
    any: Option<Sources>,
    local: Option<Sources>,
    external: Option<Sources>,
}

impl SourceTypes {
    fn entry(&mut self, kind: SourceType) -> &mut Sources {
        match kind {
            SourceType::Any => &mut self.any,
            SourceType::SameIpOrLoopback => &mut self.local,
            SourceType::External => &mut self.external,
        }
        .get_or_insert_default()
    }

    fn find(&self, source: IpAddr, destination: IpAddr) -> Option<&Sources> {
        if is_local(source, destination) {
            &self.local
        } else {
            &self.external
        }
        .as_ref()
        .or(self.any.as_ref())
    }
}

/// What Envoy calls a client on this machine: of 127.0.0.0/8 only 127.0.0.1.
pub fn is_local(source: IpAddr, destination: IpAddr) -> bool {
    source == Ipv4Addr::LOCALHOST || source == Ipv6Addr::LOCALHOST || source == destination
}

#[cfg(test)]
#[path = "filter_chain_match_tests.rs"]
mod tests;
