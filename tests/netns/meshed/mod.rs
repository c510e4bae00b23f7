//! Workloads of a whole mesh: the real control plane and authority, redirects, and a sidecar each.

mod http;
mod policy;
mod tcp;

use outrider_testkit::mesh::{Mesh, Service, Sidecar, Workload};
use outrider_testkit::netns::{Pod, require_root};
use outrider_testkit::{Sniffer, servers};

use crate::common::listen;

/// The ports of the service; their names say the protocol.
const HTTP: u16 = 80;
const HTTP2: u16 = 81;
const TCP: u16 = 90;
/// A port whose service does not say what it speaks.
const AUTO: u16 = 91;
/// The name that the server has for its clients.
const HOST: &str = "server.bank";

/// Defines the tests for each pair of sidecars: the client's and the server's.
macro_rules! for_each_pair {
    ($($test:ident)*) => {
        for_each_pair!(@pair envoy_to_envoy Envoy Envoy: $($test)*);
    };
    (@pair $pair:ident $client:ident $server:ident: $($test:ident)*) => {
        mod $pair {
            use outrider_testkit::mesh::Sidecar;
            $(
                #[test]
                fn $test() {
                    if let Some(pair) = crate::meshed::Pair::new(Sidecar::$client, Sidecar::$server)
                    {
                        super::$test(pair);
                    }
                }
            )*
        }
    };
}
use for_each_pair;

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

    /// Records the wire of the server's pod.
    fn sniffer(&self) -> Sniffer {
        Sniffer::start(&self.server.pod).unwrap()
    }

    /// The HTTP/1 app on the server's pod.
    fn http_app(&self) -> servers::Server {
        servers::http1::echo(listen(&self.server.pod, HTTP), "app").unwrap()
    }
}
