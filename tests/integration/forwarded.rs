//! What a request tells the next hop about its way, and what a stranger may not tell it.

use outrider_testkit::servers;

use crate::harness::{Bootstrap, Outcome, Pair, bind};

/// Envoy names the machine's own address for a client on loopback; ours names the client's.
fn without_own_address(outcome: &mut Outcome) {
    let own = outcome.seen("x-forwarded-for").join(",");
    if let Some(headers) = outcome.body["headers"].as_array_mut() {
        for field in headers {
            if field[0] == "x-forwarded-for"
                && let Some((before, _)) = own.rsplit_once(',')
            {
                field[1] = format!("{before},*").into();
            } else if field[0] == "x-forwarded-for" && own != "9.9.9.9" {
                field[1] = "*".into();
            }
        }
    }
}

#[test]
fn forwarding_headers_are_envoys() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let internal = "internal_address_config: { cidr_ranges: [{ address_prefix: 127.0.0.0, \
                    prefix_len: 8 }, { address_prefix: 10.0.0.0, prefix_len: 8 }] }";
    for manager in [
        "{}".to_owned(),
        "use_remote_address: true".to_owned(),
        format!("{{ use_remote_address: true, {internal} }}"),
        internal.to_owned(),
        "{ use_remote_address: true, xff_num_trusted_hops: 1 }".to_owned(),
        "xff_num_trusted_hops: 1".to_owned(),
        "{ use_remote_address: true, skip_xff_append: true, via: one }".to_owned(),
        "{ use_remote_address: true, preserve_external_request_id: true, \
         always_set_request_id_in_response: true }"
            .to_owned(),
        "generate_request_id: false".to_owned(),
    ] {
        let mut pair = Pair::start(&Bootstrap::forward(app.address(), &manager));
        let steering = "x-envoy-internal: true\r\nx-envoy-upstream-rq-timeout-ms: 5000\r\n\
             x-envoy-decorator-operation: x\r\n\
             x-envoy-downstream-service-cluster: y\r\nx-envoy-expected-rq-timeout-ms: 1\r\n\
             x-envoy-external-address: 8.8.8.8\r\nx-envoy-attempt-count: 7\r\n\
             x-envoy-original-path: /z\r\nx-envoy-original-host: z\r\nx-envoy-ip-tags: t\r\n\
             x-envoy-peer-metadata: m\r\nx-mine: 1\r\n";
        for headers in [
            "",
            "x-forwarded-for: 9.9.9.9\r\nx-forwarded-proto: https\r\n",
            "x-forwarded-for: 10.1.1.1\r\n",
            "x-forwarded-for: 9.9.9.9, 10.1.1.1\r\nx-forwarded-proto: gopher\r\n",
            "x-forwarded-for: nonsense\r\n",
            "x-request-id: mine\r\nvia: 1.1 first\r\n",
            steering,
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            let what = format!("{manager} {request}");
            pair.same(&what, |proxy| {
                let mut outcome = crate::harness::exchange(proxy.listener(), request.as_bytes());
                without_own_address(&mut outcome);
                let external = outcome.seen("x-envoy-external-address").join(",");
                if external.contains('.') {
                    outcome.ignore_seen("x-envoy-external-address");
                }
                outcome
            });
        }
    }
}

#[test]
fn server_headers_are_put_as_configured() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    for manager in [
        "server_name: mine",
        "{ server_name: mine, server_header_transformation: APPEND_IF_ABSENT }",
        "{ server_name: mine, server_header_transformation: PASS_THROUGH }",
    ] {
        let mut pair = Pair::start(&Bootstrap::forward(app.address(), manager));
        for path in ["/", "/?header=server:app/1.0", "/?header=date:yesterday"] {
            pair.check(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        pair.check("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    }
}

#[test]
fn envoys_own_headers_can_be_suppressed() {
    let app = servers::http1::echo(bind(), "app").unwrap();
    let router = "http_filters: [{ name: envoy.filters.http.router, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router,
        suppress_envoy_headers: true } }]";
    let rewrite = "route_config: { virtual_hosts: [{ name: all, domains: ['*'], routes: [{
        match: { prefix: /a }, route: { cluster: up, prefix_rewrite: /b } }] }] }";
    let bootstrap = Bootstrap::forward(app.address(), rewrite).amend_manager(router);
    let mut pair = Pair::start(&bootstrap);
    pair.check("GET /a HTTP/1.1\r\nHost: a\r\nx-envoy-upstream-rq-timeout-ms: 1\r\n\r\n");
}
