//! A mesh that changes all the time, under load.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use outrider_testkit::clients::grpc;
use outrider_testkit::load;
use outrider_testkit::servers;
use outrider_testkit::servers::grpc::Echo;
use outrider_testkit::{
    eventually,
    mesh::{Sidecar, Workload},
};

use super::{HTTP, HTTP2, POOL, Pair, assert_no_failures, for_pairs, pool, wait_for_requests};
use crate::common::listen;

for_pairs!(all: churn);

/// How many times each thing changes.
const ROUNDS: usize = 8;

/// Waits until a sidecar knows, or no longer knows, the port that the pool reaches it on.
fn wait_for_port(workload: &Workload, known: bool) {
    let chain = format!("\"{HTTP}|mtls-http\"");
    eventually(Duration::from_secs(10), || {
        let knows = workload.admin("/config_dump")?.contains(&chain);
        ensure!(knows == known, "{} knows the port: {knows}", workload.name);
        Ok(())
    })
    .unwrap();
}

/// Waits until a sidecar balances, or no longer balances, over an endpoint.
fn wait_for_endpoint(workload: &Workload, endpoint: &Workload, known: bool) {
    let line = format!(
        "pool.bank.svc.cluster.local::{}:{HTTP}::",
        endpoint.pod.v4()
    );
    eventually(Duration::from_secs(10), || {
        let knows = workload.admin("/clusters")?.contains(&line);
        ensure!(knows == known, "{} knows {line} {knows}", workload.name);
        Ok(())
    })
    .unwrap();
}

/// Endpoints come and go, with them the identities that a service may have (so that its cluster is
/// another one), and what ports accept changes to and fro. No request fails, on kept connections
/// or new ones, and a stream that was open before is open after, where the server's sidecar is ours.
fn churn(pair: Pair) {
    let mut second = pair.mesh.workload("bank", "second").unwrap();
    let both = pool(&[(&pair.server.pod, true), (&second.pod, true)]);
    let leaving = pool(&[(&pair.server.pod, true), (&second.pod, false)]);
    let one = pool(&[(&pair.server.pod, true)]);
    pair.mesh.write("pool", &both).unwrap();
    let pair = pair.start(&[]);
    pair.mesh.inject(&mut second, pair.sidecars[1]).unwrap();
    let _first_app = pair.http_app();
    let _second_app = servers::http1::echo(listen(&second.pod, HTTP), "second").unwrap();
    let _grpc = servers::grpc::echo(listen(&pair.server.pod, HTTP2), "grpc").unwrap();

    let mut options = load::Options::new(&format!("http://{POOL}/"), 4);
    options.pause = Duration::from_millis(1);
    let kept = pair.start_load(&options);
    options.close = true;
    let fresh = pair.start_load(&options);

    // As a pod does: it leaves unready, and is known to its own sidecar before it is ready.
    let change = || {
        for round in 0..ROUNDS {
            let mode = if round % 2 == 0 {
                "STRICT"
            } else {
                "PERMISSIVE"
            };
            pair.mesh.mutual_tls(mode).unwrap();
            for (state, port, endpoint) in [
                (&leaving, true, false),
                (&one, false, false),
                (&leaving, true, false),
                (&both, true, true),
            ] {
                pair.mesh.write("pool", state).unwrap();
                wait_for_port(&second, port);
                wait_for_endpoint(&pair.client, &second, endpoint);
                wait_for_requests(&kept, 20);
            }
        }
    };
    let url = format!("http://{}", SocketAddr::new(pair.service.v4.into(), HTTP2));
    let stream = || async {
        let mut client = grpc::Client::connect(&url).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let messages = futures_util::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|message| (message, receiver))
        });
        let message = Echo {
            text: "before".into(),
            ..Default::default()
        };
        sender.send(message.clone()).await?;
        let mut answers = client.stream(messages).await?;
        answers.next().await.context("the stream ended early")??;
        std::thread::scope(|scope| scope.spawn(change).join())
            .map_err(|_| anyhow::anyhow!("a change failed"))?;
        // Envoy gives streams of a replaced chain its drain time, and then cuts them.
        if pair.sidecars[1] == Sidecar::Envoy {
            return Ok(());
        }
        sender.send(message).await?;
        answers.next().await.context("the stream was cut")??;
        anyhow::Ok(())
    };
    pair.client.pod.block_on(stream).unwrap().unwrap();
    for load in [kept, fresh] {
        wait_for_requests(&load, 50);
        assert_no_failures(load);
    }
}
