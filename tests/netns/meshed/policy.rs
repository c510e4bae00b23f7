//! Who may speak plaintext to whom.

use std::time::Duration;

use anyhow::{Result, ensure};
use outrider_testkit::clients::http1::Client;
use outrider_testkit::eventually;
use outrider_testkit::netns::Pod;

use super::{HOST, HTTP, Pair, for_pairs};
use crate::common::header;

for_pairs!(all: strict_and_permissive);

/// What a plain GET to the server's own addresses says, when it is answered.
fn plain_get(from: &Pod, pair: &Pair) -> Vec<Result<serde_json::Value>> {
    let get = |address| {
        let mut client = Client::connect_from(from, (address, HTTP))?;
        let response = client.get(HOST, "/")?;
        ensure!(response.status()? == 200, "{}", response.text());
        response.json()
    };
    pair.server.pod.addresses().into_iter().map(get).collect()
}

/// Strict refuses plaintext from outside the mesh, so that it never reaches the app; permissive
/// takes it, and tells the app nothing of a certificate, whatever the client says. The mode
/// changes while everything runs.
fn strict_and_permissive(pair: Pair) {
    pair.mesh.mutual_tls("STRICT").unwrap();
    let pair = pair.start(&[]);
    let app = pair.http_app();
    for answer in plain_get(&pair.outside, &pair) {
        assert!(answer.is_err(), "{answer:?}");
    }
    assert_eq!(app.accepted(), 0);
    let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP)).unwrap();
    assert_eq!(client.get(HOST, "/").unwrap().status().unwrap(), 200);

    pair.mesh.mutual_tls("PERMISSIVE").unwrap();
    eventually(Duration::from_secs(5), || {
        for answer in plain_get(&pair.outside, &pair) {
            answer?;
        }
        Ok(())
    })
    .unwrap();
    let mut liar = Client::connect_from(&pair.outside, (pair.server.pod.v4(), HTTP)).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nx-forwarded-client-cert: URI={}\r\n\r\n",
        pair.client.identity()
    );
    let seen = liar.exchange(request).unwrap().json().unwrap();
    assert_eq!(header(&seen, "x-forwarded-client-cert"), None);
    // The mesh still speaks mutual TLS.
    let seen = client.get(HOST, "/").unwrap().json().unwrap();
    assert!(header(&seen, "x-forwarded-client-cert").is_some());

    pair.mesh.mutual_tls("STRICT").unwrap();
    eventually(Duration::from_secs(5), || {
        let answers = plain_get(&pair.outside, &pair);
        ensure!(answers.iter().all(Result::is_err), "{answers:?}");
        Ok(())
    })
    .unwrap();
}
