//! TCP connections, sources and Unix sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use std::net::SocketAddr;

use crate::config::cluster::BindConfig;
use crate::tls::overrides::Overrides;
use crate::upstream::ConnectRequest;

const ANYWHERE: ConnectRequest<'_> = ConnectRequest {
    overrides: Overrides::NONE,
    original_destination: None,
    name: None,
    client: &Client {
        connection: 0,
        ends: None,
        source: None,
        tlvs: None,
    },
};

#[test]
fn a_tcp_connection_is_counted_as_long_as_its_guard_lives() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let worker = Worker::new(config([endpoint(server.address)]));
        let mut upstream = worker
            .cluster()
            .connect(ANYWHERE, &mut None)
            .await
            .expect("TCP");
        assert_eq!(upstream.endpoint.address, Address::Socket(server.address));
        upstream
            .stream
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .await
            .expect("a write");
        upstream.stream.flush().await.expect("a flush");
        let mut answer = [0; 15];
        upstream
            .stream
            .read_exact(&mut answer)
            .await
            .expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        assert_eq!(worker.used(Resource::Connections), 1);
        assert_eq!(worker.used(Resource::Requests), 1);
        upstream.guard.count_bytes(15, 18);
        drop(upstream);
        worker.assert_quiet();
        assert_eq!(worker.used(Resource::Connections), 0);
        assert_eq!(worker.stat("upstream_cx_rx_bytes_total"), 15);
        assert_eq!(worker.stat("upstream_cx_destroy"), 1);
    });
}

#[test]
fn connections_come_from_the_configured_source() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let mut bound = config([endpoint(server.address)]);
        bound.bind = Some(BindConfig {
            v4: Some(SocketAddr::from(([127, 0, 0, 6], 0)).into()),
            ..BindConfig::default()
        });
        let worker = Worker::new(bound);
        let upstream = worker
            .cluster()
            .connect(ANYWHERE, &mut None)
            .await
            .expect("TCP");
        let local = upstream.stream.local_addr().expect("an address");
        assert_eq!(local.ip().to_string(), "127.0.0.6");
        assert_eq!(worker.get().await, "2");
        let sources: Vec<_> = server
            .peers()
            .iter()
            .map(|peer| peer.ip().to_string())
            .collect();
        assert_eq!(sources, ["127.0.0.6", "127.0.0.6"]);

        let mut absent = config([endpoint(server.address)]);
        absent.bind = Some(BindConfig {
            v4: Some(SocketAddr::from(([192, 0, 2, 1], 0)).into()),
            ..BindConfig::default()
        });
        worker.update(absent);
        let error = worker
            .cluster()
            .connect(ANYWHERE, &mut None)
            .await
            .err()
            .expect("an error");
        assert!(error.to_string().contains("source 192.0.2.1:0"), "{error}");
        assert_eq!(worker.stat("bind_errors"), 1);
    });
}

#[test]
fn each_family_has_its_own_source_or_none() {
    on_worker(async {
        let listener = tokio::net::TcpListener::bind("[::1]:0").await;
        let Ok(listener) = listener else {
            // This machine has no IPv6: there is nothing to see.
            return;
        };
        let address = listener.local_addr().expect("an address");
        for v6 in [
            None,
            Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0)).into()),
        ] {
            let mut bound = config([endpoint(address)]);
            bound.bind = Some(BindConfig {
                v4: Some(SocketAddr::from(([127, 0, 0, 6], 0)).into()),
                v6,
                ..BindConfig::default()
            });
            let worker = Worker::new(bound);
            let upstream = worker
                .cluster()
                .connect(ANYWHERE, &mut None)
                .await
                .expect("TCP");
            let local = upstream.stream.local_addr().expect("an address");
            assert_eq!(local.ip().to_string(), "::1");
        }
    });
}

#[test]
fn endpoints_may_be_unix_sockets() {
    on_worker(async {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("outrider-test-{}", std::process::id());
        let abstract_name =
            std::os::unix::net::SocketAddr::from_abstract_name(&name).expect("a name");
        let listener =
            std::os::unix::net::UnixListener::bind_addr(&abstract_name).expect("a listener");
        let mut pipe = endpoint(([127, 0, 0, 1], 1).into());
        pipe.address = Address::Pipe(format!("@{name}").into());
        let worker = Worker::new(config([pipe]));
        let mut upstream = worker
            .cluster()
            .connect(ANYWHERE, &mut None)
            .await
            .expect("a connection");
        upstream.stream.write_all(b"hello").await.expect("a write");
        upstream.stream.flush().await.expect("a flush");
        let (mut accepted, _) = listener.accept().expect("a connection");
        let mut hello = [0; 5];
        std::io::Read::read_exact(&mut accepted, &mut hello).expect("bytes");
        assert_eq!(&hello, b"hello");
    });
}

#[test]
fn too_many_connections_are_refused() {
    on_worker(async {
        let server = Server::http1(Answer::Now).await;
        let mut one = config([endpoint(server.address)]);
        one.circuit_breakers[0].max_connections = 1;
        let worker = Worker::new(one);
        let held = worker
            .cluster()
            .connect(ANYWHERE, &mut None)
            .await
            .expect("TCP");
        let error = worker.cluster().connect(ANYWHERE, &mut None).await.err();
        assert_eq!(error, Some(UpstreamError::Overflow));
        assert_eq!(worker.stat("upstream_cx_overflow"), 1);
        drop(held);
        assert!(worker.cluster().connect(ANYWHERE, &mut None).await.is_ok());
    });
}
