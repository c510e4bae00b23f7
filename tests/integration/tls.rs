//! TLS on both sides of the HTTP connection manager: identities told to the next hop, filter chains
//! chosen by SNI and ALPN, and what the proxy says of itself to an endpoint.

use outrider_testkit::servers;
use serde_json::{Value, json};

use crate::harness::tls::{Certificates, Hello, TlsClient, app, client_config};
use crate::harness::{Bootstrap, Outcome, Pair, bind, http_filter};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn client_certificates_are_told_as_configured() {
    let certificates = Certificates::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    let optional = certificates.socket("DownstreamTlsContext", Some(&certificates.server), "");
    for mode in [
        "SANITIZE",
        "FORWARD_ONLY",
        "APPEND_FORWARD",
        "SANITIZE_SET",
        "ALWAYS_FORWARD_ONLY",
    ] {
        for details in [
            "{ subject: true, cert: true, chain: true, dns: true, uri: true }",
            "{ uri: true }",
            "{}",
        ] {
            let manager = format!(
                "{{ forward_client_cert_details: {mode}, set_current_client_cert_details: {details} }}"
            );
            let bootstrap = Bootstrap::forward(upstream.address(), &manager).amend_chain(&optional);
            let mut pair = Pair::start(&bootstrap);
            for certificate in [Some(&certificates.client), None] {
                for theirs in [
                    "",
                    "x-forwarded-client-cert: By=spiffe://x/y;Hash=00;URI=spiffe://forged/z\r\n",
                ] {
                    let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{theirs}\r\n");
                    let who = if certificate.is_some() {
                        "mutual"
                    } else {
                        "anonymous"
                    };
                    pair.same(&format!("{mode} {details} {who} {theirs}"), |proxy| {
                        let hello = Hello {
                            certificate,
                            ..Hello::default()
                        };
                        let mut client = TlsClient::connect(proxy.listener(), hello).unwrap();
                        Outcome::from(client.exchange(&request).unwrap())
                    });
                }
            }
        }
    }
}

#[test]
fn a_listener_that_demands_a_certificate_gets_one_of_its_roots() {
    let certificates = Certificates::new();
    let strangers = Certificates::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    let strict = certificates.socket(
        "DownstreamTlsContext",
        Some(&certificates.server),
        "require_client_certificate: true",
    );
    let bootstrap = Bootstrap::forward(upstream.address(), "").amend_chain(&strict);
    let mut pair = Pair::start(&bootstrap);
    for (who, certificate) in [
        ("ours", Some(&certificates.client)),
        ("a stranger's", Some(&strangers.client)),
        ("none", None),
    ] {
        pair.same(who, |proxy| {
            let hello = Hello {
                certificate,
                ..Hello::default()
            };
            TlsClient::connect(proxy.listener(), hello)
                .and_then(|mut client| client.exchange(GET))
                .and_then(|answer| answer.status())
                .ok()
        });
    }
    pair.same("plaintext", |proxy| proxy.client().exchange(GET).is_ok());
    pair.same_stats(&["http.in.downstream_rq_total"]);
}

#[test]
fn chains_are_chosen_by_server_name_alpn_and_transport() {
    let certificates = Certificates::new();
    let chain = |answer: &str, matches: &str, tls: bool, alpn: &str| -> Value {
        let manager = format!(
            "route_config: {{ virtual_hosts: [{{ name: all, domains: ['*'], routes: [{{ \
             match: {{ prefix: / }}, direct_response: {{ status: 200, body: {{ \
             inline_string: {answer} }} }} }}] }}] }}"
        );
        let mut chain = json!({
            "filter_chain_match": serde_norway::from_str::<Value>(matches).unwrap(),
            "filters": [http_filter(&manager)],
        });
        if tls {
            let alpn = format!("common_tls_context: {{ alpn_protocols: [{alpn}] }}");
            let socket =
                certificates.socket("DownstreamTlsContext", Some(&certificates.server), &alpn);
            let socket: Value = serde_json::from_str(&socket).unwrap();
            chain["transport_socket"] = socket["transport_socket"].clone();
        }
        chain
    };
    let chains = vec![
        chain(
            "exact",
            "{ server_names: [a.example], transport_protocol: tls }",
            true,
            "h2, http/1.1",
        ),
        chain(
            "exact-mesh",
            "{ server_names: [a.example], application_protocols: [mesh] }",
            true,
            "mesh",
        ),
        chain(
            "wildcard",
            "{ server_names: ['*.example'] }",
            true,
            "http/1.1",
        ),
        chain(
            "alpn",
            "{ application_protocols: [special] }",
            true,
            "special",
        ),
        chain("tls", "{ transport_protocol: tls }", true, "h2, http/1.1"),
        chain("plain", "{ transport_protocol: raw_buffer }", false, ""),
    ];
    let inspector = "listener_filters: [{ name: envoy.filters.listener.tls_inspector, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector } }]";
    let mut pair = Pair::start(&Bootstrap::new().listener("tls", chains, inspector));
    let hellos: &[(Option<&str>, &[&str])] = &[
        (Some("a.example"), &[]),
        (Some("A.EXAMPLE"), &["http/1.1"]),
        (Some("a.example"), &["mesh"]),
        (Some("a.example"), &["mesh", "http/1.1"]),
        (Some("a.example"), &["unknown"]),
        (Some("b.example"), &["http/1.1"]),
        (Some("x.y.example"), &[]),
        (Some("other.test"), &["special"]),
        (Some("other.test"), &["http/1.1"]),
        (None, &["special", "http/1.1"]),
        (None, &[]),
    ];
    for (server_name, alpn) in hellos {
        pair.same(&format!("{server_name:?} {alpn:?}"), |proxy| {
            let hello = Hello {
                server_name: *server_name,
                alpn,
                certificate: None,
            };
            let client = TlsClient::connect(proxy.listener(), hello);
            let Ok(mut client) = client else {
                return (None, None);
            };
            let answer = client.exchange(GET).map(|answer| answer.text());
            (client.alpn(), answer.ok())
        });
    }
    pair.same("plain", |proxy| {
        proxy.client().get("a", "/").unwrap().text()
    });
}

#[test]
fn http2_is_agreed_by_alpn() {
    let certificates = Certificates::new();
    let upstream = servers::http1::echo(bind(), "app").unwrap();
    let socket = certificates.socket(
        "DownstreamTlsContext",
        Some(&certificates.server),
        "common_tls_context: { alpn_protocols: [h2, http/1.1] }",
    );
    let bootstrap = Bootstrap::forward(upstream.address(), "").amend_chain(&socket);
    let mut pair = Pair::start(&bootstrap);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    pair.same("h2", |proxy| {
        runtime.block_on(async {
            let hello = Hello {
                server_name: Some("a.example"),
                alpn: &["h2"],
                certificate: None,
            };
            let connector = tokio_rustls::TlsConnector::from(client_config(hello));
            let socket = tokio::net::TcpStream::connect(proxy.listener())
                .await
                .unwrap();
            let name = rustls::pki_types::ServerName::try_from("a.example").unwrap();
            let stream = connector.connect(name, socket).await.unwrap();
            let client = outrider_testkit::clients::http2::Client::handshake(stream)
                .await
                .unwrap();
            let answer = client.get("https://a.example/").await.unwrap();
            let echo: Value = serde_json::from_slice(&answer.body().body).unwrap();
            crate::harness::seen_headers(echo)
        })
    });
}

/// Envoy offers an endpoint no more than TLS 1.2 unless it is told to, ours TLS 1.3.
fn newest(socket: &str) -> String {
    let mut socket: Value = serde_json::from_str(socket).unwrap();
    let common = &mut socket["transport_socket"]["typed_config"]["common_tls_context"];
    if common.get("tls_params").is_none() {
        common["tls_params"] = json!({ "tls_maximum_protocol_version": "TLSv1_3" });
    }
    socket.to_string()
}

#[test]
fn endpoints_see_the_configured_name_protocol_and_certificate() {
    let certificates = Certificates::new();
    let server = app(bind(), &certificates, true, &["http/1.1", "mesh"]);
    let san = "common_tls_context: { validation_context: { match_typed_subject_alt_names: [{ \
               san_type: URI, matcher: { exact: 'spiffe://cluster.local/ns/test/sa/SAN' } }] } }";
    let right = san.replace("SAN", "server");
    let wrong = san.replace("SAN", "other");
    let with = |leaf, more: &str| newest(&certificates.socket("UpstreamTlsContext", leaf, more));
    let client = Some(&certificates.client);
    for (what, socket) in [
        (
            "mutual",
            with(client, &format!("{{ sni: a.example, {} }}", &right)),
        ),
        ("no certificate", with(None, "sni: a.example")),
        ("no name", with(client, "")),
        ("another server", with(client, &wrong)),
        (
            "protocol",
            with(client, "common_tls_context: { alpn_protocols: [mesh] }"),
        ),
        (
            "TLS 1.2",
            with(
                client,
                "common_tls_context: { tls_params: { tls_maximum_protocol_version: TLSv1_2 } }",
            ),
        ),
    ] {
        let bootstrap = Bootstrap::forward(server.address(), "").amend_cluster(&socket);
        let mut pair = Pair::start(&bootstrap);
        pair.same(what, |proxy| {
            let answer = proxy.client().exchange(GET).unwrap();
            let status = answer.status().unwrap();
            let log = proxy.log_line();
            // Why a handshake failed is said in each library's own words.
            let log = log.split(['|', '{']).next().unwrap().to_owned();
            (status, answer.json().ok(), log)
        });
        pair.same_stats(&[
            "cluster.up.ssl.handshake",
            "cluster.up.upstream_cx_connect_fail",
        ]);
    }
}

#[test]
fn the_protocol_towards_an_endpoint_can_be_agreed_by_alpn() {
    let certificates = Certificates::new();
    let auto = "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    auto_config: { http_protocol_options: {}, http2_protocol_options: {} }";
    let server = app(bind(), &certificates, false, &["http/1.1"]);
    let socket = newest(&certificates.socket("UpstreamTlsContext", None, ""));
    let bootstrap = Bootstrap::forward(server.address(), "")
        .amend_cluster(&socket)
        .amend_cluster(auto);
    let mut pair = Pair::start(&bootstrap);
    let answer = pair.same("auto", |proxy| {
        proxy.client().exchange(GET).unwrap().json().unwrap()
    });
    assert_eq!(answer["alpn"], "http/1.1");
}
