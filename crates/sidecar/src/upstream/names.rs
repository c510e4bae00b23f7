//! The endpoints of a dynamic forward proxy on one worker: one for each name that clients asked for
//! lately. What is known of a name costs no lookup; it is looked up again while it is used.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::OnceCell;

use super::error::UpstreamError;
use super::host::Host;
use super::shared::original_destination;
use super::target::{ClusterContext, Target};
use crate::config::address::Address;
use crate::config::dns::Name;
use crate::config::dynamic_forward_proxy::{DnsCache, DynamicHost};
use crate::config::endpoint::Endpoint;
use crate::discovery::resolve::{Found, resolve};

type Answer = Result<Rc<Host>, UpstreamError>;

/// The names.
pub struct Names {
    cache: Arc<DnsCache>,
    context: Rc<ClusterContext>,
    known: RefCell<HashMap<Name, Known>>,
    /// Names that are being looked up for requests that wait.
    asked: RefCell<HashMap<Name, Rc<OnceCell<Answer>>>>,
}

struct Known {
    host: Rc<Host>,
    /// Until when the answer is good.
    until: Instant,
    /// It is being looked up again.
    refreshing: bool,
}

impl Names {
    /// None yet.
    pub fn new(cache: Arc<DnsCache>, context: Rc<ClusterContext>) -> Rc<Self> {
        Rc::new(Names {
            cache,
            context,
            known: RefCell::default(),
            asked: RefCell::default(),
        })
    }

    /// The endpoint of a name.
    ///
    /// # Errors
    /// It cannot be looked up, or too many are.
    pub async fn host(self: &Rc<Self>, asked: &DynamicHost) -> Answer {
        let default_port = if self.cache.has_tls { 443 } else { 80 };
        let name = Name {
            host: asked.host.clone(),
            port: asked.port.unwrap_or(default_port),
        };
        if let Some(host) = self.known(&name) {
            return Ok(host);
        }
        if self.cache.has_tls && name.host.parse::<IpAddr>().is_ok() {
            // Any server with a certificate of the same authority could pose as it.
            return Err(UpstreamError::Tls {
                reason: "the host is an address, which has no name to verify".into(),
            });
        }
        Box::pin(self.look_up(name)).await
    }

    /// The endpoint of a name that is known. One whose answer has run out is looked up again, once;
    /// one that was not used for long is not taken for known.
    fn known(self: &Rc<Self>, name: &Name) -> Option<Rc<Host>> {
        let now = Instant::now();
        let mut all = self.known.borrow_mut();
        let known = all.get_mut(name)?;
        if now >= known.until {
            if now >= known.until + self.cache.refresh.normal {
                return None;
            }
            if !std::mem::replace(&mut known.refreshing, true) {
                tokio::task::spawn_local(refresh(self.clone(), name.clone()));
            }
        }
        known.host.touch();
        Some(known.host.clone())
    }

    async fn look_up(self: &Rc<Self>, name: Name) -> Answer {
        let cell = {
            let mut asked = self.asked.borrow_mut();
            let waiting: usize = asked.values().map(|cell| Rc::strong_count(cell) - 1).sum();
            if waiting >= self.cache.max_pending {
                return Err(UpstreamError::NamesPending);
            }
            let known = self.known.borrow();
            let is_new = !known.contains_key(&name) && !asked.contains_key(&name);
            if is_new && known.len() + asked.len() >= self.cache.max_hosts {
                return Err(UpstreamError::TooManyNames);
            }
            asked.entry(name.clone()).or_default().clone()
        };
        let _asking = Asking {
            names: self.clone(),
            name: name.clone(),
        };
        let found =
            cell.get_or_init(async || self.ask(&name).await.map(|found| self.keep(&name, found)));
        found.await.clone()
    }

    /// Asks the DNS; answers addresses that may be connected to, at least one.
    async fn ask(&self, name: &Name) -> Result<Found, UpstreamError> {
        let looking = resolve(&name.host, &self.cache.lookup);
        let found = match self.cache.timeout {
            None => looking.await,
            Some(limit) => match tokio::time::timeout(limit, looking).await {
                Ok(found) => found,
                Err(_) => return Err(failed("resolve_timeout")),
            },
        };
        let mut found = found.map_err(|error| {
            tracing::debug!(name = %name.host, %error, "a client's host cannot be resolved");
            failed(if error.says_no() {
                "no_such_name"
            } else {
                "resolve_failed"
            })
        })?;
        let any = !found.addresses.is_empty();
        if let Some(rule) = &self.cache.addresses {
            found.addresses.retain(|address| rule.admits(*address));
        }
        match found.addresses.is_empty() {
            true if any => Err(failed("address_denied")),
            true => Err(failed("no_address")),
            false => Ok(found),
        }
    }

    /// Takes over an answer. What is still right keeps its connections.
    fn keep(&self, name: &Name, found: Found) -> Rc<Host> {
        let rates = &self.cache.refresh;
        let good_for = found.ttl.unwrap_or(rates.normal).max(rates.least);
        let endpoint = endpoint(name, &found.addresses);
        let mut all = self.known.borrow_mut();
        let kept = all.remove(name).map(|known| known.host);
        let host = match &kept {
            Some(host) if host.target().serves(&endpoint) => host.clone(),
            _ => Host::new(Target::new(&self.context, &endpoint)),
        };
        host.touch();
        let known = Known {
            host: host.clone(),
            until: Instant::now() + good_for,
            refreshing: false,
        };
        all.insert(name.clone(), known);
        drop(all);
        // Connections that close call back.
        drop(kept);
        host
    }

    /// Forgets names that were not asked for in `host_ttl`, and answers their endpoints for the
    /// caller to drop. A sweep is about a second.
    pub fn forget_unused(&self) -> Vec<Rc<Host>> {
        let sweeps = u32::try_from(self.cache.host_ttl.as_secs()).unwrap_or(u32::MAX);
        let mut all = self.known.borrow_mut();
        let unused = all.extract_if(|_, known| known.host.age() >= sweeps.max(1));
        unused.map(|(_, known)| known.host).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.borrow().is_empty()
    }

    /// All endpoints.
    pub fn hosts(&self) -> Vec<Rc<Host>> {
        self.known
            .borrow()
            .values()
            .map(|known| known.host.clone())
            .collect()
    }
}

async fn refresh(names: Rc<Names>, name: Name) {
    match names.ask(&name).await {
        Ok(found) => drop(names.keep(&name, found)),
        // The old answer serves until it is too old.
        Err(_) => {
            if let Some(known) = names.known.borrow_mut().get_mut(&name) {
                known.refreshing = false;
            }
        }
    }
}

/// Somebody waits for an answer: the last one to go takes the question away.
struct Asking {
    names: Rc<Names>,
    name: Name,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut asked = self.names.asked.borrow_mut();
        // Ours, which goes with the future that holds this, and that of the map.
        if asked
            .get(&self.name)
            .is_some_and(|cell| Rc::strong_count(cell) <= 2)
        {
            asked.remove(&self.name);
        }
    }
}

fn failed(why: &'static str) -> UpstreamError {
    UpstreamError::Unresolved { why }
}

fn endpoint(name: &Name, addresses: &[IpAddr]) -> Endpoint {
    let at = |address: &IpAddr| SocketAddr::new(*address, name.port);
    let first = addresses
        .first()
        .map(at)
        .unwrap_or_else(|| SocketAddr::new([0, 0, 0, 0].into(), 0));
    Endpoint {
        additional_addresses: addresses.iter().skip(1).map(at).collect(),
        hostname: name.host.clone(),
        ..original_destination(Address::Socket(first))
    }
}
