//! What the client gets when upstream cannot be reached, is slow, or breaks off.

use std::time::{Duration, Instant};

use outrider_testkit::servers;
use outrider_testkit::servers::script::{Script, Step};

use crate::harness::{Bootstrap, Outcome, Pair, Proxy, bind, closed_address, exchange};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn endpoints_that_cannot_be_reached() {
    let bootstrap = Bootstrap::http(
        "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [
           { match: { prefix: /refused }, route: { cluster: refused } },
           { match: { prefix: /empty }, route: { cluster: empty } },
           { match: { prefix: /slow }, route: { cluster: slow } },
           { match: { prefix: /timeout }, route: { cluster: slow, timeout: 0.2s } },
           { match: { prefix: /tls }, route: { cluster: tls } } ] }] }",
    )
    .cluster("refused", closed_address(), "")
    .cluster("empty", closed_address(), "load_assignment: { cluster_name: empty, endpoints: [] }")
    // Discard-only (RFC 6666): nothing answers.
    .cluster("slow", "[100::1]:9".parse().unwrap(), "connect_timeout: 0.5s")
    .cluster(
        "tls",
        closed_address(),
        "transport_socket: { name: tls, typed_config: { '@type': \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {} } }",
    );
    let mut pair = Pair::start(&bootstrap);
    for path in ["/refused", "/empty", "/tls"] {
        for headers in ["", "content-type: application/grpc\r\n"] {
            pair.check(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
            let post =
                format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n{headers}\r\nabc");
            // A body that nobody gets is not counted by ours.
            // And where no endpoint is chosen, Envoy closes the connection before the body has come.
            pair.check_with(&post, |outcome| {
                if path == "/empty" {
                    outcome.ignore("connection");
                    outcome.kept = true;
                }
                outcome.log = outcome.log.as_ref().map(|log| log.replace(" 3 ", " 0 "));
            });
        }
    }
    pair.same_stats(&[
        "cluster.refused.upstream_cx_connect_fail",
        "cluster.refused.upstream_cx_total",
        "cluster.refused.upstream_rq_total",
        "cluster.refused.upstream_rq_pending_failure_eject",
        "cluster.refused.upstream_rq_pending_total",
        "cluster.refused.upstream_rq_503",
        "cluster.refused.upstream_rq_5xx",
        "cluster.empty.upstream_cx_none_healthy",
        "cluster.empty.upstream_rq_503",
        "http.in.downstream_rq_5xx",
    ]);
}

#[test]
fn connections_that_take_too_long() {
    // A full backlog: the kernel drops what comes beyond it.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let fill: Vec<_> = (0..4)
        .map(|_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)))
        .collect();
    let bootstrap = Bootstrap::http(
        "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [
           { match: { prefix: /timeout }, route: { cluster: slow, timeout: 0.2s } },
           { match: { prefix: / }, route: { cluster: slow } } ] }] }",
    )
    .cluster("slow", address, "connect_timeout: 0.5s");
    let mut pair = Pair::start(&bootstrap);
    pair.check(GET);
    pair.check("GET /timeout HTTP/1.1\r\nHost: a\r\n\r\n");
    pair.same_stats(&[
        "cluster.slow.upstream_cx_connect_timeout",
        "cluster.slow.upstream_cx_connect_fail",
        "cluster.slow.upstream_rq_timeout",
    ]);
    drop(fill);
}

#[test]
fn timeouts_are_envoys() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let manager = "{ stream_idle_timeout: 0.4s, route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [
       { match: { prefix: /short }, route: { cluster: up, timeout: 0.2s } },
       { match: { prefix: /off }, route: { cluster: up, timeout: 0s } },
       { match: { prefix: /idle }, route: { cluster: up, idle_timeout: 0.2s } },
       { match: { prefix: /never }, route: { cluster: up, idle_timeout: 0s } },
       { match: { prefix: /duration }, route: { cluster: up, max_stream_duration: { max_stream_duration: 0.2s } } },
       { match: { prefix: /both }, route: { cluster: up, timeout: 5s, max_stream_duration: { max_stream_duration: 9s } } },
       { match: { prefix: /grpc }, route: { cluster: up, max_stream_duration: { grpc_timeout_header_max: 2s } } },
       { match: { prefix: / }, route: { cluster: up } } ] }] } }";
    let mut pair = Pair::start(&Bootstrap::http(manager).cluster("up", app.address(), ""));
    for request in [
        "GET /short?delay=1000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /short?delay=1000 HTTP/1.1\r\nHost: a\r\ncontent-type: application/grpc\r\n\r\n",
        "POST /short?delay=1000 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "GET /off?delay=300 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /idle?delay=1000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /idle?delay=1000 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST /idle HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        "GET /never?delay=600 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x?delay=1000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /duration?delay=1000 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /duration HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        "GET /grpc?delay=1000 HTTP/1.1\r\nHost: a\r\ngrpc-timeout: 100m\r\n\r\n",
        "GET /grpc HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /both HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        pair.check(request);
    }
    pair.same_stats(&[
        "http.in.downstream_rq_idle_timeout",
        "http.in.downstream_rq_max_duration_reached",
        "http.in.downstream_rq_timeout",
        "cluster.up.upstream_rq_timeout",
        "cluster.up.upstream_rq_504",
        "cluster.up.upstream_rq_200",
        "cluster.up.upstream_rq_tx_reset",
        "cluster.up.upstream_rq_rx_reset",
        "http.in.downstream_rq_4xx",
        "http.in.downstream_rq_5xx",
    ]);
}

#[test]
fn requests_that_do_not_come_to_their_end() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let manager = "{ request_timeout: 0.3s, request_headers_timeout: 0.2s, \
                   common_http_protocol_options: { idle_timeout: 0.5s } }";
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), manager));
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\n",
        "GE",
    ] {
        pair.check(request);
    }
    // Silence is no request.
    pair.same("idle", |proxy| {
        let began = Instant::now();
        let rest = proxy.client().read_to_end().ok();
        (rest, began.elapsed() >= Duration::from_millis(400))
    });
    pair.same_stats(&[
        "http.in.downstream_rq_timeout",
        "http.in.downstream_rq_header_timeout",
        "http.in.downstream_cx_idle_timeout",
        "http.in.downstream_rq_total",
        "http.in.downstream_rq_4xx",
    ]);
}

/// The bytes of a broken response, as far as they came, and the log.
fn broken(proxy: &mut Proxy, request: &str) -> (String, bool, String) {
    let mut client = proxy.client();
    client.send(request).unwrap();
    let head = client
        .read_head()
        .map(|head| head.start)
        .unwrap_or_default();
    let whole = client.read_to_end().is_ok();
    (head, whole, proxy.log_line())
}

#[test]
fn responses_that_break_off() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let bootstrap = Bootstrap::forward(app.address(), "");
    let mut pair = Pair::start(&bootstrap);
    let mut alone = Proxy::ours(&bootstrap);
    for path in ["/?hangup=before", "/?hangup=before&reset=1"] {
        pair.check(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        pair.check(&format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
        ));
    }
    for path in [
        "/?hangup=head&size=100",
        "/?hangup=body&size=100",
        "/?hangup=body&size=100&framing=chunked",
        "/?hangup=body&size=100&reset=1",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        // Ours ends a truncated response with a RST, so that it can never pass for whole.
        pair.same(path, |proxy| {
            let (head, _, log) = broken(proxy, &request);
            (head, log)
        });
        let (head, whole, _) = broken(&mut alone, &request);
        assert_eq!(head, "HTTP/1.1 200 OK", "{path}");
        assert!(
            !whole,
            "{path}: the end of a truncated response must be an error"
        );
    }
    pair.same_stats(&[
        "cluster.up.upstream_rq_rx_reset",
        "http.in.downstream_rq_tx_reset",
    ]);
}

#[test]
fn timeouts_after_the_head_cut_the_response() {
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello";
    let script = vec![Step::read_head(), Step::write(part), Step::ReadToEnd];
    let server = Script::start(bind(), script).unwrap();
    for route in ["timeout: 0.2s", "idle_timeout: 0.2s"] {
        let manager = format!(
            "route_config: {{ virtual_hosts: [{{ name: all, domains: ['*'], routes: [\
             {{ match: {{ prefix: / }}, route: {{ cluster: up, {route} }} }}] }}] }}"
        );
        let address = server.server().address();
        let mut pair = Pair::start(&Bootstrap::http(&manager).cluster("up", address, ""));
        pair.same(route, |proxy| {
            let (head, _, log) = broken(proxy, GET);
            (head, log)
        });
    }
}

#[test]
fn circuit_breakers_answer_for_a_cluster_that_is_full() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let limits = |limits: &str| format!("circuit_breakers: {{ thresholds: [{{ {limits} }}] }}");
    let full = [
        ("max_requests: 1", 1),
        ("max_connections: 1, max_pending_requests: 1", 2),
    ];
    for (limit, places) in full {
        let bootstrap = Bootstrap::http(crate::harness::ROUTES_TO_UP).cluster(
            "up",
            app.address(),
            &limits(limit),
        );
        let mut pair = Pair::start(&bootstrap);
        pair.same(limit, |proxy| -> Outcome {
            let slow = "GET /?delay=700 HTTP/1.1\r\nHost: a\r\n\r\n";
            let mut first = proxy.client();
            first.send(slow).unwrap();
            proxy.wait_for_stat("cluster.up.upstream_rq_active", 1);
            let mut second = (places == 2).then(|| proxy.client());
            if let Some(second) = &mut second {
                second.send(slow).unwrap();
                proxy.wait_for_stat("cluster.up.upstream_rq_pending_active", 1);
            }
            let mut outcome = exchange(proxy.listener(), GET.as_bytes());
            outcome.log = Some(proxy.log_line());
            for mut client in [Some(first), second].into_iter().flatten() {
                let answer = client.read_response(outrider_testkit::message::Kind::Response);
                assert_eq!(answer.unwrap().status().unwrap(), 200);
            }
            outcome
        });
        pair.same_stats(&[
            "cluster.up.upstream_rq_pending_overflow",
            "cluster.up.upstream_rq_active_overflow",
            "cluster.up.upstream_cx_overflow",
            "cluster.up.circuit_breakers.default.rq_open",
            "cluster.up.circuit_breakers.default.cx_open",
        ]);
    }
}

#[test]
fn a_client_that_leaves_is_noticed_at_once() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let mut pair = Pair::start(&Bootstrap::forward(app.address(), ""));
    pair.same("a client that leaves", |proxy| {
        let mut client = proxy.client();
        client
            .send("GET /?delay=3000 HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        proxy.wait_for_stat("cluster.up.upstream_rq_active", 1);
        let began = Instant::now();
        drop(client);
        let log = proxy.log_line();
        (log, began.elapsed() < Duration::from_secs(2))
    });
    pair.same_stats(&[
        "cluster.up.upstream_rq_tx_reset",
        "http.in.downstream_rq_rx_reset",
    ]);
}
