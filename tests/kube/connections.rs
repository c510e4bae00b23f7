//! What passes between two services of the mesh.

use std::time::Duration;

use outrider_testkit::{Sniffer, eventually};
use serde_json::json;

use crate::harness::{Place, addresses, client, seen_header, server};

/// The ports of the app, where its pod is reached.
const PORTS: [u16; 4] = [8080, 7070, 9000, 9001];
/// What a TLS record of a handshake begins with.
const HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// Plain HTTP, gRPC and TCP of the apps are mutual TLS on the node's end of the server's cable, and
/// the server is told who its client is.
#[test]
fn plain_protocols_become_mutual_tls() {
    let Some(place) = Place::meshed("connections") else {
        return;
    };
    place.run(&[server("server"), client("client")]).unwrap();
    let pod = place.pod("server").unwrap();
    let addresses = addresses(&pod);
    assert_eq!(addresses.len(), 2, "dual stack: {addresses:?}");
    let wire = Sniffer::on_cable(&place.cluster, addresses[0]).unwrap();
    let host = place.host("server");

    let url = format!("http://{host}/over-http");
    let seen = place
        .request_until_ok("client", &url)
        .unwrap()
        .seen()
        .unwrap();
    assert_eq!(seen["path"], "/over-http");
    let certificate = seen_header(&seen, "x-forwarded-client-cert").unwrap();
    let identity = |account: &str| format!("spiffe://cluster.local/ns/{}/sa/{account}", place.name);
    assert!(
        certificate.contains(&format!("URI={}", identity("client"))),
        "{certificate}"
    );
    assert!(
        certificate.contains(&format!("By={}", identity("server"))),
        "{certificate}"
    );

    let run = |arguments: &[&str]| place.exec("deployment/client", arguments).unwrap();
    let url = format!("http://{host}:7070");
    let answer = run(&["grpc", &url, "--text", "over-grpc"]);
    assert!(answer.contains("over-grpc"), "{answer}");
    assert!(answer.contains(&identity("client")), "{answer}");
    let answer = run(&["tcp", &format!("{host}:9000"), "--send", "over-tcp"]);
    assert_eq!(answer.trim(), "over-tcp");
    // A server that speaks first.
    let answer = run(&["tcp", &format!("{host}:9001")]);
    assert!(answer.starts_with("hello from server"), "{answer}");

    let beginnings = || {
        let all = wire.beginnings(2).unwrap().into_iter();
        let mut ours: Vec<_> = all
            .filter(|((_, to), _)| addresses.contains(&to.ip()) && PORTS.contains(&to.port()))
            .collect();
        ours.sort();
        ours
    };
    eventually(Duration::from_secs(5), || {
        let seen: Vec<u16> = beginnings().iter().map(|((_, to), _)| to.port()).collect();
        let all = PORTS.iter().all(|port| seen.contains(port));
        anyhow::ensure!(all, "not all connections were recorded: {seen:?}");
        Ok(())
    })
    .unwrap();
    for ((from, to), bytes) in beginnings() {
        assert_eq!(bytes, HANDSHAKE, "{from} to {to}");
    }
    for text in ["over-http", "over-grpc", "over-tcp", "hello from"] {
        assert!(
            !wire.contains(text).unwrap(),
            "{text:?} passed in plain text"
        );
    }
}

/// A service in another namespace is reached by its short names, and by its address of either
/// family, all of it through the mesh.
#[test]
fn a_service_is_reached_by_all_of_its_names_and_addresses() {
    let Some(place) = Place::meshed("names") else {
        return;
    };
    place.run(&[server("server"), client("client")]).unwrap();
    let service = place.get("service/server").unwrap();
    let mut hosts = vec![
        "server".to_owned(),
        format!("server.{}", place.name),
        format!("server.{}.svc", place.name),
    ];
    let cluster_addresses = service["spec"]["clusterIPs"].as_array().unwrap();
    assert_eq!(cluster_addresses.len(), 2, "{service}");
    for address in cluster_addresses {
        let address = address.as_str().unwrap();
        let is_v6 = address.contains(':');
        hosts.push(if is_v6 {
            format!("[{address}]")
        } else {
            address.to_owned()
        });
    }
    for host in hosts {
        let answer = place
            .request_until_ok("client", &format!("http://{host}/"))
            .unwrap();
        let seen = answer.seen().unwrap();
        let certificate = seen_header(&seen, "x-forwarded-client-cert");
        assert!(
            certificate.is_some_and(|text| text.contains("/sa/client")),
            "{host}: {seen}"
        );
    }
}

/// What is not in the mesh is reached as if there were none: a plain pod, and the API server, whose
/// certificate the client checks itself.
#[test]
fn what_is_outside_the_mesh_is_reached_as_it_is() {
    let (Some(place), Some(outside)) = (Place::meshed("inside"), Place::plain("outside")) else {
        return;
    };
    let tools = crate::harness::App::new("tools", "Deployment", &[])
        .with_container("image", json!("outrider.test/tools:1"))
        .with_container("command", json!(["sleep", "100000"]));
    outside.run(&[server("server")]).unwrap();
    place.run(&[client("client"), tools]).unwrap();
    let url = format!("http://{}/", outside.host("server"));
    let seen = place
        .request_until_ok("client", &url)
        .unwrap()
        .seen()
        .unwrap();
    assert_eq!(seen_header(&seen, "x-forwarded-client-cert"), None);

    let script = "curl --silent --show-error --max-time 10 \
        --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt \
        https://kubernetes.default.svc.cluster.local/version";
    let arguments = [
        "exec",
        "deployment/tools",
        "-c",
        "app",
        "--",
        "sh",
        "-c",
        script,
    ];
    let answer = place.kubectl(&arguments).unwrap();
    assert!(answer.contains("gitVersion"), "{answer}");
}
