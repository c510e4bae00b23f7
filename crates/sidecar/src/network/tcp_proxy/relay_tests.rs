//! Relays over loopback: a client, our two ends (plain or TLS between them) and a server.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::relay::{End, Limits, Way, relay};
use crate::tls::client::ServerNames;
use crate::tls::stream::Stream;
use crate::tls::testing::mutual;

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// Two ends of one encrypted connection.
async fn encrypted() -> (Stream, Stream) {
    let (server, client) = mutual();
    let (near, far) = sockets().await;
    let (near, far) = tokio::join!(
        async {
            let mut stream = Stream::from(
                client
                    .connect(near, &[], ServerNames::default())
                    .await
                    .unwrap(),
            );
            stream.flush().await.unwrap();
            stream
        },
        server.accept(far, None, Vec::new())
    );
    (near, far.unwrap().into())
}

struct Path {
    client: TcpStream,
    server: TcpStream,
    ends: tokio::task::JoinHandle<(End, End)>,
}

/// client - relay - TLS - relay - server: the way through two sidecars.
async fn through_two_sidecars(idle: Option<Duration>) -> Path {
    let (client, near) = sockets().await;
    let (far, server) = sockets().await;
    let (out, into) = encrypted().await;
    let near = Stream::plain(near, Vec::new());
    let far = Stream::plain(far, Vec::new());
    let limits = Limits {
        idle,
        ..Limits::default()
    };
    let ends = tokio::task::spawn_local(async move {
        tokio::join!(
            relay(near, out, limits, |_, _| ControlFlow::Continue(())),
            relay(into, far, limits, |_, _| ControlFlow::Continue(()))
        )
    });
    Path {
        client,
        server,
        ends,
    }
}

async fn locally(test: impl Future<Output = ()>) {
    tokio::task::LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn bulk_data_and_half_closes_pass_both_ways() {
    locally(async {
        let path = through_two_sidecars(None).await;
        let (mut client_read, mut client_write) = path.client.into_split();
        let (mut server_read, mut server_write) = path.server.into_split();
        let data: Vec<u8> = (0..64u32 << 20)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let (up, down) = (&data[..], &data[1000..]);
        let check = async |read: &mut tokio::net::tcp::OwnedReadHalf, wanted: &[u8]| {
            let mut buffer = vec![0; 100_000];
            let mut at = 0;
            loop {
                let length = read.read(&mut buffer).await.unwrap();
                if length == 0 {
                    break;
                }
                assert!(buffer[..length] == wanted[at..at + length], "at {at}");
                at += length;
            }
            assert_eq!(at, wanted.len());
        };
        tokio::join!(
            async {
                client_write.write_all(up).await.unwrap();
                client_write.shutdown().await.unwrap();
            },
            check(&mut server_read, up),
        );
        // The client has ended; the server may still speak.
        tokio::join!(
            async {
                server_write.write_all(down).await.unwrap();
                server_write.shutdown().await.unwrap();
            },
            check(&mut client_read, down),
        );
        assert_eq!(path.ends.await.unwrap(), (End::Closed, End::Closed));
    })
    .await;
}

#[tokio::test]
async fn a_reset_of_either_side_reaches_the_other_as_a_reset() {
    locally(async {
        for from_client in [true, false] {
            let mut path = through_two_sidecars(None).await;
            path.client.write_all(b"ping").await.unwrap();
            let mut buffer = [0; 4];
            path.server.read_exact(&mut buffer).await.unwrap();
            let (breaks, mut sees) = if from_client {
                (path.client, path.server)
            } else {
                (path.server, path.client)
            };
            Stream::plain(breaks, Vec::new()).abort();
            let error = sees.read(&mut buffer).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            let ends = path.ends.await.unwrap();
            let (near, far) = (
                matches!(ends.0, End::DownstreamBroke(_)),
                matches!(ends.1, End::DownstreamBroke(_)),
            );
            assert_eq!((near, far), (from_client, from_client), "{ends:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_server_said_before_it_closed_arrives_though_it_takes_no_more() {
    locally(async {
        let mut path = through_two_sidecars(None).await;
        path.server.write_all(b"413 go away").await.unwrap();
        path.client.write_all(&vec![0; 3 << 20]).await.ok();
        // The server closes with bytes unread: its system answers with a reset.
        drop(path.server);
        let mut said = Vec::new();
        let outcome = path.client.read_to_end(&mut said).await;
        assert_eq!(said, b"413 go away");
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset);
        path.ends.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_ends_cleanly_when_its_time_is_up_and_not_before() {
    locally(async {
        let mut path = through_two_sidecars(Some(Duration::from_millis(300))).await;
        let mut buffer = [0; 1];
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            path.client.write_all(b"x").await.unwrap();
            path.server.read_exact(&mut buffer).await.unwrap();
        }
        assert_eq!(path.client.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(path.server.read(&mut buffer).await.unwrap(), 0);
        assert!(matches!(
            path.ends.await.unwrap(),
            (End::Idle, _) | (_, End::Idle)
        ));
    })
    .await;
}

#[tokio::test]
async fn a_slow_reader_holds_its_writer_back() {
    locally(async {
        let (client, near) = sockets().await;
        let (far, server) = sockets().await;
        let passed = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = passed.clone();
        tokio::task::spawn_local(relay(
            Stream::plain(near, Vec::new()),
            Stream::plain(far, Vec::new()),
            Limits::default(),
            move |way, length| {
                if way == Way::Up {
                    counted.set(counted.get() + length);
                }
                ControlFlow::Continue(())
            },
        ));
        // Nobody reads: sooner or later the writer can write no more.
        let chunk = vec![0; 1 << 20];
        let mut written = 0;
        while let Ok(length) = tokio::time::timeout(Duration::from_millis(500), async {
            client.writable().await.unwrap();
            client
                .try_write(&chunk)
                .or_else(|e| {
                    if e.kind() == ErrorKind::WouldBlock {
                        Ok(0)
                    } else {
                        Err(e)
                    }
                })
                .unwrap()
        })
        .await
        {
            written += length;
            assert!(written < 256 << 20, "unbounded");
        }
        let mut left = written;
        let mut server = server;
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            left -= server.read(&mut buffer).await.unwrap();
        }
        assert_eq!(passed.get(), written);
    })
    .await;
}

#[tokio::test]
async fn a_relay_ends_in_time_or_when_it_is_told_to() {
    locally(async {
        for told in [false, true] {
            let (mut client, near) = sockets().await;
            let (far, mut server) = sockets().await;
            let limits = Limits {
                idle: Some(Duration::from_secs(60)),
                until: (!told).then(|| Instant::now() + Duration::from_millis(50)),
                buffer: Some(1000),
            };
            let near = Stream::plain(near, Vec::new());
            let far = Stream::plain(far, Vec::new());
            let relay = relay(near, far, limits, move |_, _| match told {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
            let relay = tokio::task::spawn_local(relay);
            client.write_all(b"last words").await.unwrap();
            let mut heard = String::new();
            server.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "last words");
            assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
            let end = if told { End::Told } else { End::Expired };
            assert_eq!(relay.await.unwrap(), end);
        }
    })
    .await;
}
