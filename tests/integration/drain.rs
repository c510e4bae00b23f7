//! The end of the process: nothing fails, everybody is told, and it comes.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use outrider_testkit::clients::http2;
use outrider_testkit::load::{Load, Options};
use outrider_testkit::{eventually, servers};

use crate::harness::{Bootstrap, Kind, Proxy, bind};

fn start(app: std::net::SocketAddr, manager: &str) -> Proxy {
    let bootstrap = Bootstrap::forward(app, manager);
    Proxy::spawn_with(Kind::Ours, &bootstrap, &["--drain-time-s", "20"]).ready()
}

#[test]
fn no_request_fails_under_load() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut proxy = start(app.address(), "drain_timeout: 0.3s");
    let load = Load::start(&Options::new(&format!("http://{}/", proxy.listener()), 8)).unwrap();
    eventually(Duration::from_secs(10), || {
        anyhow::ensure!(load.requests() > 200, "no load yet");
        Ok(())
    })
    .unwrap();
    proxy.process.signal(Signal::SIGTERM).unwrap();
    eventually(Duration::from_secs(5), || {
        let (status, text) = proxy.admin("GET", "/ready");
        anyhow::ensure!(
            (status, text.as_str()) == (503, "DRAINING\n"),
            "{status} {text}"
        );
        Ok(())
    })
    .unwrap();
    // Clients that have not heard of it yet still come, with connections old and new.
    let before = load.requests();
    eventually(Duration::from_secs(10), || {
        anyhow::ensure!(load.requests() > before + 200, "load has stopped");
        Ok(())
    })
    .unwrap();
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{:?}", report.failures);
    let status = proxy.process.wait(Duration::from_secs(15)).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn clients_of_http1_are_told_and_idle_ones_closed() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut proxy = start(app.address(), "drain_timeout: 0.5s");
    let mut busy = proxy.client();
    busy.send("GET /?delay=1500 HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut idle = proxy.client();
    assert_eq!(idle.get("a", "/").unwrap().status().unwrap(), 200);
    let mut next = proxy.client();
    assert_eq!(next.get("a", "/").unwrap().status().unwrap(), 200);
    proxy.wait_for_stat("cluster.up.upstream_rq_active", 1);
    proxy.process.signal(Signal::SIGTERM).unwrap();
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(proxy.admin("GET", "/ready").0 == 503, "not yet");
        Ok(())
    })
    .unwrap();
    let answer = next.get("a", "/").unwrap();
    assert_eq!(answer.head.header("connection"), Some("close"));
    assert_eq!(idle.read_to_end().unwrap(), b"");
    let answer = busy
        .read_response(outrider_testkit::message::Kind::Response)
        .unwrap();
    assert_eq!(answer.status().unwrap(), 200);
    assert_eq!(answer.head.header("connection"), Some("close"));
    assert!(
        proxy
            .process
            .wait(Duration::from_secs(10))
            .unwrap()
            .success()
    );
}

#[test]
fn clients_of_http2_get_goaway_at_once_and_their_streams_finish() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut proxy = start(app.address(), "");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = http2::Client::connect(proxy.listener()).await.unwrap();
        assert_eq!(client.get("http://a/").await.unwrap().status(), 200);
        let request = http::Request::get("http://a/?delay=1000").body(()).unwrap();
        let (response, _) = client.open(request, true).await.unwrap();
        let quiet = http2::Client::connect(proxy.listener()).await.unwrap();
        assert_eq!(quiet.get("http://a/").await.unwrap().status(), 200);
        proxy.process.signal(Signal::SIGTERM).unwrap();
        let told = Instant::now();
        // A connection without streams ends with its GOAWAY.
        tokio::time::timeout(Duration::from_secs(5), quiet.closed())
            .await
            .unwrap()
            .unwrap();
        let took = told.elapsed();
        assert!(took < Duration::from_millis(500), "GOAWAY took {took:?}");
        assert_eq!(response.await.unwrap().status(), 200);
    });
    assert!(
        proxy
            .process
            .wait(Duration::from_secs(10))
            .unwrap()
            .success()
    );
}

#[test]
fn the_deadline_ends_what_will_not_end() {
    let silent = servers::tcp::silent(bind()).unwrap();
    let bootstrap = Bootstrap::forward(silent.address(), "");
    let mut proxy = Proxy::spawn_with(Kind::Ours, &bootstrap, &["--drain-time-s", "1"]).ready();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    proxy.wait_for_stat("cluster.up.upstream_rq_active", 1);
    let began = Instant::now();
    assert!(
        proxy
            .process
            .terminate(Duration::from_secs(10))
            .unwrap()
            .success()
    );
    assert!(began.elapsed() >= Duration::from_millis(900));
}
