//! Sidecars that die while the control plane is down.

use std::time::Duration;

use anyhow::ensure;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::eventually;
use outrider_testkit::mesh::{Sidecar, Workload};

use super::{HOST, HTTP, Pair, for_pairs, route, wait_for_revision};
use crate::common::{SECRET, assert_encrypted};

for_pairs!(ours: restarts_without_the_control_plane a_damaged_copy);

/// Waits until the copy on disk has all that traffic needs.
fn wait_for_copy(workload: &Workload, what: &str) {
    let file = workload.state_folder().join("configuration");
    eventually(Duration::from_secs(20), || {
        let bytes = std::fs::read(&file)?;
        let text = String::from_utf8_lossy(&bytes);
        ensure!(text.contains(what), "{what} is not in it yet");
        Ok(())
    })
    .unwrap();
}

fn get(pair: &Pair) -> anyhow::Result<u16> {
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP))?;
    client.post(HOST, "/", SECRET.as_bytes())?.status()
}

/// Both sidecars are killed and start again while there is no control plane: traffic flows, under
/// mutual TLS. When the control plane is back, what it says replaces what was on disk.
fn restarts_without_the_control_plane(pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    pair.mesh.write("route", &route(1)).unwrap();
    let mut pair = pair.start(&[]);
    let _app = pair.http_app();
    assert_eq!(get(&pair).unwrap(), 200);
    wait_for_copy(&pair.client, "x-revision");
    wait_for_copy(&pair.server, "inbound");

    pair.mesh.control().kill().unwrap();
    for workload in [&mut pair.client, &mut pair.server] {
        workload.proxy().unwrap().kill().unwrap();
        workload
            .start(pair.mesh.control(), Sidecar::Outrider)
            .unwrap();
    }
    let sniffer = pair.sniffer();
    assert_eq!(get(&pair).unwrap(), 200);
    assert_encrypted(&sniffer);
    for workload in [&mut pair.client, &mut pair.server] {
        let output = workload.proxy().unwrap().output();
        assert!(
            output.contains("going on with the configuration on disk"),
            "{output}"
        );
        assert!(
            output.contains("going on with the certificate on disk"),
            "{output}"
        );
        // Its key is nobody else's.
        use std::os::unix::fs::PermissionsExt as _;
        let identity = workload.state_folder().join("identity");
        let mode = std::fs::metadata(identity).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    // What has changed meanwhile comes, and what has gone goes.
    pair.mesh.write("route", &route(2)).unwrap();
    std::fs::remove_file(pair.mesh.file("mutual-tls-outrider-system")).unwrap();
    pair.mesh.control().restart().unwrap();
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    wait_for_revision(&mut client, 2);
    eventually(Duration::from_secs(20), || {
        let target = (pair.server.pod.v4(), HTTP);
        let mut plain = Client::connect_from(&pair.outside, target)?;
        ensure!(plain.get(HOST, "/")?.status()? == 200);
        Ok(())
    })
    .unwrap();
}

/// A copy that is damaged, or another's, is no copy: the sidecar says so and gets a new one.
fn a_damaged_copy(pair: Pair) {
    let mut pair = pair.start(&[]);
    let _app = pair.http_app();
    wait_for_copy(&pair.client, "server.bank");
    pair.client.proxy().unwrap().kill().unwrap();
    let folder = pair.client.state_folder();
    let file = folder.join("configuration");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let other = std::fs::read(pair.server.state_folder().join("identity")).unwrap();
    std::fs::write(folder.join("identity"), other).unwrap();
    pair.client
        .start(pair.mesh.control(), Sidecar::Outrider)
        .unwrap();
    assert_eq!(get(&pair).unwrap(), 200);
    let output = pair.client.proxy().unwrap().output();
    assert!(
        output.contains("the configuration on disk is not used"),
        "{output}"
    );
    assert!(output.contains("it is damaged"), "{output}");
    assert!(
        output.contains("the certificate on disk is not used"),
        "{output}"
    );
}
