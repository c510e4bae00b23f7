//! A cluster on one worker.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::SmallRng;
use tokio::task::AbortHandle;

use super::aggregate::Aggregate;
use super::breakers::{Permit, Resource};
use super::client::Client;
use super::clusters::Directory;
use super::connect;
use super::endpoints::{Assigned, Destinations, Replaced};
use super::error::UpstreamError;
use super::exchange::Exchange;
use super::host::Host;
use super::lb::{Level, Tier};
use super::names::Names;
use super::pool::solitary;
use super::shared::ClusterShared;
use super::stats::ClusterStats;
use super::target::{ClusterContext, Target, TcpGuard};
use crate::config::cluster::{self, ClusterDiscovery, Priority};
use crate::config::dynamic_forward_proxy::DynamicHost;
use crate::config::endpoint::{Endpoint, HealthStatus, LoadAssignment};
use crate::discovery::slot::Slot;
use crate::http::message::Version;
use crate::tls::overrides::Overrides;
use crate::tls::stream::Stream;

/// How often idle connections are looked through, unless the idle timeout is short.
const SWEEP: Duration = Duration::from_secs(1);

/// One cluster: finds an endpoint for a request and a connection to it.
pub struct Cluster {
    context: Rc<ClusterContext>,
    endpoints: RefCell<Endpoints>,
    random: Rc<RefCell<SmallRng>>,
    /// Whether this worker reports what is the same on all.
    reports: Cell<bool>,
    /// How often other endpoints were taken over.
    generation: Cell<u64>,
    drained: Cell<bool>,
    tending: AbortHandle,
}

enum Endpoints {
    Assigned(Arc<Slot<LoadAssignment>>, Assigned),
    Destinations(Destinations),
    Aggregate(Aggregate),
    Names(Rc<Names>),
}

/// What a request needs.
#[derive(Clone, Debug)]
pub struct ExchangeRequest {
    /// The version in which it came.
    pub downstream: Version,
    /// Where the client was connecting to, for ORIGINAL_DST clusters.
    pub original_destination: Option<SocketAddr>,
    /// The host that it asks for, for dynamic forward proxies.
    pub name: Option<Rc<DynamicHost>>,
    /// It asks for an upgrade: it needs an HTTP/1 connection of its own.
    pub upgrade: bool,
    /// It was sent on a connection that turned out to be dead: it wants a new one.
    pub fresh: bool,
    /// The client's connection.
    pub client: Client,
    /// Whose breakers count it.
    pub priority: Priority,
}

/// What a TCP connection needs.
#[derive(Clone, Copy, Debug)]
pub struct ConnectRequest<'a> {
    /// Where the client was connecting to, for ORIGINAL_DST clusters.
    pub original_destination: Option<SocketAddr>,
    /// The host that it asks for, for dynamic forward proxies.
    pub name: Option<&'a DynamicHost>,
    /// What the client's filters want of TLS.
    pub overrides: &'a Overrides,
    /// The client's connection.
    pub client: &'a Client,
}

/// A TCP connection to an endpoint.
pub struct TcpUpstream {
    /// Its bytes.
    pub stream: Stream,
    /// Where it goes.
    pub endpoint: Arc<Endpoint>,
    /// Counts it: keep this as long as the stream.
    pub guard: TcpGuard,
}

impl Cluster {
    /// The cluster on this worker, and the task that looks after its idle connections.
    pub(super) fn new(
        shared: Arc<ClusterShared>,
        stats: Rc<ClusterStats>,
        random: Rc<RefCell<SmallRng>>,
        directory: Weak<Directory>,
    ) -> Rc<Self> {
        let reports = shared.claim_reporting();
        let context = ClusterContext::new(shared, stats);
        let endpoints = match &context.config.discovery {
            ClusterDiscovery::Assignment { slot, .. } => {
                Endpoints::Assigned(slot.clone(), Assigned::default())
            }
            ClusterDiscovery::OriginalDestination => {
                Endpoints::Destinations(Destinations::default())
            }
            ClusterDiscovery::Aggregate(_) => Endpoints::Aggregate(Aggregate::new(directory)),
            ClusterDiscovery::Names(cache) => {
                Endpoints::Names(Names::new(cache.clone(), context.clone()))
            }
        };
        let cluster = Rc::new_cyclic(|me: &Weak<Cluster>| Cluster {
            tending: tokio::task::spawn_local(tend(me.clone(), context.clone())).abort_handle(),
            endpoints: RefCell::new(endpoints),
            context,
            random,
            reports: Cell::new(reports),
            generation: Cell::new(0),
            drained: Cell::new(false),
        });
        cluster.refresh();
        cluster
    }

    /// Its configuration.
    pub fn config(&self) -> &Arc<cluster::Cluster> {
        &self.context.config
    }

    /// Its stats on this worker.
    pub fn stats(&self) -> &ClusterStats {
        &self.context.stats
    }

    /// A place for one request on its way to an endpoint.
    ///
    /// Where a connection is idle this neither waits nor allocates. `chosen` gets the endpoint as
    /// soon as there is one, whether or not it can be reached.
    ///
    /// # Errors
    /// [`UpstreamError`]; nothing of the request was sent.
    pub async fn exchange(
        self: &Rc<Self>,
        want: ExchangeRequest,
        chosen: &mut Option<Arc<Endpoint>>,
    ) -> Result<Exchange, UpstreamError> {
        if let Some((member, tier)) = self.member()? {
            let exchange = Box::pin(member.exchange_of(Some(tier), want, chosen)).await;
            return exchange.map(|mut exchange| {
                exchange.charge(self.context.stats.clone());
                exchange
            });
        }
        self.exchange_of(None, want, chosen).await
    }

    async fn exchange_of(
        self: &Rc<Self>,
        tier: Option<Tier>,
        want: ExchangeRequest,
        chosen: &mut Option<Arc<Endpoint>>,
    ) -> Result<Exchange, UpstreamError> {
        if !want.fresh {
            self.drop_overload()?;
        }
        let (pool, target) = {
            let host = match self.names() {
                None => self.choose(want.original_destination, tier)?,
                Some(names) => self.named(&names, want.name.as_deref()).await?,
            };
            let pool = host.pool(want.downstream, want.priority, &want.client);
            (pool, host.target().clone())
        };
        *chosen = Some(target.endpoint.clone());
        if want.upgrade {
            return Box::pin(solitary(&target, want.priority, &want.client)).await;
        }
        if want.fresh {
            return Box::pin(pool.fresh()).await;
        }
        match pool.take_now().await {
            Some(outcome) => outcome,
            None => Box::pin(pool.wait()).await,
        }
    }

    /// A TCP connection to an endpoint. `chosen` gets the endpoint as soon as there is one, whether
    /// or not it can be reached.
    ///
    /// # Errors
    /// [`UpstreamError`]
    pub async fn connect(
        self: &Rc<Self>,
        want: ConnectRequest<'_>,
        chosen: &mut Option<Arc<Endpoint>>,
    ) -> Result<TcpUpstream, UpstreamError> {
        if let Some((member, tier)) = self.member()? {
            return Box::pin(member.connect_of(Some(tier), want, chosen)).await;
        }
        self.connect_of(None, want, chosen).await
    }

    async fn connect_of(
        self: &Rc<Self>,
        tier: Option<Tier>,
        want: ConnectRequest<'_>,
        chosen: &mut Option<Arc<Endpoint>>,
    ) -> Result<TcpUpstream, UpstreamError> {
        let host = match self.names() {
            None => self.choose(want.original_destination, tier)?,
            Some(names) => self.named(&names, want.name).await?,
        };
        let target = host.target().clone();
        *chosen = Some(target.endpoint.clone());
        let waiting = target.wait(Priority::Default)?;
        let Some(guard) = target.open(Weak::new(), Priority::Default, false) else {
            waiting.finish();
            return Err(UpstreamError::Overflow);
        };
        let connected = connect::connect(&target, &[], want.client, want.overrides).await;
        waiting.finish();
        let stream = connected.inspect_err(|error| {
            target.failed(error);
            self.context.stats.rq_pending_failure_eject.increment(1);
        })?;
        guard.connected();
        Ok(TcpUpstream {
            stream,
            endpoint: target.endpoint.clone(),
            guard: TcpGuard::new(guard),
        })
    }

    /// Counts a retry as long as the permit lives; `None` if there are too many.
    pub fn retry(&self, priority: Priority) -> Option<Permit> {
        let breakers = self.context.breakers(priority);
        let thresholds = &self.context.config.circuit_breakers[priority as usize];
        let permit = match &thresholds.retry_budget {
            Some(budget) => breakers.acquire_within(budget),
            None => breakers.acquire(Resource::Retries),
        };
        match &permit {
            Some(_) => self.context.stats.rq_retry.increment(1),
            None => self.context.stats.rq_retry_overflow.increment(1),
        }
        permit
    }

    /// Turns away a request of those that discovery wants turned away.
    fn drop_overload(&self) -> Result<(), UpstreamError> {
        let drops = match &*self.endpoints.borrow() {
            Endpoints::Assigned(slot, _) => slot.cell().load().as_ref().and_then(|a| a.drop),
            Endpoints::Destinations(_) | Endpoints::Names(_) | Endpoints::Aggregate(_) => None,
        };
        match drops {
            None => Ok(()),
            Some(part) if part >= 1.0 => Err(UpstreamError::Dropped { all: true }),
            Some(part) if self.random.borrow_mut().random_bool(part) => {
                Err(UpstreamError::Dropped { all: false })
            }
            Some(_) => Ok(()),
        }
    }

    /// Of a cluster of clusters: the one for this request, and what of it is to be used.
    fn member(&self) -> Result<Option<(Rc<Cluster>, Tier)>, UpstreamError> {
        let ClusterDiscovery::Aggregate(names) = &self.context.config.discovery else {
            return Ok(None);
        };
        let member = match &mut *self.endpoints.borrow_mut() {
            Endpoints::Aggregate(aggregate) => {
                let config = &self.context.config.load_balancing;
                aggregate.choose(names, config, &self.random)
            }
            _ => None,
        };
        if member.is_none() {
            self.context.stats.cx_none_healthy.increment(1);
        }
        member.ok_or(UpstreamError::NoHealthyUpstream).map(Some)
    }

    /// What there is of each priority.
    pub(super) fn levels(&self) -> Vec<Level> {
        match &*self.endpoints.borrow() {
            Endpoints::Assigned(_, assigned) => assigned.levels(&self.context),
            Endpoints::Destinations(_) | Endpoints::Names(_) | Endpoints::Aggregate(_) => {
                Vec::new()
            }
        }
    }

    /// The names of a dynamic forward proxy.
    fn names(&self) -> Option<Rc<Names>> {
        match &self.context.config.discovery {
            ClusterDiscovery::Names(_) => match &*self.endpoints.borrow() {
                Endpoints::Names(names) => Some(names.clone()),
                _ => None,
            },
            _ => None,
        }
    }

    /// The endpoint for a host that a client asks for; no filter has said which is no endpoint.
    async fn named(
        &self,
        names: &Rc<Names>,
        host: Option<&DynamicHost>,
    ) -> Result<Rc<Host>, UpstreamError> {
        match host {
            Some(host) => names.host(host).await,
            None => {
                self.context.stats.cx_none_healthy.increment(1);
                Err(UpstreamError::NoHealthyUpstream)
            }
        }
    }

    /// The endpoint for a request; `tier` is the part of the endpoints that it may be one of, where
    /// another cluster says so.
    pub(super) fn choose(
        &self,
        destination: Option<SocketAddr>,
        tier: Option<Tier>,
    ) -> Result<Rc<Host>, UpstreamError> {
        self.refresh();
        let stats = &self.context.stats;
        let host = match &mut *self.endpoints.borrow_mut() {
            Endpoints::Aggregate(_) => None,
            Endpoints::Assigned(_, assigned) if let Some(tier) = tier => {
                let mut random = self.random.borrow_mut();
                let (host, panics) = assigned.pick_of(tier, &self.context, &mut random);
                if panics {
                    stats.lb_healthy_panic.increment(1);
                }
                host.cloned()
            }
            Endpoints::Assigned(_, assigned) => {
                if assigned.is_panicking() {
                    stats.lb_healthy_panic.increment(1);
                }
                let (host, zone) = assigned.pick(&mut self.random.borrow_mut());
                if let Some(choice) = zone {
                    stats.zones().chose(choice);
                }
                host.cloned()
            }
            Endpoints::Destinations(destinations) => {
                let port = self.context.config.original_destination.port;
                destination.map(|mut address| {
                    address.set_port(port.unwrap_or(address.port()));
                    destinations.host(address, &self.context).clone()
                })
            }
            // There is none without a name.
            Endpoints::Names(_) => None,
        };
        host.ok_or_else(|| {
            stats.cx_none_healthy.increment(1);
            UpstreamError::NoHealthyUpstream
        })
    }

    /// Takes over an assignment that came in the meantime.
    pub(super) fn refresh(&self) {
        let replaced = match &mut *self.endpoints.borrow_mut() {
            Endpoints::Assigned(slot, assigned) => {
                let mut random = self.random.borrow_mut();
                assigned.refresh(slot.cell(), &self.context, &mut random)
            }
            Endpoints::Destinations(_) | Endpoints::Names(_) | Endpoints::Aggregate(_) => None,
        };
        // What it held is dropped after the borrow: connections that close call back.
        if let Some(replaced) = replaced {
            self.generation.set(self.generation.get() + 1);
            self.report_membership(&replaced);
        }
    }

    /// What pools and guards need.
    pub(super) fn context(&self) -> &Rc<ClusterContext> {
        &self.context
    }

    /// Another number whenever other endpoints were taken over.
    pub fn generation(&self) -> u64 {
        self.refresh();
        self.generation.get()
    }

    /// What discovery says of the health of an endpoint; `None` where it has left.
    pub fn health(&self, target: &Rc<Target>) -> Option<HealthStatus> {
        match &*self.endpoints.borrow() {
            Endpoints::Assigned(_, assigned) => assigned.health(target),
            Endpoints::Aggregate(_) => None,
            Endpoints::Destinations(_) | Endpoints::Names(_) => Some(HealthStatus::Healthy),
        }
    }

    fn report_membership(&self, replaced: &Replaced) {
        let stats = &self.context.stats;
        if let Some(problem) = replaced.zones {
            stats.zones().planned(problem);
        }
        if self.reports.get() {
            let membership = replaced.membership;
            stats.membership_change.increment(1);
            stats.membership_total.set(membership.total as f64);
            stats.membership_healthy.set(membership.healthy as f64);
            stats.membership_degraded.set(membership.degraded as f64);
        }
    }

    fn report_breakers(&self) {
        if self.reports.get() {
            let breakers = &self.context.shared.breakers;
            for priority in Priority::ALL {
                let gauges = self.context.stats.breakers(priority);
                let track = self.context.config.circuit_breakers[priority as usize].track_remaining;
                for (resource, gauges) in Resource::ALL.into_iter().zip(gauges) {
                    let open = breakers.is_open(priority, resource);
                    gauges.0.set(f64::from(u8::from(open)));
                    if track {
                        let used = breakers.used(priority, resource);
                        let left = breakers.limit(priority, resource).saturating_sub(used);
                        gauges.1.set(f64::from(left));
                    }
                }
            }
        }
    }

    /// Leaves the gauges to the cluster's successor: what is shown is the sum over all workers.
    fn stop_reporting(&self) {
        if self.reports.replace(false) {
            let stats = &self.context.stats;
            for gauge in [
                &stats.membership_total,
                &stats.membership_healthy,
                &stats.membership_degraded,
            ] {
                gauge.set(0.0);
            }
            let both = Priority::ALL.into_iter();
            for (open, left) in both.flat_map(|priority| stats.breakers(priority)) {
                open.set(0.0);
                left.set(0.0);
            }
        }
    }

    fn each_host(&self, mut each: impl FnMut(&Host)) {
        let hosts = match &*self.endpoints.borrow() {
            Endpoints::Assigned(_, assigned) => assigned.hosts().to_vec(),
            Endpoints::Destinations(destinations) => destinations.hosts(),
            Endpoints::Aggregate(_) => Vec::new(),
            Endpoints::Names(names) => names.hosts(),
        };
        hosts.iter().for_each(|host| each(host));
    }

    /// Closes connections that were idle for too long and forgets destinations that nobody uses.
    /// Says whether there is anything left to sweep.
    fn sweep(&self, now: Instant) -> bool {
        self.each_host(|host| host.sweep(now));
        self.report_breakers();
        let (forgotten, none_left) = match &mut *self.endpoints.borrow_mut() {
            Endpoints::Assigned(..) | Endpoints::Aggregate(_) => (Vec::new(), true),
            Endpoints::Destinations(destinations) => {
                let after = self.context.config.original_destination.forget_after;
                let sweeps = u32::try_from(after.as_secs()).unwrap_or(u32::MAX);
                let forgotten = destinations.forget_unused(sweeps.max(1));
                (forgotten, destinations.is_empty())
            }
            Endpoints::Names(names) => (names.forget_unused(), names.is_empty()),
        };
        drop(forgotten);
        self.context.connections.get() > 0 || !none_left
    }

    /// The cluster was removed or replaced: idle connections are closed now, others when they
    /// become idle.
    pub(super) fn drain(&self) {
        if !self.drained.replace(true) {
            self.each_host(Host::retire);
            self.stop_reporting();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tending.abort();
        self.stop_reporting();
    }
}

/// Looks after a cluster between its requests: takes over new assignments, notices idle connections
/// that their endpoint closed, and sweeps as long as there are connections. It holds the cluster
/// weakly, and ends with it.
async fn tend(cluster: Weak<Cluster>, context: Rc<ClusterContext>) {
    let mut changes = match &context.config.discovery {
        ClusterDiscovery::Assignment { slot, .. } => Some(slot.changes()),
        ClusterDiscovery::OriginalDestination
        | ClusterDiscovery::Aggregate(_)
        | ClusterDiscovery::Names(_) => None,
    };
    let period = match context.config.idle_timeout {
        Some(timeout) => (timeout / 4).clamp(Duration::from_millis(20), SWEEP),
        None => SWEEP,
    };
    let mut sweeping = false;
    loop {
        let changed = async {
            match &mut changes {
                Some(changes) => changes.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            outcome = changed => match outcome {
                Ok(()) => with(&cluster, |cluster| cluster.refresh()).unwrap_or_default(),
                Err(_) => changes = None,
            },
            () = context.connected.notified(), if !sweeping => sweeping = true,
            () = tokio::time::sleep(period), if sweeping => {
                sweeping = with(&cluster, |cluster| cluster.sweep(Instant::now())).unwrap_or(false);
            }
            () = watch_idle(&cluster), if sweeping => return,
        }
    }
}

fn with<R>(cluster: &Weak<Cluster>, act: impl FnOnce(&Cluster) -> R) -> Option<R> {
    cluster.upgrade().map(|cluster| act(&cluster))
}

/// Drops idle connections as their endpoints close them, until the cluster has gone.
async fn watch_idle(cluster: &Weak<Cluster>) {
    poll_fn(|cx: &mut Context<'_>| {
        match with(cluster, |cluster| {
            cluster.each_host(|host| host.drop_closed(cx))
        }) {
            Some(()) => Poll::Pending,
            None => Poll::Ready(()),
        }
    })
    .await
}
