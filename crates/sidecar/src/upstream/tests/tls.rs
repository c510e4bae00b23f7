//! Clusters that speak TLS: ALPN, timeouts, failures, and the choice of the transport socket.

use tokio::task::spawn_local;

use super::*;
use crate::config::cluster::TransportSocketMatch;
use crate::tls::testing::{Authority, CLIENT, SERVER, Side, mutual};

#[test]
fn alpn_decides_and_a_burst_waits_for_its_outcome() {
    on_worker(async {
        for (offered, version, connections) in
            [("h2", Version::Http2, 1), ("http/1.1", Version::Http11, 4)]
        {
            let authority = Authority::new();
            let side = Side::new(&authority, SERVER, CLIENT).alpn(&[offered]);
            let context = side.server().expect("a server context");
            let server = Server::tls(Answer::WhenReleased, context).await;
            let client = Side::new(&authority, CLIENT, SERVER);
            let mut auto = config([endpoint(server.address)]);
            auto.protocol = UpstreamProtocol::Auto;
            auto.transport_socket = UpstreamTransport::Tls(client.client().expect("a context"));
            let worker = Worker::new(auto);
            let requests: Vec<_> = (0..4)
                .map(|_| {
                    let worker = worker.clone();
                    spawn_local(async move {
                        let mut exchange = worker.exchange().await.expect("an exchange");
                        finish(&mut exchange).await.expect("a response");
                        exchange.version()
                    })
                })
                .collect();
            until("all arrive", || server.requests() == 4).await;
            server.release();
            for request in requests {
                assert_eq!(request.await.expect("an answer"), version);
            }
            assert_eq!(server.accepted(), connections, "{offered}");
            worker.assert_quiet();
        }
    });
}

#[test]
fn the_connect_timeout_covers_the_handshake() {
    on_worker(async {
        // It accepts, and waits for a request in clear text.
        let silent = Server::http1(Answer::Now).await;
        let (_, client) = mutual();
        let mut hasty = config([endpoint(silent.address)]);
        hasty.connect_timeout = Duration::from_millis(100);
        hasty.transport_socket = UpstreamTransport::Tls(client);
        let worker = Worker::new(hasty);
        assert_eq!(worker.exchange().await.err(), Some(UpstreamError::Timeout));
        assert_eq!(worker.stat("upstream_cx_connect_timeout"), 1);
        until("it is closed", || silent.open() == 0).await;
        worker.assert_quiet();
    });
}

#[test]
fn a_failed_handshake_says_why() {
    on_worker(async {
        let (context, _) = mutual();
        let server = Server::tls(Answer::Now, context).await;
        let (_, stranger) = mutual();
        let mut wrong = config([endpoint(server.address)]);
        wrong.transport_socket = UpstreamTransport::Tls(stranger);
        let worker = Worker::new(wrong);
        let error = worker.exchange().await.expect_err("an error");
        assert!(matches!(error, UpstreamError::Tls { .. }), "{error:?}");
        assert!(
            error.transport_failure().starts_with("TLS_error:"),
            "{error}"
        );
        assert!(!error.details().contains(' '), "{}", error.details());
        worker.assert_quiet();
    });
}

#[test]
fn metadata_chooses_the_transport_socket() {
    on_worker(async {
        let (context, client) = mutual();
        let (encrypted, plain) = (
            Server::tls(Answer::Now, context).await,
            Server::http1(Answer::Now).await,
        );
        let mutual_tls = BTreeMap::from([("tlsMode".to_owned(), "istio".into())]);
        let mut in_mesh = endpoint(encrypted.address);
        in_mesh.transport_socket_match = mutual_tls.clone();
        let mut both = config([in_mesh.clone(), endpoint(plain.address)]);
        both.transport_socket_matches = vec![TransportSocketMatch {
            criteria: mutual_tls,
            transport: UpstreamTransport::Tls(client),
        }];
        let worker = Worker::new(both);
        for _ in 0..4 {
            worker.get().await;
        }
        assert_eq!((encrypted.requests(), plain.requests()), (2, 2));

        // The same address without the metadata is another target: its old connections are no use.
        until("both are idle", || worker.stat("upstream_cx_active") == 2).await;
        in_mesh.transport_socket_match.clear();
        worker.assign([in_mesh]);
        until("all are closed", || encrypted.open() + plain.open() == 0).await;
    });
}
