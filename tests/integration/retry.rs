//! One retry where a kept connection turns out dead, and never otherwise.

use std::io::{BufReader, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use outrider_testkit::message::{Kind, read_body, read_head};
use outrider_testkit::servers::{self, Server};

use crate::harness::{Bootstrap, Proxy, bind};

/// An upstream that answers the first request of each connection, reads the second one whole, and
/// closes without an answer. Notes the bodies of all requests.
fn closes_on_the_second() -> (Server, Arc<Mutex<Vec<String>>>) {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let notes = Arc::clone(&seen);
    let server = Server::start(bind(), move |connection| {
        let mut reader = BufReader::new(connection.try_clone()?);
        let read = |reader: &mut BufReader<TcpStream>| -> anyhow::Result<()> {
            let head = read_head(reader)?.ok_or_else(|| anyhow::anyhow!("closed"))?;
            let start = head.start.clone();
            let message = read_body(reader, head, Kind::Request)?;
            let note = format!("{start} {}", message.body.len());
            notes.lock().unwrap().push(note);
            Ok(())
        };
        read(&mut reader)?;
        (&connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        read(&mut reader)
    });
    (server.unwrap(), seen)
}

fn request(method: &str, body: &str) -> String {
    format!(
        "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_request_is_sent_again_only_where_that_is_safe() {
    let large = "x".repeat(50_000);
    let huge = "x".repeat(200_000);
    let cases: &[(&str, &str, u16)] = &[
        ("GET", "", 200),
        ("HEAD", "", 200),
        ("PUT", "body", 200),
        ("PUT", &large, 200),
        ("DELETE", "", 200),
        ("OPTIONS", "", 200),
        // Not idempotent, and sent: the server may have done it.
        ("POST", "", 503),
        ("POST", "body", 503),
        ("PATCH", "body", 503),
        // Too much to be kept for a second time.
        ("PUT", &huge, 503),
    ];
    for (method, body, status) in cases {
        let (upstream, seen) = closes_on_the_second();
        let mut proxy = Proxy::ours(&Bootstrap::forward(upstream.address(), ""));
        let mut client = proxy.client();
        assert_eq!(client.get("a", "/first").unwrap().status().unwrap(), 200);
        let what = format!("{method} of {} bytes", body.len());
        let answer = client.exchange(request(method, body)).unwrap();
        assert_eq!(answer.status().unwrap(), *status, "{what}: {answer:?}");
        let sent = format!("{method} / HTTP/1.1 {}", body.len());
        let mut expected = vec!["GET /first HTTP/1.1 0".to_owned(), sent.clone()];
        if *status == 200 {
            expected.push(sent);
        }
        assert_eq!(*seen.lock().unwrap(), expected, "{what}");
        proxy.log_line();
        let log = proxy.log_line();
        let expected = if *status == 200 {
            "200 - via_upstream"
        } else {
            "503 UC upstream_reset_before_response_started{connection_termination}"
        };
        assert!(log.starts_with(expected), "{what}: {log}");
        let retried = i64::from(*status == 200);
        assert_eq!(
            proxy.stat("cluster.up.upstream_rq_retry"),
            Some(retried),
            "{what}"
        );
        assert_eq!(
            proxy.stat("cluster.up.upstream_rq_retry_success"),
            Some(retried),
            "{what}"
        );
    }
}

#[test]
fn the_host_that_is_told_as_the_original_stays_the_clients() {
    let told: Arc<Mutex<Vec<[Option<String>; 3]>>> = Arc::default();
    let notes = Arc::clone(&told);
    let upstream = Server::start(bind(), move |connection| {
        let mut reader = BufReader::new(connection.try_clone()?);
        for answers in [true, false] {
            let head = read_head(&mut reader)?.ok_or_else(|| anyhow::anyhow!("closed"))?;
            let header = |name| head.header(name).map(str::to_owned);
            let names = ["host", "x-envoy-original-host", "x-forwarded-host"];
            notes.lock().unwrap().push(names.map(header));
            if answers {
                (&connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
        }
        Ok(())
    })
    .unwrap();
    let routes = "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [{
        match: { prefix: / }, route: { cluster: up, auto_host_rewrite: true,
        append_x_forwarded_host: true } }] }] }";
    let hostname = "load_assignment: { cluster_name: up, endpoints: [{ lb_endpoints: [{ endpoint: {
        hostname: endpoint.example, address: { socket_address: {
        address: 127.0.0.1, port_value: PORT } } } }] }] }"
        .replace("PORT", &upstream.address().port().to_string());
    let bootstrap = Bootstrap::http(routes).cluster("up", upstream.address(), &hostname);
    let proxy = Proxy::ours(&bootstrap);
    let mut client = proxy.client();
    for _ in 0..2 {
        let answer = client.get("client.example", "/").unwrap();
        assert_eq!(answer.status().unwrap(), 200);
    }
    let expected = ["endpoint.example", "client.example", "client.example"];
    let expected = expected.map(|host| Some(host.to_owned()));
    assert_eq!(*told.lock().unwrap(), vec![expected; 3]);
}

#[test]
fn a_fresh_connection_that_dies_is_no_reason_to_try_again() {
    let seen: Arc<Mutex<u32>> = Arc::default();
    let counter = Arc::clone(&seen);
    let upstream = Server::start(bind(), move |connection| {
        let mut reader = BufReader::new(connection);
        read_head(&mut reader)?;
        *counter.lock().unwrap() += 1;
        Ok(())
    })
    .unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(upstream.address(), ""));
    let answer = proxy.client().get("a", "/").unwrap();
    assert_eq!(answer.status().unwrap(), 503);
    assert_eq!(*seen.lock().unwrap(), 1);
}

#[test]
fn a_response_that_has_begun_is_not_asked_for_again() {
    let upstream = Server::start(bind(), |connection| {
        let mut reader = BufReader::new(connection.try_clone()?);
        read_head(&mut reader)?;
        (&connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        read_head(&mut reader)?;
        (&connection).write_all(b"HTTP/1.1 200")?;
        Ok(())
    })
    .unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(upstream.address(), ""));
    let mut client = proxy.client();
    assert_eq!(client.get("a", "/").unwrap().status().unwrap(), 200);
    assert_eq!(client.get("a", "/").unwrap().status().unwrap(), 503);
    assert_eq!(proxy.stat("cluster.up.upstream_rq_retry"), Some(0));
}

#[test]
fn a_server_that_closes_at_random_fails_nobody() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let proxy = Proxy::ours(&Bootstrap::forward(app.address(), ""));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let mut client = proxy.client();
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let answer = client.get("a", "/?closes=3&size=10").unwrap();
                    assert_eq!(answer.status().unwrap(), 200);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
