//! Workloads of a whole mesh: the real control plane and authority, redirects, and a sidecar each.

mod churn;
mod control;
mod disk;
mod drain;
mod http;
mod identity;
mod kubelet;
mod policy;
mod resilience;
mod routes;
mod tcp;

use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::load::{self, Load};
use outrider_testkit::mesh::{Mesh, Service, Sidecar, Workload};
use outrider_testkit::netns::{Pod, require_root};
use outrider_testkit::{Sniffer, eventually, servers};

use crate::common::listen;

/// The ports of the service; their names say the protocol.
const HTTP: u16 = 80;
const HTTP2: u16 = 81;
const TCP: u16 = 90;
/// A port whose service does not say what it speaks.
const AUTO: u16 = 91;
/// The name that the server has for its clients.
const HOST: &str = "server.bank";

/// Defines each test for pairs of sidecars, the client's and the server's: `all` of them, those
/// where ours is the `server`, or `ours` alone.
macro_rules! for_pairs {
    (all: $($test:ident)*) => {$(
        mod $test {
            crate::meshed::for_pairs!(@pair $test envoy_to_envoy Envoy Envoy);
            crate::meshed::for_pairs!(@pair $test outrider_to_envoy Outrider Envoy);
            crate::meshed::for_pairs!(@pair $test envoy_to_outrider Envoy Outrider);
            crate::meshed::for_pairs!(@pair $test outrider_to_outrider Outrider Outrider);
        }
    )*};
    (server: $($test:ident)*) => {$(
        mod $test {
            crate::meshed::for_pairs!(@pair $test envoy_to_outrider Envoy Outrider);
            crate::meshed::for_pairs!(@pair $test outrider_to_outrider Outrider Outrider);
        }
    )*};
    (ours: $($test:ident)*) => {$(
        mod $test {
            crate::meshed::for_pairs!(@pair $test outrider_to_outrider Outrider Outrider);
        }
    )*};
    (@pair $test:ident $pair:ident $client:ident $server:ident) => {
        #[test]
        fn $pair() {
            use outrider_testkit::mesh::Sidecar;
            if let Some(pair) = crate::meshed::Pair::new(Sidecar::$client, Sidecar::$server) {
                super::$test(pair);
            }
        }
    };
}
use for_pairs;

/// `client` of namespace `shop` and `server` of namespace `bank`, in the mesh, and a pod outside.
struct Pair {
    client: Workload,
    server: Workload,
    outside: Pod,
    service: Service,
    sidecars: [Sidecar; 2],
    mesh: Mesh,
}

impl Pair {
    /// Declares everything and starts nothing. `None` without the privilege for it.
    fn new(client: Sidecar, server: Sidecar) -> Option<Self> {
        if !require_root() {
            return None;
        }
        let mut mesh = Mesh::new("mesh").unwrap();
        let service = mesh
            .service(
                "bank",
                "server",
                &[
                    ("http", HTTP),
                    ("http2", HTTP2),
                    ("tcp", TCP),
                    ("any", AUTO),
                ],
            )
            .unwrap();
        Some(Self {
            client: mesh.workload("shop", "client").unwrap(),
            server: mesh.workload("bank", "server").unwrap(),
            outside: mesh.network().pod("outside").unwrap(),
            service,
            sidecars: [client, server],
            mesh,
        })
    }

    /// Starts the control plane and the sidecars.
    fn start(mut self, flags: &[&str]) -> Self {
        self.mesh.start_control(flags).unwrap();
        let [client, server] = self.sidecars;
        self.mesh.inject(&mut self.client, client).unwrap();
        self.mesh.inject(&mut self.server, server).unwrap();
        self
    }

    /// The options of load on the HTTP/1 app.
    fn load(&self, path: &str, connections: usize) -> load::Options {
        load::Options::new(&format!("http://{HOST}{path}"), connections)
    }

    /// Starts load from the client's pod and waits until it flows.
    fn start_load(&self, options: &load::Options) -> Load {
        let load = Load::start_in(&self.client.pod, options).unwrap();
        wait_for_requests(&load, 50);
        load
    }

    /// Records the wire of the server's pod.
    fn sniffer(&self) -> Sniffer {
        Sniffer::start(&self.server.pod).unwrap()
    }

    /// The HTTP/1 app on the server's pod.
    fn http_app(&self) -> servers::Server {
        servers::http1::echo(listen(&self.server.pod, HTTP), "app").unwrap()
    }
}

/// Waits until load has had this many more answers.
fn wait_for_requests(load: &Load, more: u64) {
    let wanted = load.requests() + more;
    eventually(Duration::from_secs(20), || {
        ensure!(load.requests() >= wanted, "{} requests", load.requests());
        Ok(())
    })
    .unwrap();
}

/// Ends load of which nothing may have failed.
fn assert_no_failures(load: Load) {
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report:?}");
}

/// The address of the service `pool`, whose endpoints are listed, as Kubernetes lists them.
const POOL: &str = "10.96.2.1";

/// The service `pool` over pods, each ready or on its way out.
fn pool(endpoints: &[(&Pod, bool)]) -> String {
    let endpoints: String = endpoints
        .iter()
        .map(|(pod, ready)| {
            let address = pod.v4();
            format!("- {{addresses: [{address}], conditions: {{ready: {ready}}}}}\n")
        })
        .collect();
    format!(
        "apiVersion: v1\nkind: Service\n\
         metadata: {{name: pool, namespace: bank}}\n\
         spec: {{clusterIP: {POOL}, ports: [{{name: http, port: {HTTP}}}]}}\n\
         ---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: pool, namespace: bank, \
         labels: {{kubernetes.io/service-name: pool}}}}\n\
         addressType: IPv4\n\
         ports: [{{name: http, port: {HTTP}}}]\n\
         endpoints:\n{endpoints}"
    )
}

/// A route of the server's HTTP port that tells its `revision` in a header of every answer.
fn route(revision: usize) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\n\
         kind: HTTPRoute\n\
         metadata: {{name: server, namespace: bank}}\n\
         spec:\n\
         \x20 parentRefs: [{{group: \"\", kind: Service, name: server, port: {HTTP}}}]\n\
         \x20 rules:\n\
         \x20 - filters:\n\
         \x20   - type: ResponseHeaderModifier\n\
         \x20     responseHeaderModifier: {{set: [{{name: x-revision, value: \"{revision}\"}}]}}\n\
         \x20   backendRefs: [{{name: server, port: {HTTP}}}]\n"
    )
}

/// Waits until an answer on this connection tells that revision; each answer is a good one.
fn wait_for_revision(client: &mut Client, revision: usize) {
    let wanted = revision.to_string();
    eventually(Duration::from_secs(10), || {
        let response = client.get(HOST, "/")?;
        assert_eq!(response.status()?, 200);
        let told = response.head.header("x-revision").unwrap_or("none");
        ensure!(told == wanted, "revision {told} instead of {wanted}");
        Ok(())
    })
    .unwrap();
}
