//! What changes while everything runs: the configuration, the control plane, the certificates.

use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::mesh::Workload;
use outrider_testkit::{eventually, servers};

use super::{
    HOST, HTTP, Pair, TCP, assert_no_failures, for_pairs, route, wait_for_requests,
    wait_for_revision,
};
use crate::common::listen;

for_pairs!(all: updates restart_of_the_control_plane rotation);
for_pairs!(ours: authority_outage redirects);

/// How many connections of each kind are open meanwhile.
const CONNECTIONS: usize = 500;
const UPDATES: usize = 100;

/// A thousand idle connections live through a hundred updates, of routes and of the listeners that
/// they came through, and the next request on any of them sees the last update.
fn updates(pair: Pair) {
    pair.mesh.write("route", &route(0)).unwrap();
    let pair = pair.start(&[]);
    let http_app = pair.http_app();
    let _tcp_app = servers::tcp::echo(listen(&pair.server.pod, TCP)).unwrap();
    let connect = |port| Client::connect_from(&pair.client.pod, (pair.service.v4, port)).unwrap();
    let speak = |client: &mut Client| {
        client.send("idle").unwrap();
        assert_eq!(client.read(4).unwrap(), b"idle");
    };
    let mut tcp: Vec<Client> = (0..CONNECTIONS).map(|_| connect(TCP)).collect();
    let mut http: Vec<Client> = (0..CONNECTIONS).map(|_| connect(HTTP)).collect();
    tcp.iter_mut().for_each(speak);
    for client in &mut http {
        assert_eq!(client.get(HOST, "/").unwrap().status().unwrap(), 200);
    }

    let mut watcher = connect(HTTP);
    for revision in 1..=UPDATES {
        // A port that comes and goes changes the listener that all connections came in by.
        let extra = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: extra, namespace: bank}}\n\
             spec: {{clusterIP: 10.96.1.1, selector: {{app: server}}, \
             ports: [{{name: tcp, port: {}}}]}}\n",
            9000 + revision % 2
        );
        pair.mesh.write("service-extra", &extra).unwrap();
        pair.mesh.write("route", &route(revision)).unwrap();
        wait_for_revision(&mut watcher, revision);
    }

    tcp.iter_mut().for_each(speak);
    for client in &mut http {
        let response = client.get(HOST, "/").unwrap();
        let last = UPDATES.to_string();
        assert_eq!(response.head.header("x-revision"), Some(last.as_str()));
    }
    assert!(http_app.accepted() <= CONNECTIONS + 1);
}

/// The control plane dies and comes back under load, and nobody notices but by its next update.
fn restart_of_the_control_plane(pair: Pair) {
    pair.mesh.write("route", &route(0)).unwrap();
    let mut pair = pair.start(&[]);
    let _app = pair.http_app();
    let load = pair.start_load(&pair.load("/", 4));
    pair.mesh.control().kill().unwrap();
    wait_for_requests(&load, 500);
    pair.mesh.write("route", &route(1)).unwrap();
    pair.mesh.control().restart().unwrap();
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    wait_for_revision(&mut client, 1);
    wait_for_requests(&load, 500);
    assert_no_failures(load);
}

/// The serial number of the certificate that a sidecar has now.
fn serial(workload: &Workload) -> anyhow::Result<String> {
    let certificates: serde_json::Value = serde_json::from_str(&workload.admin("/certs")?)?;
    let own = certificates["certificates"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|certificate| certificate["cert_chain"][0]["serial_number"].as_str());
    ensure!(own.is_some(), "no certificate: {certificates}");
    Ok(own.unwrap_or_default().to_owned())
}

/// Certificates of 30 seconds are renewed on both sides while each request is a handshake, and
/// none fails.
fn rotation(pair: Pair) {
    let pair = pair.start(&["--cert-ttl", "30s"]);
    let app = servers::http1::echo(listen(&pair.server.pod, TCP), "app").unwrap();
    let first = [&pair.client, &pair.server].map(|workload| serial(workload).unwrap());
    let mut options = pair.load("/", 2);
    options.url = format!("http://{HOST}:{TCP}/");
    options.close = true;
    options.pause = Duration::from_millis(5);
    let load = pair.start_load(&options);
    let before = app.accepted();
    for (workload, first) in [&pair.client, &pair.server].into_iter().zip(&first) {
        eventually(Duration::from_secs(25), || {
            ensure!(
                serial(workload)? != *first,
                "{} has the first",
                workload.name
            );
            Ok(())
        })
        .unwrap();
    }
    wait_for_requests(&load, 100);
    assert!(app.accepted() > before + 100);
    assert_no_failures(load);
}

/// The authority is gone until the certificates have expired; once it is back, so is the traffic,
/// without a restart of anything.
fn authority_outage(pair: Pair) {
    let mut pair = pair.start(&["--cert-ttl", "4s"]);
    let _app = servers::http1::echo(listen(&pair.server.pod, TCP), "app").unwrap();
    // A connection of its own for each request, so that each needs a handshake.
    let get = |pair: &Pair| -> anyhow::Result<u16> {
        Client::connect_from(&pair.client.pod, (HOST, TCP))?
            .get(HOST, "/")?
            .status()
    };
    assert_eq!(get(&pair).unwrap(), 200);
    pair.mesh.control().kill().unwrap();
    eventually(Duration::from_secs(10), || {
        let answer = get(&pair);
        ensure!(answer.is_err(), "still good: {answer:?}");
        Ok(())
    })
    .unwrap();
    pair.mesh.control().restart().unwrap();
    eventually(Duration::from_secs(30), || {
        ensure!(get(&pair)? == 200);
        Ok(())
    })
    .unwrap();
}

/// The redirects are put in again, the same and changed, while load flows.
fn redirects(pair: Pair) {
    let pair = pair.start(&[]);
    let _app = pair.http_app();
    let load = pair.start_load(&pair.load("/", 4));
    for arguments in [
        &["apply"][..],
        &["apply", "--exclude-outbound-ports", "9999"],
        &["apply"],
    ] {
        for pod in [&pair.client.pod, &pair.server.pod] {
            let init = outrider_testkit::bins::path("outrider-init").unwrap();
            pod.output(init.to_str().unwrap(), arguments).unwrap();
        }
        wait_for_requests(&load, 100);
    }
    assert_no_failures(load);
}
