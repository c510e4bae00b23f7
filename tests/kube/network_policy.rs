//! That a NetworkPolicy means the same with the mesh and without it.
//!
//! The cluster of the tests has no network plugin that enforces policies, so this shows what one
//! decides by: the addresses and ports of what passes a pod's cable. With a sidecar on both sides
//! they must be what they are without any: from the client's own address to the server's own
//! address and to the port that the app listens on, with no port of the mesh's in between. So a rule
//! that lets in pods by label, to a port by number or name, admits and refuses the same connections.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::{Sniffer, eventually};

use crate::harness::{Place, SYSTEM, addresses, client, cluster, server};

/// The ports at which the node asks after the pod's health, through the sidecar and without.
const HEALTH: [u16; 3] = [15020, 15021, 8080];

#[test]
fn addresses_and_ports_are_those_without_the_mesh() {
    let (Some(meshed), Some(plain)) = (Place::meshed("with"), Place::plain("without")) else {
        return;
    };
    let connections = |place: &Place| {
        place.run(&[server("server"), client("client")]).unwrap();
        let to = addresses(&place.pod("server").unwrap());
        let from = addresses(&place.pod("client").unwrap());
        let wire = Sniffer::on_cable(&place.cluster, to[0]).unwrap();
        place
            .request_until_ok("client", &format!("http://{}/", place.host("server")))
            .unwrap();
        let tcp = [
            "tcp",
            &format!("{}:9000", place.host("server")),
            "--send",
            "x",
        ];
        place.exec("deployment/client", &tcp).unwrap();
        // By whose address, to which port: the roles instead of the addresses.
        let role = |address: IpAddr| match address {
            address if from.contains(&address) => "client",
            address if to.contains(&address) => "server",
            _ => "others",
        };
        let mut found = BTreeSet::new();
        eventually(Duration::from_secs(5), || {
            for ((source, target), _) in wire.beginnings(1)? {
                let (source, target) = (role(source.ip()), (role(target.ip()), target.port()));
                let is_health = source == "others" && HEALTH.contains(&target.1);
                if target.0 == "server" && source != "server" && !is_health {
                    found.insert((source, target.1));
                }
            }
            ensure!(found.iter().any(|(_, port)| *port == 9000), "{found:?}");
            Ok(())
        })
        .unwrap();
        // What others send to the server is answers: of the resolver and of the control plane.
        found.retain(|(source, _)| *source == "client");
        found
    };
    let with = connections(&meshed);
    assert_eq!(with, connections(&plain));
    assert_eq!(with, BTreeSet::from([("client", 8080), ("client", 9000)]));
}

/// The mesh's own policies let in what it serves, by port.
#[test]
fn the_mesh_has_policies_for_its_own_ports() {
    let Some(cluster) = cluster() else { return };
    for (name, port) in [("outrider-control", 15012), ("outrider-injector", 15017)] {
        let path = "jsonpath={.spec.ingress[*].ports[*].port}";
        let arguments = ["get", "networkpolicy", name, "-n", SYSTEM, "-o", path];
        let ports = cluster.kubectl(&arguments).unwrap();
        let of = |text: &str| ports.split(' ').any(|port| port == text);
        // By number, or by the name that the container's port has.
        let by_name = ["grpc-tls", "https"].into_iter().any(of);
        assert!(of(&port.to_string()) || by_name, "{name}: {ports}");
    }
}
