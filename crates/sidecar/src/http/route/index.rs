//! Which routes of a virtual host come in question for a path.
//!
//! Routes are tried in order, and the first that matches takes the request. Where there are many,
//! most are a literal path or prefix that a few binary searches in one small array find, and the
//! routes themselves, which lie scattered in memory, are touched only where they may match.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::config::route::{PathMatch, Route};

/// Up to so many routes are tried one after another.
const FEW: usize = 4;

/// The index of one virtual host.
#[derive(Debug, Default)]
pub struct RouteIndex {
    /// The keys of literal paths and prefixes, sorted, and behind them their routes in the same
    /// order: one small piece of memory.
    literals: Box<[u32]>,
    /// The lengths of the prefixes among them, shortest first.
    prefix_lengths: Box<[u32]>,
    /// The longest literal.
    longest: usize,
    /// Routes that are to be tried whatever the path is, in order.
    others: Box<[u32]>,
}

/// A text of which only the beginning matters (a prefix) or all of it, by its hash. Two texts with
/// the same key cost one comparison more and no mistake, since each candidate is looked at.
fn key(hash: u64, length: usize, exact: bool) -> u32 {
    let length = (length as u32) << 1 | u32::from(exact);
    (hash >> 32) as u32 ^ length.wrapping_mul(0x9e37_79b1)
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;

fn add(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl RouteIndex {
    /// Files the routes of one virtual host.
    pub fn new(routes: &[Arc<Route>]) -> Self {
        if routes.len() <= FEW {
            return RouteIndex {
                others: (0..routes.len() as u32).collect(),
                ..RouteIndex::default()
            };
        }
        let mut index = RouteIndex::default();
        let (mut literals, mut lengths, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for (number, route) in (0..).zip(routes) {
            let (text, exact) = match &route.matcher.path {
                PathMatch::Exact(text) if route.matcher.case_sensitive => (text, true),
                PathMatch::Prefix(text) | PathMatch::SeparatedPrefix(text)
                    if route.matcher.case_sensitive =>
                {
                    (text, false)
                }
                _ => {
                    others.push(number);
                    continue;
                }
            };
            if !exact {
                lengths.push(text.len() as u32);
            }
            index.longest = index.longest.max(text.len());
            let hash = text.iter().fold(SEED, |hash, byte| add(hash, *byte));
            literals.push((key(hash, text.len(), exact), number));
        }
        literals.sort_unstable();
        lengths.sort_unstable();
        lengths.dedup();
        let keys = literals.iter().map(|(key, _)| *key);
        let routes = literals.iter().map(|(_, route)| *route);
        index.literals = keys.chain(routes).collect();
        index.prefix_lengths = lengths.into();
        index.others = others.into();
        index
    }

    /// The first route, in their order, that may match this path and does.
    pub fn find(&self, path: &[u8], mut matches: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut literals = self.candidates(path).into_iter().peekable();
        let mut others = self.others.iter().copied().peekable();
        loop {
            let next = match (literals.peek(), others.peek()) {
                (None, None) => return None,
                (Some(literal), Some(other)) if other < literal => others.next(),
                (Some(_), _) => literals.next(),
                (None, Some(_)) => others.next(),
            };
            let route = next? as usize;
            if matches(route) {
                return Some(route);
            }
        }
    }

    /// The routes whose literal is this path or its beginning, in order.
    fn candidates(&self, path: &[u8]) -> SmallVec<[u32; 16]> {
        let mut found = SmallVec::new();
        if self.literals.is_empty() {
            return found;
        }
        let mut hash = SEED;
        let mut hashed = 0;
        for length in &*self.prefix_lengths {
            let length = *length as usize;
            let Some(more) = path.get(hashed..length) else {
                break;
            };
            hash = more.iter().fold(hash, |hash, byte| add(hash, *byte));
            hashed = length;
            self.of_key(key(hash, length, false), &mut found);
        }
        if path.len() <= self.longest {
            hash = path[hashed..]
                .iter()
                .fold(hash, |hash, byte| add(hash, *byte));
            self.of_key(key(hash, path.len(), true), &mut found);
        }
        found.sort_unstable();
        found
    }

    fn of_key(&self, key: u32, found: &mut SmallVec<[u32; 16]>) {
        let (keys, routes) = self.literals.split_at(self.literals.len() / 2);
        let first = keys.partition_point(|other| *other < key);
        let same = keys.iter().zip(routes).skip(first);
        let same = same.take_while(|(other, _)| **other == key);
        found.extend(same.map(|(_, route)| *route));
    }
}

#[cfg(test)]
mod tests {
    use crate::config::build::testing::route_table;
    use crate::http::message::RequestHead;
    use crate::http::route::{ClientCertificate, Facts, RouteMatchResult, matching};
    use crate::network::state::ConnectionState;

    /// Every table of these kinds of routes finds what trying one route after another finds.
    #[test]
    fn an_index_finds_the_first_route_that_matches() {
        let state = ConnectionState::default();
        let mut seed = 7_u32;
        let mut random = |below: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % below
        };
        for _ in 0..60 {
            let text = |random: &mut dyn FnMut(u32) -> u32| {
                let segments = 1 + random(3);
                (0..segments)
                    .map(|_| ["/a", "/b", "/ab", "/A", "/"][random(5) as usize])
                    .collect::<String>()
            };
            let mut routes = String::new();
            for number in 0..random(40) {
                let path = text(&mut random);
                let matcher = match random(6) {
                    0 | 1 => format!("prefix: {path}"),
                    2 => format!("path: {path}"),
                    3 if !path.ends_with('/') => format!("path_separated_prefix: {path}"),
                    4 => format!("prefix: {path}, case_sensitive: false"),
                    _ => format!("safe_regex: {{regex: '{path}.*'}}"),
                };
                routes.push_str(&format!(
                    "{{name: r{number}, match: {{{matcher}}}, route: {{cluster: c}}}}, "
                ));
            }
            let table = route_table(&format!(
                "virtual_hosts: [{{name: a, domains: ['*'], routes: [{routes}]}}]"
            ));
            let host = &table.virtual_hosts[0];
            for _ in 0..50 {
                let mut request = RequestHead::new();
                request.path = text(&mut random).into_bytes();
                let facts = Facts {
                    request: &request,
                    random: 0,
                    certificate: ClientCertificate::default(),
                    state: &state,
                };
                let target = matching::Target::new(&facts, false);
                let mut all = host.routes.iter();
                let first = all.find(|route| route.matcher.matches(&target));
                let found = match table.route(&facts) {
                    RouteMatchResult::Found { route, .. } => Some(route),
                    _ => None,
                };
                let name = |route: Option<&std::sync::Arc<super::Route>>| {
                    route.map(|route| route.name.to_string())
                };
                let path = request.path.escape_ascii();
                assert_eq!(name(found), name(first), "{path} in {routes}");
            }
        }
    }
}
