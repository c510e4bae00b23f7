//! Connections between our own two ends, and with rustls's own as the peer, over loopback.

use std::io::{ErrorKind, Read as _, Write as _};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::client::{ClientContext, ServerNames};
use super::error::TlsError;
use super::server::ServerContext;
use super::stream::Stream;
use super::testing::{Authority, CLIENT, SERVER, Side, downstream, mutual, upstream};
use crate::config::secret::{Secret, ValidationContext};
use crate::config::tls::{TlsVersion, UpstreamTls, Validation};
use crate::discovery::slot::Slot;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

type Ends = (Result<Stream, TlsError>, Result<Stream, TlsError>);

async fn handshake(server: &ServerContext, client: &ClientContext, alpn: &[&[u8]]) -> Ends {
    let (near, far) = sockets().await;
    let connect = async {
        let mut stream = Stream::from(client.connect(near, alpn, ServerNames::default()).await?);
        stream.flush().await?;
        Ok(stream)
    };
    let accept = async { Ok(Stream::from(server.accept(far, None, Vec::new()).await?)) };
    tokio::join!(connect, accept)
}

async fn established(server: &ServerContext, client: &ClientContext) -> (Stream, Stream) {
    let (client, server) = handshake(server, client, &[]).await;
    (client.unwrap(), server.unwrap())
}

fn pattern(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect()
}

#[tokio::test]
async fn both_ends_know_the_peer_and_half_close_works_both_ways() {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let authority = Authority::new();
        let server = Side::new(&authority, SERVER, CLIENT).version(version);
        let client = Side::new(&authority, CLIENT, SERVER);
        let (mut near, mut far) =
            established(&server.server().unwrap(), &client.client().unwrap()).await;

        let seen = far.handshake().unwrap();
        assert_eq!(seen.version, version);
        assert_eq!(&*seen.peer_uris[0], CLIENT);
        assert_eq!(seen.own_uri.as_deref(), Some(SERVER));
        assert_eq!(&*near.handshake().unwrap().peer_uris[0], SERVER);

        near.write_all(b"question").await.unwrap();
        let mut first = [0; 5];
        far.read_exact(&mut first).await.unwrap();
        far.unread(&first);
        near.shutdown().await.unwrap();
        let mut text = Vec::new();
        far.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"question");
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        text.clear();
        near.read_to_end(&mut text).await.unwrap();
        assert_eq!(text, b"answer");
        assert_eq!(
            near.write(b"more").await.unwrap_err().kind(),
            ErrorKind::BrokenPipe
        );
    }
}

#[tokio::test]
async fn bulk_data_arrives_unchanged_both_ways_at_once() {
    let (server, client) = mutual();
    for chunk in [1000, 16 << 10, 1 << 20] {
        let (near, far) = established(&server, &client).await;
        let data = Arc::new(pattern(32 << 20));
        let (mut near_read, mut near_write) = tokio::io::split(near);
        let (mut far_read, mut far_write) = tokio::io::split(far);
        let send = async |write: &mut tokio::io::WriteHalf<Stream>| {
            for part in data.chunks(chunk * 3) {
                write.write_all(part).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let receive = async |read: &mut tokio::io::ReadHalf<Stream>| {
            let mut buffer = vec![0; chunk];
            let mut at = 0;
            loop {
                let length = read.read(&mut buffer).await.unwrap();
                if length == 0 {
                    break;
                }
                assert!(buffer[..length] == data[at..at + length], "at {at}");
                at += length;
            }
            assert_eq!(at, data.len());
        };
        tokio::join!(
            send(&mut near_write),
            send(&mut far_write),
            receive(&mut near_read),
            receive(&mut far_read)
        );
    }
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error_and_an_abort_is_a_reset() {
    let (server, client) = mutual();
    let (mut near, far) = established(&server, &client).await;
    drop(far);
    let error = near.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof);

    let (mut near, far) = established(&server, &client).await;
    far.abort();
    let error = near.read(&mut [0; 10]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn our_key_is_replaced_at_its_limit_and_a_peer_that_changes_its_own_is_followed() {
    let (server, client) = mutual();
    let (mut near, mut far) = established(&server, &client).await;
    for stream in [&mut near, &mut far] {
        if let Stream::Tls(tls) = stream {
            tls.limit_key(3);
        }
    }
    let mut buffer = [0; 5];
    for _ in 0..10 {
        near.write_all(b"hello").await.unwrap();
        far.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        far.write_all(b"world").await.unwrap();
        near.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"world");
    }

    let authority = Authority::new();
    let side = Side::new(&authority, SERVER, CLIENT);
    let server = side.server().unwrap();
    let (near, far) = sockets().await;
    let near = near.into_std().unwrap();
    near.set_nonblocking(false).unwrap();
    let peer = std::thread::spawn(move || {
        let (certificate, key) = authority.issue(CLIENT, "client.test");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.root.clone()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(super::secrets::default_provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate], key)
                .unwrap();
        let name = "workload.test".try_into().unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, near);
        let mut buffer = [0; 5];
        for _ in 0..20 {
            stream.write_all(b"hello").unwrap();
            // It asks us for a new key, too.
            stream.conn.refresh_traffic_keys().unwrap();
            stream.read_exact(&mut buffer).unwrap();
            assert_eq!(&buffer, b"hello");
        }
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    });
    let mut far = Stream::from(server.accept(far, None, Vec::new()).await.unwrap());
    let mut buffer = [0; 5];
    loop {
        match far.read(&mut buffer).await.unwrap() {
            0 => break,
            length => far.write_all(&buffer[..length]).await.unwrap(),
        }
    }
    far.shutdown().await.unwrap();
    peer.join().unwrap();
}

#[tokio::test]
async fn alpn_is_the_servers_first_that_the_client_offers_or_none() {
    type Case<'a> = (&'a [&'a str], &'a [&'a [u8]], &'a [u8]);
    let cases: [Case<'_>; 5] = [
        (&["h2", "http/1.1"], &[b"http/1.1", b"h2"], b"h2"),
        (&["h2", "http/1.1"], &[b"http/1.1"], b"http/1.1"),
        (&["h2"], &[b"istio"], b""),
        (&["h2"], &[], b""),
        (&[], &[b"h2"], b""),
    ];
    for (ours, theirs, agreed) in cases {
        let authority = Authority::new();
        let server = Side::new(&authority, SERVER, CLIENT).alpn(ours);
        let client = Side::new(&authority, CLIENT, SERVER);
        let (near, far) =
            handshake(&server.server().unwrap(), &client.client().unwrap(), theirs).await;
        assert_eq!(
            near.unwrap().handshake().unwrap().alpn,
            agreed,
            "{theirs:?}"
        );
        assert_eq!(far.unwrap().handshake().unwrap().alpn, agreed, "{theirs:?}");
    }
}

#[tokio::test]
async fn wrong_names_strangers_and_missing_certificates_are_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let good = Side::new(&ours, SERVER, CLIENT);
    let cases = [
        (
            Side::new(&ours, SERVER, "spiffe://cluster.local/x"),
            Side::new(&ours, CLIENT, SERVER),
        ),
        (
            Side::new(&other, SERVER, ""),
            Side::new(&ours, CLIENT, SERVER),
        ),
        (
            Side::new(&ours, SERVER, ""),
            Side::new(&ours, CLIENT, CLIENT),
        ),
    ];
    for (server, client) in cases {
        let (near, far) =
            handshake(&server.server().unwrap(), &client.client().unwrap(), &[]).await;
        // The client may find out with its first read only (TLS 1.3).
        assert!(far.is_err());
        if let Ok(mut near) = near {
            let error = near.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "an alert, not an end");
        }
    }

    let mut anonymous = Side::new(&ours, CLIENT, SERVER);
    anonymous.settings.certificates.clear();
    let (_, far) = handshake(&good.server().unwrap(), &anonymous.client().unwrap(), &[]).await;
    assert!(matches!(far.unwrap_err(), TlsError::Refused(_)));

    // Plaintext at a TLS listener.
    let (mut near, far) = sockets().await;
    near.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let refused = good.server().unwrap().accept(far, None, Vec::new()).await;
    assert!(matches!(refused.unwrap_err(), TlsError::Handshake(_)));
}

#[tokio::test]
async fn secrets_come_late_change_and_stay_in_use_when_the_new_ones_are_bad() {
    let authority = Authority::new();
    let server = Side::new(&authority, SERVER, CLIENT);
    let mut client = Side::new(&authority, CLIENT, SERVER);
    let slot = Slot::empty("default");
    client.settings.certificates = vec![Arc::clone(&slot)];
    let (server, client) = (server.server().unwrap(), client.client().unwrap());
    assert!(!client.is_ready());
    let names: Vec<_> = client.slots().map(|slot| slot.name().to_string()).collect();
    assert_eq!(names, ["default", "ROOTCA"]);
    let (near, _) = handshake(&server, &client, &[]).await;
    assert!(matches!(near.unwrap_err(), TlsError::SecretMissing(name) if &*name == "default"));

    slot.set(Some(authority.secret(CLIENT)));
    assert!(client.is_ready());
    let (first, mut far) = established(&server, &client).await;
    let before = far.handshake().unwrap().peer_chain.clone();
    slot.set(Some(authority.secret(CLIENT)));
    let (_near, renewed) = established(&server, &client).await;
    assert_ne!(renewed.handshake().unwrap().peer_chain, before);
    // The old connection goes on.
    let mut first = first;
    first.write_all(b"x").await.unwrap();
    far.read_exact(&mut [0]).await.unwrap();

    slot.set(Some(authority.trust("")));
    let (_near, kept) = established(&server, &client).await;
    assert_eq!(&*kept.handshake().unwrap().peer_uris[0], CLIENT);
}

#[tokio::test]
async fn contexts_without_roots_verify_nobody() {
    let authority = Authority::new();
    let mut server = Side::new(&authority, SERVER, CLIENT);
    server.settings.validation = Validation::None;
    let open = ServerContext::new(downstream(server.settings.clone())).unwrap();
    let mut client = Side::new(&authority, CLIENT, SERVER);
    client.settings.validation = Validation::None;
    let client = ClientContext::new(UpstreamTls {
        sni: "".into(),
        max_session_keys: 0,
        ..upstream(client.settings)
    })
    .unwrap();
    let (near, far) = established(&open, &client).await;
    assert!(
        far.handshake().unwrap().peer_chain.is_empty(),
        "not asked for"
    );
    assert_eq!(near.handshake().unwrap().peer_chain.len(), 1);

    // No certificate will do where one is required and nothing says how to verify it.
    let none = server.server().unwrap();
    let (_, refused) = handshake(&none, &client, &[]).await;
    assert!(matches!(refused, Err(TlsError::Refused(_))), "{refused:?}");

    let names_only = ValidationContext {
        trusted_ca: Vec::new(),
        ..authority.validation(CLIENT)
    };
    server.settings.validation =
        Validation::Context(Slot::filled("v", Arc::new(Secret::Validation(names_only))));
    assert!(matches!(server.server(), Err(TlsError::NamesWithoutRoots)));
}
