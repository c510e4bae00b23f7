//! Sidecars that are told to end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outrider_testkit::clients::{http1::Client, http2};
use outrider_testkit::mesh::Workload;
use outrider_testkit::{eventually, load, servers};

use super::{
    HOST, HTTP, HTTP2, POOL, Pair, TCP, assert_no_failures, for_pairs, pool, wait_for_requests,
};
use crate::common::{SECRET, listen};

for_pairs!(server: one_of_two_servers);
for_pairs!(ours: the_client quiet_http2 the_deadline native);
for_pairs!(all: death);

/// One of two servers leaves, as in a rolling restart: its endpoint is no longer ready, and its
/// sidecar is told to end at the same time. No request fails, and the sidecar ends by itself.
fn one_of_two_servers(pair: Pair) {
    let mut second = pair.mesh.workload("bank", "second").unwrap();
    let pods = [(&pair.server.pod, true), (&second.pod, true)];
    pair.mesh.write("pool", &pool(&pods)).unwrap();
    let mut pair = pair.start(&[]);
    let _first_app = pair.http_app();
    let _second_app = servers::http1::echo(listen(&second.pod, HTTP), "second").unwrap();
    pair.mesh.inject(&mut second, pair.sidecars[1]).unwrap();
    let mut options = load::Options::new(&format!("http://{POOL}/"), 4);
    let kept = pair.start_load(&options);
    options.close = true;
    let fresh = pair.start_load(&options);

    let pods = [(&pair.server.pod, false), (&second.pod, true)];
    pair.mesh.write("pool", &pool(&pods)).unwrap();
    let leaving = pair.server.proxy().unwrap();
    leaving.signal(Signal::SIGTERM).unwrap();
    let status = leaving.wait(Duration::from_secs(15)).unwrap();
    assert!(status.success(), "{status}");
    for load in [kept, fresh] {
        wait_for_requests(&load, 200);
        let report = load.stop();
        assert_eq!(report.failed(), 0, "{report:?}");
        // Both were called before.
        assert_eq!(report.servers.len(), 2, "{report:?}");
    }
}

/// The client's own sidecar is told to end while its app still works: what goes out goes on until
/// the app is done, and then the sidecar ends.
fn the_client(pair: Pair) {
    let mut pair = pair.start(&[]);
    let _app = pair.http_app();
    let mut options = pair.load("/", 2);
    options.pause = Duration::from_millis(2);
    let load = pair.start_load(&options);
    let proxy = pair.client.proxy().unwrap();
    proxy.signal(Signal::SIGTERM).unwrap();
    wait_for_requests(&load, 500);
    assert_no_failures(load);
    let status = pair.client.proxy().unwrap().wait(Duration::from_secs(15));
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{status:?}"
    );
}

/// A quiet HTTP/2 connection learns of the end at once, not at its next request; a stream that is
/// open goes on to its end.
fn quiet_http2(pair: Pair) {
    let mut pair = pair.start(&[]);
    let _app = servers::http2::echo(listen(&pair.server.pod, HTTP2), "app").unwrap();
    let target = (pair.server.pod.v4(), HTTP2);
    let outside = &pair.outside;
    let proxy = Pid::from_raw(pair.server.proxy().unwrap().pid() as i32);
    let server = &pair.server;
    let work = || async move {
        let quiet = http2::Client::connect(target).await?;
        quiet.get("http://app/").await?;
        let busy = http2::Client::connect(target).await?;
        busy.get("http://app/").await?;
        let answer = busy.get("http://app/?delay=1000");
        let end = async {
            // The slow request is on its way before.
            let deadline = Instant::now() + Duration::from_secs(5);
            while !serves_one(server)? {
                ensure!(Instant::now() < deadline, "the slow request does not come");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            kill(proxy, Signal::SIGTERM)?;
            let told = tokio::time::timeout(Duration::from_millis(500), quiet.closed());
            told.await.context("no GOAWAY within 500 ms")?
        };
        let (answer, end) = tokio::join!(answer, end);
        end?;
        ensure!(answer?.status() == 200, "the open stream was cut");
        anyhow::Ok(())
    };
    outside.block_on(work).unwrap().unwrap();
    let status = pair
        .server
        .proxy()
        .unwrap()
        .wait(Duration::from_secs(15))
        .unwrap();
    assert!(status.success(), "{status}");
    let gone = || Client::connect_from(&pair.outside, (pair.server.pod.v4(), HTTP));
    eventually(Duration::from_secs(1), || {
        ensure!(gone().is_err(), "somebody still listens");
        Ok(())
    })
    .unwrap();
}

/// Whether a request is being served, by any connection manager.
fn serves_one(workload: &Workload) -> anyhow::Result<bool> {
    let page = workload.admin("/stats?filter=downstream_rq_active$&usedonly")?;
    Ok(page.contains(": 1"))
}

/// A connection that nobody ends does not keep a sidecar beyond its deadline.
fn the_deadline(pair: Pair) {
    let mut pair = pair.start(&[]);
    let _app = servers::tcp::echo(listen(&pair.server.pod, TCP)).unwrap();
    let mut client = Client::connect_from(&pair.client.pod, (HOST, TCP)).unwrap();
    client.send("hello").unwrap();
    client.read(5).unwrap();
    let proxy = pair.server.proxy().unwrap();
    proxy.signal(Signal::SIGTERM).unwrap();
    eventually(Duration::from_secs(5), || {
        let stage = pair.server.admin("/ready")?;
        ensure!(stage.contains("DRAINING"), "{stage}");
        Ok(())
    })
    .unwrap();
    // Meanwhile it is as good as ever.
    client.send("still").unwrap();
    assert_eq!(client.read(5).unwrap(), b"still");
    let proxy = pair.server.proxy().unwrap();
    let status = proxy.wait(Duration::from_secs(12)).unwrap();
    assert!(status.success(), "{status}");
    assert!(client.read(1).is_err());
}

/// The application of a native sidecar has ended when the sidecar is told to: peers that have not
/// noticed do not keep it, but what other sidecars of the pod still send out goes on.
fn native(mut pair: Pair) {
    pair.client.set("OUTRIDER_NATIVE", "true");
    pair.server.set("OUTRIDER_NATIVE", "true");
    let mut pair = pair.start(&[]);
    let _app = pair.http_app();
    let _echo = servers::tcp::echo(listen(&pair.server.pod, TCP)).unwrap();
    let mut options = pair.load("/", 2);
    options.pause = Duration::from_millis(2);
    let load = pair.start_load(&options);
    let mut quiet = Client::connect_from(&pair.client.pod, (HOST, TCP)).unwrap();
    quiet.send("hello").unwrap();
    quiet.read(5).unwrap();

    pair.client
        .proxy()
        .unwrap()
        .signal(Signal::SIGTERM)
        .unwrap();
    wait_for_requests(&load, 500);
    assert_no_failures(load);
    pair.server
        .proxy()
        .unwrap()
        .signal(Signal::SIGTERM)
        .unwrap();
    for proxy in [pair.client.proxy().unwrap(), pair.server.proxy().unwrap()] {
        let status = proxy.wait(Duration::from_secs(5)).unwrap();
        assert!(status.success(), "{status}");
    }
    drop(quiet);
}

/// A sidecar that dies takes its pod's traffic with it: nothing passes in plaintext. A new one
/// takes over as it starts.
fn death(pair: Pair) {
    let mut pair = pair.start(&[]);
    let app = pair.http_app();
    let sniffer = pair.sniffer();
    let get = |pair: &Pair| -> anyhow::Result<u16> {
        let mut client = Client::connect_from(&pair.client.pod, (HOST, HTTP))?;
        client.post(HOST, "/", SECRET.as_bytes())?.status()
    };
    assert_eq!(get(&pair).unwrap(), 200);
    for which in [0, 1] {
        let workload = [&mut pair.client, &mut pair.server]
            .into_iter()
            .nth(which)
            .unwrap();
        workload.proxy().unwrap().kill().unwrap();
        let before = app.accepted();
        let answer = get(&pair);
        assert!(
            answer.as_ref().map_or(true, |status| *status == 503),
            "{answer:?}"
        );
        let direct = Client::connect_from(&pair.outside, (pair.server.pod.v4(), HTTP));
        assert_eq!(which == 1, direct.is_err());
        if which == 1 {
            assert_eq!(app.accepted(), before);
        }
        let workload = [&mut pair.client, &mut pair.server]
            .into_iter()
            .nth(which)
            .unwrap();
        workload
            .start(pair.mesh.control(), pair.sidecars[which])
            .unwrap();
        eventually(Duration::from_secs(10), || {
            ensure!(get(&pair)? == 200);
            Ok(())
        })
        .unwrap();
    }
    assert!(!sniffer.contains(SECRET).unwrap());
}
