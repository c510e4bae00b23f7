//! Which route takes a request, and what it makes of the path.

mod choice;
pub mod domains;
mod hash;
pub mod index;
mod matching;
mod redirect;
mod rewrite;
pub mod stats;

use std::sync::Arc;

pub use self::choice::Chosen;
pub use self::matching::split_query;
pub use self::redirect::{write_https_location, write_location, write_own_location};
pub use self::rewrite::rewrite_path;
use crate::config::route::{RequireTls, Route, RouteTable, VirtualHost};
use crate::http::headers::Name;
use crate::http::message::RequestHead;
use crate::matching::RequestInputs;
use crate::network::state::ConnectionState;

/// What routes look at.
pub struct Facts<'a> {
    /// The head, with the headers as the next hop is told them.
    pub request: &'a RequestHead,
    /// The request's own random number, which decides fractions here and weights in
    /// [`Forward::choose`](crate::config::route::Forward::choose).
    pub random: u64,
    /// The client's certificate.
    pub certificate: ClientCertificate,
    /// What network filters left on the connection.
    pub state: &'a ConnectionState,
}

/// Whether the client of a TLS connection has a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificate {
    /// It showed one.
    pub presented: bool,
    /// It was verified.
    pub validated: bool,
}

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
    /// Finds the route of a request.
    pub fn route(&self, facts: &Facts<'_>) -> RouteMatchResult<'_> {
        let Some(virtual_host) = self.virtual_host(facts.request) else {
            return RouteMatchResult::NotFound;
        };
        if virtual_host.needs_tls(facts.request) {
            return RouteMatchResult::NeedsTls;
        }
        virtual_host
            .route(facts, self.ignore_path_parameters)
            .map_or(RouteMatchResult::NotFound, |route| {
                RouteMatchResult::Found {
                    virtual_host,
                    route,
                }
            })
    }

    /// The virtual host of a request.
    pub fn virtual_host(&self, request: &RequestHead) -> Option<&Arc<VirtualHost>> {
        let host = match &self.host_header {
            None => &request.authority[..],
            Some(name) if **name == *b":authority" || **name == *b"host" => &request.authority,
            Some(name) => request.headers.named(name).next()?,
        };
        let index = self.domains.find(host, self.ignore_port)?;
        self.virtual_hosts.get(index)
    }
}

impl VirtualHost {
    fn needs_tls(&self, request: &RequestHead) -> bool {
        let wanted = match self.require_tls {
            RequireTls::No => false,
            RequireTls::ExternalOnly => !is_internal(request),
            RequireTls::All => true,
        };
        wanted && proto(request) != b"https"
    }

    /// The first route that matches.
    fn route(&self, facts: &Facts<'_>, ignore_path_parameters: bool) -> Option<&Arc<Route>> {
        let target = matching::Target::new(facts, ignore_path_parameters);
        if let Some(matcher) = &self.matcher {
            let routes = matcher.find(&RequestInputs(facts.request))?;
            return routes.iter().find(|route| route.matcher.matches(&target));
        }
        let matches = |index: usize| {
            self.routes
                .get(index)
                .is_some_and(|route| route.matcher.matches(&target))
        };
        let found = self.index.find(target.path.unwrap_or_default(), matches)?;
        self.routes.get(found)
    }
}

/// How the client came, as far as is known.
fn proto(request: &RequestHead) -> &[u8] {
    let told = request.headers.first(Name::XForwardedProto);
    told.unwrap_or(request.scheme.as_bytes())
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

#[cfg(test)]
mod measure;
#[cfg(test)]
mod tests;
