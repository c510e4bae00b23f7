//! Tests of clusters and pools against small servers on loopback, and what they share.

mod churn;
mod clusters;
mod http1;
mod http2;
mod servers;
mod tcp;
mod tls;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

pub use self::servers::{Answer, Server};
use super::breakers::Resource;
use super::exchange::Exchange;
use super::shared::{ClusterSet, ClusterShared};
use super::{Client, Cluster, Clusters, ExchangeRequest, UpstreamError};
use crate::config::address::Address;
use crate::config::cluster::{
    self, AssignmentSource, ClusterDiscovery, HappyEyeballs, LoadBalancing, OriginalDestination,
    Priority, Thresholds, UpstreamProtocol, UpstreamTransport,
};
use crate::config::endpoint::{Endpoint, HealthStatus, LoadAssignment, Locality};
use crate::discovery::slot::Slot;
use crate::http::error::StreamError;
use crate::http::message::{BodyLength, RequestHead, ResponseHead, Version};
use crate::telemetry::metrics::Registry;

/// Runs a test as a worker would: on one thread.
pub fn on_worker(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

/// Waits until something holds, for at most 5 seconds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Polls a future once and says whether it waits.
pub async fn is_pending(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

/// An endpoint on loopback.
pub fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address: Address::Socket(address),
        additional_addresses: Vec::new(),
        weight: 1,
        health: HealthStatus::Healthy,
        hostname: "".into(),
        transport_socket_match: BTreeMap::new(),
    }
}

/// An assignment of one locality.
pub fn assignment(endpoints: impl IntoIterator<Item = Endpoint>) -> Arc<LoadAssignment> {
    Arc::new(LoadAssignment {
        localities: vec![Locality {
            priority: 0,
            weight: 0,
            name: "".into(),
            endpoints: endpoints.into_iter().map(Arc::new).collect(),
        }],
        ..LoadAssignment::default()
    })
}

/// A cluster with Envoy's defaults, for tests to change.
pub fn config(endpoints: impl IntoIterator<Item = Endpoint>) -> cluster::Cluster {
    let slot = Slot::filled("backend", assignment(endpoints));
    cluster::Cluster {
        name: "backend".into(),
        stat_name: "backend".into(),
        discovery: ClusterDiscovery::Assignment {
            slot,
            source: AssignmentSource::Eds,
        },
        load_balancing: LoadBalancing::default(),
        close_on_change: false,
        connect_timeout: Duration::from_secs(5),
        circuit_breakers: [Thresholds::default(); 2],
        max_connections_per_host: None,
        pool_per_downstream: false,
        original_destination: OriginalDestination::default(),
        happy_eyeballs: HappyEyeballs::default(),
        protocol: UpstreamProtocol::Http1,
        http1: crate::config::http_protocol::Http1Settings::default(),
        http2: crate::config::http_protocol::Http2Settings {
            max_concurrent_streams: 1024,
            initial_stream_window: 1 << 20,
            initial_connection_window: 1 << 20,
            allow_connect: false,
            header_table_size: 4096,
            keepalive: None,
        },
        idle_timeout: Some(Duration::from_secs(3600)),
        max_requests_per_connection: None,
        max_connection_duration: None,
        transport_socket: UpstreamTransport::Plain,
        transport_socket_matches: Vec::new(),
        bind: None,
        keepalive: None,
        fingerprint: 0,
    }
}

/// The clusters of one worker with one cluster in them.
pub struct Worker {
    registry: Registry,
    pub clusters: Clusters,
    pub shared: RefCell<Arc<ClusterShared>>,
}

impl Worker {
    pub fn new(config: cluster::Cluster) -> Rc<Self> {
        let registry = Registry::default();
        let worker = Worker {
            clusters: Clusters::new(registry.thread()),
            registry,
            shared: RefCell::new(ClusterShared::new(Arc::new(config))),
        };
        worker.apply();
        Rc::new(worker)
    }

    fn apply(&self) {
        let shared = self.shared.borrow().clone();
        let set = ClusterSet::from([(shared.config.name.clone(), shared)]);
        self.clusters.apply(&set);
    }

    /// Replaces the configuration.
    pub fn update(&self, config: cluster::Cluster) {
        let updated = self.shared.borrow().updated(Arc::new(config));
        self.shared.replace(updated);
        self.apply();
    }

    pub fn cluster(&self) -> Rc<Cluster> {
        self.clusters.cluster("backend").expect("the cluster")
    }

    /// Fills the slot with other endpoints.
    pub fn assign(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        match &self.shared.borrow().config.discovery {
            ClusterDiscovery::Assignment { slot, .. } => slot.set(Some(assignment(endpoints))),
            ClusterDiscovery::OriginalDestination
            | ClusterDiscovery::Aggregate(_)
            | ClusterDiscovery::Names(_) => {
                panic!("no assignment")
            }
        }
    }

    /// A stat of the cluster.
    pub fn stat(&self, wanted: &str) -> u64 {
        use crate::telemetry::metrics::Value;
        let mut found = 0;
        self.registry.read(|_, _, name, value| {
            if name == wanted {
                found = match value {
                    Value::Counter(count) => count,
                    Value::Gauge(level) => level as u64,
                    Value::Number(value) => value,
                    Value::Text(_) => 0,
                    Value::Histogram(buckets, _) => buckets.iter().sum(),
                };
            }
        });
        found
    }

    pub fn used(&self, resource: Resource) -> u32 {
        self.shared
            .borrow()
            .breakers
            .used(Priority::Default, resource)
    }

    /// Nothing is held any more but idle connections.
    pub fn assert_quiet(&self) {
        for resource in [Resource::Pending, Resource::Requests, Resource::Retries] {
            assert_eq!(self.used(resource), 0, "{resource:?}");
        }
        assert_eq!(self.stat("upstream_rq_active"), 0);
        assert_eq!(self.stat("upstream_rq_pending_active"), 0);
        let connections = u64::from(self.used(Resource::Connections));
        assert_eq!(self.stat("upstream_cx_active"), connections);
    }

    pub async fn exchange(&self) -> Result<Exchange, UpstreamError> {
        self.cluster()
            .exchange(want(Version::Http11), &mut None)
            .await
    }

    /// One whole request; answers the response's body.
    pub async fn get(&self) -> String {
        let mut exchange = self.exchange().await.expect("an exchange");
        finish(&mut exchange).await.expect("a response")
    }
}

pub fn want(downstream: Version) -> ExchangeRequest {
    ExchangeRequest {
        downstream,
        original_destination: None,
        name: None,
        upgrade: false,
        fresh: false,
        client: Client::default(),
        priority: Priority::Default,
    }
}

/// Sends a request and reads the response; answers its body.
pub async fn finish(exchange: &mut Exchange) -> Result<String, StreamError> {
    let mut head = RequestHead::new();
    head.method = b"GET".to_vec();
    head.authority = b"backend".to_vec();
    head.path = b"/".to_vec();
    head.body = BodyLength::None;
    exchange.send_head(&head, true)?;
    poll_fn(|cx| exchange.poll_flush(cx)).await?;
    let mut response = ResponseHead::new();
    poll_fn(|cx| exchange.poll_head(cx, &mut response)).await?;
    assert_eq!(response.status, 200);
    let mut body = Vec::new();
    poll_fn(|cx| {
        loop {
            let taken = match exchange.poll_data(cx) {
                Poll::Ready(Ok(Some(data))) => {
                    body.extend_from_slice(data);
                    data.len()
                }
                Poll::Ready(Ok(None)) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            };
            exchange.consume(taken);
        }
    })
    .await?;
    Ok(String::from_utf8(body).expect("text"))
}
