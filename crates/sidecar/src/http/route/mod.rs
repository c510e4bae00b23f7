//! Which route takes a request, and what it makes of the path.

mod matching;
mod redirect;
mod rewrite;

use std::sync::Arc;

use smallvec::SmallVec;

pub use self::redirect::{write_https_location, write_location};
pub use self::rewrite::rewrite_path;
use crate::config::route::{
    ClusterChoice, Forward, RequireTls, Route, RouteTable, VirtualHost, WeightedCluster,
};
use crate::http::headers::Name;
use crate::http::message::RequestHead;

/// What a route table says about a request.
#[derive(Debug)]
pub enum RouteMatchResult<'a> {
    /// The first route that matches.
    Found {
        /// Its virtual host.
        virtual_host: &'a Arc<VirtualHost>,
        /// The route.
        route: &'a Arc<Route>,
    },
    /// The virtual host wants TLS: a redirect to [`write_https_location`] with status 301.
    NeedsTls,
    /// No virtual host, or none of its routes: 404 with the flag NR.
    NotFound,
}

impl RouteTable {
    /// Finds the route of a request. `random` is the request's own random number, which decides
    /// fractions here and weights in [`Forward::choose_cluster`]; `tls` tells whether the client
    /// used TLS, as far as is known (`x-forwarded-proto`).
    pub fn route(&self, request: &RequestHead, random: u64, tls: bool) -> RouteMatchResult<'_> {
        let Some(virtual_host) = self.virtual_host(&request.authority) else {
            return RouteMatchResult::NotFound;
        };
        let needs_tls = match virtual_host.require_tls {
            RequireTls::No => false,
            RequireTls::ExternalOnly => !is_internal(request),
            RequireTls::All => true,
        };
        if needs_tls && !tls {
            return RouteMatchResult::NeedsTls;
        }
        let target = matching::Target::new(request, self.ignore_path_parameters);
        virtual_host
            .routes
            .iter()
            .find(|route| route.matcher.matches(&target, random))
            .map_or(RouteMatchResult::NotFound, |route| {
                RouteMatchResult::Found {
                    virtual_host,
                    route,
                }
            })
    }

    /// The virtual host of an authority: exact, then the longest suffix wildcard, then the longest
    /// prefix wildcard, then `*`.
    pub fn virtual_host(&self, authority: &[u8]) -> Option<&Arc<VirtualHost>> {
        let host = if self.ignore_port {
            without_port(authority)
        } else {
            authority
        };
        let index = if host.iter().any(u8::is_ascii_uppercase) {
            let mut lower: SmallVec<[u8; 128]> = SmallVec::from_slice(host);
            lower.make_ascii_lowercase();
            self.virtual_host_index(&lower)
        } else {
            self.virtual_host_index(host)
        };
        self.virtual_hosts.get(index?)
    }

    fn virtual_host_index(&self, host: &[u8]) -> Option<usize> {
        if !self.exact.is_empty()
            && let Some(index) = self.exact.get(host)
        {
            return Some(*index);
        }
        // A wildcard stands for at least one character.
        let suffix =
            |(suffix, _): &&(Box<[u8]>, usize)| host.len() > suffix.len() && host.ends_with(suffix);
        let prefix = |(prefix, _): &&(Box<[u8]>, usize)| {
            host.len() > prefix.len() && host.starts_with(prefix)
        };
        let wildcard = self.suffixes.iter().find(suffix);
        wildcard
            .or_else(|| self.prefixes.iter().find(prefix))
            .map(|(_, index)| *index)
            .or(self.any)
    }
}

impl Forward {
    /// The cluster that this request goes to, and what else its share has. `None` where a
    /// header should name the cluster and does not, which is answered as an unknown cluster is.
    pub fn choose_cluster<'f, 'r>(
        &'f self,
        request: &'r RequestHead,
        random: u64,
    ) -> Option<ChosenCluster<'f, 'r>> {
        match &self.cluster {
            ClusterChoice::Named(name) => Some(ChosenCluster::Configured { name, share: None }),
            ClusterChoice::Weighted { parts, total } => {
                let mut at = random % u64::from((*total).max(1));
                for part in parts {
                    let weight = u64::from(part.weight);
                    if at < weight {
                        return Some(ChosenCluster::Configured {
                            name: &part.name,
                            share: Some(part),
                        });
                    }
                    at -= weight;
                }
                None
            }
            ClusterChoice::Header(name) => request
                .headers
                .named(name)
                .next()
                .and_then(|value| std::str::from_utf8(value).ok())
                .filter(|value| !value.is_empty())
                .map(ChosenCluster::Requested),
        }
    }
}

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub enum ChosenCluster<'f, 'r> {
    /// By configuration.
    Configured {
        /// The cluster.
        name: &'f Arc<str>,
        /// Its share, if it was chosen by weight.
        share: Option<&'f WeightedCluster>,
    },
    /// By `cluster_header`.
    Requested(&'r str),
}

impl ChosenCluster<'_, '_> {
    /// The cluster's name.
    pub fn name(&self) -> &str {
        match self {
            ChosenCluster::Configured { name, .. } => name,
            ChosenCluster::Requested(name) => name,
        }
    }
}

fn is_internal(request: &RequestHead) -> bool {
    request.headers.first(Name::XEnvoyInternal) == Some(b"true")
}

/// Splits an authority into its host (with an IPv6 literal's brackets) and `:port`, which may be
/// empty.
pub fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    let Some(colon) = memchr::memrchr(b':', authority) else {
        return (authority, b"");
    };
    let (host, port) = authority.split_at(colon);
    let bracketed = host.first() == Some(&b'[');
    let is_port = port[1..].iter().all(u8::is_ascii_digit)
        // Without brackets, a second colon means an IPv6 address and no port.
        && (if bracketed { host.last() == Some(&b']') } else { !host.contains(&b':') });
    if is_port {
        (host, port)
    } else {
        (authority, b"")
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    split_port(authority).0
}

#[cfg(test)]
mod tests;
