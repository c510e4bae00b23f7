//! Exchanges against the `h2` crate's server, and against our own.

use std::future::poll_fn;

use ::h2::Reason;
use http::Response;
use tokio::io::DuplexStream;

use super::super::lease::{Event, Owner};
use super::super::tests::{endpoint, read_body, run};
use super::*;
use crate::http::h2::server;
use crate::http::message::{BodyLength, Version};

const SETTINGS: Http2Settings = Http2Settings {
    max_concurrent_streams: 3,
    initial_stream_window: 1 << 20,
    initial_connection_window: 1 << 20,
    allow_connect: false,
    header_table_size: 4096,
    keepalive: None,
};

struct Pool {
    endpoint: Arc<Endpoint>,
    released: Cell<usize>,
}

impl Owner for Pool {
    fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
    fn note(&self, _event: Event) {}
    fn keep(&self, _connection: Box<super::super::h1::Connection>) {
        panic!("an HTTP/1 connection?");
    }
    fn released(&self) {
        self.released.set(self.released.get() + 1);
    }
}

fn pool() -> Rc<Pool> {
    Rc::new(Pool {
        endpoint: endpoint(([127, 0, 0, 1], 1).into()),
        released: Cell::new(0),
    })
}

struct Guard(Rc<Cell<bool>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

async fn connect(io: DuplexStream) -> (Connection, Rc<Cell<bool>>) {
    let ended = Rc::new(Cell::new(false));
    let guard = Box::new(Guard(Rc::clone(&ended)));
    let connection =
        Connection::handshake(io, (None, None), &SETTINGS, 100, Limits::default(), guard);
    (connection.await.unwrap(), ended)
}

async fn pair() -> (
    Connection,
    Rc<Cell<bool>>,
    ::h2::server::Connection<DuplexStream, Bytes>,
) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let ((connection, ended), server) =
        tokio::join!(connect(ours), ::h2::server::handshake(theirs));
    (connection, ended, server.unwrap())
}

fn begin(connection: &Connection, pool: &Rc<Pool>) -> super::super::Exchange {
    super::super::Exchange::H2(Exchange::new(connection, Lease::new(pool.clone())))
}

fn request(method: &str, body: BodyLength) -> RequestHead {
    let mut head = RequestHead::new();
    head.method = method.into();
    head.authority = b"a".to_vec();
    head.path = b"/p?q".to_vec();
    head.scheme = "https";
    head.body = body;
    head.headers.push(b"X-Y", b"z");
    head.headers.push(b"Connection", b"keep-alive");
    head
}

/// Sends GET, lets the server act on it, and tells what came of it and how many streams could
/// follow.
async fn play(
    act: impl AsyncFnOnce(&mut ::h2::server::Connection<DuplexStream, Bytes>),
) -> (Result<ResponseHead, StreamError>, usize) {
    let (connection, _, mut server) = pair().await;
    let pool = pool();
    let mut exchange = begin(&connection, &pool);
    exchange
        .send_head(&request("GET", BodyLength::None), true)
        .unwrap();
    let mut head = ResponseHead::new();
    let serve = async {
        act(&mut server).await;
        while server.accept().await.is_some() {}
        std::future::pending::<()>().await
    };
    let result = tokio::select! {
        result = poll_fn(|cx| exchange.poll_head(cx, &mut head)) => result,
        () = serve => unreachable!(),
    };
    assert_eq!(exchange.bytes_of_response_seen(), result.is_ok());
    drop(exchange);
    assert_eq!((pool.released.get(), connection.active_streams()), (1, 0));
    (result.map(|()| head), connection.available_streams())
}

#[test]
fn how_a_stream_ends_says_whether_to_retry() {
    let (head, available) = run(play(async |server| {
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        assert_eq!(request.uri(), "https://a/p?q");
        assert_eq!(request.headers().len(), 1);
        let response = Response::builder().status(204).body(()).unwrap();
        respond.send_response(response, true).unwrap();
    }));
    let head = head.unwrap();
    assert_eq!(
        (head.status, head.version, head.body),
        (204, Version::Http2, BodyLength::None)
    );
    assert_eq!(available, 3);

    let (error, _) = run(play(async |server| {
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        respond.send_reset(Reason::REFUSED_STREAM);
    }));
    assert!(error.unwrap_err().is_refusal());

    let (error, _) = run(play(async |server| {
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        respond.send_reset(Reason::INTERNAL_ERROR);
    }));
    let error = error.unwrap_err();
    assert!(
        matches!(error, StreamError::Reset(Reason::INTERNAL_ERROR)),
        "{error}"
    );
    assert!(!error.is_refusal() && !error.is_departure());

    // GOAWAY below our stream: not processed.
    let (error, available) = run(play(async |server| {
        server.abrupt_shutdown(Reason::NO_ERROR);
    }));
    assert!(error.unwrap_err().is_refusal());
    assert_eq!(available, 0);

    // The connection just ends.
    let result = run(async {
        let (connection, ended, mut server) = pair().await;
        let mut exchange = begin(&connection, &pool());
        exchange
            .send_head(&request("GET", BodyLength::None), true)
            .unwrap();
        let _stream = server.accept().await.unwrap().unwrap();
        drop((server, _stream));
        let mut head = ResponseHead::new();
        let error = poll_fn(|cx| exchange.poll_head(cx, &mut head)).await;
        assert!(connection.is_closed() && ended.get());
        // Nothing can be sent on it any more, and that is safe to retry.
        let mut next = begin(&connection, &pool());
        assert!(next.reused());
        let refused = next.send_head(&request("GET", BodyLength::None), true);
        assert!(refused.unwrap_err().is_refusal());
        assert!(!next.request_bytes_sent());
        error
    });
    let error = result.unwrap_err();
    assert!(error.is_departure(), "{error:?}");
}

#[test]
fn streams_are_counted_and_a_retired_connection_ends_with_its_last_one() {
    run(async {
        let (connection, ended, mut server) = pair().await;
        let pool = pool();
        assert_eq!(connection.available_streams(), 3);
        let exchange = begin(&connection, &pool);
        assert!(!exchange.reused());
        let mut last = begin(&connection, &pool);
        assert_eq!(connection.available_streams(), 1);
        assert_eq!(connection.served(), 2);
        drop(exchange);
        assert_eq!(connection.available_streams(), 2);
        last.send_head(&request("GET", BodyLength::None), true)
            .unwrap();
        connection.retire();
        assert!(connection.is_closed());
        let (_, mut respond) = server.accept().await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        let mut head = ResponseHead::new();
        let talk = async {
            poll_fn(|cx| last.poll_head(cx, &mut head)).await.unwrap();
            drop(last);
        };
        let ((), end) = tokio::join!(talk, server.accept());
        assert!(end.is_none());
        while !ended.get() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn both_sides_of_ours_stream_both_ways_without_delay() {
    run(async {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (server, (connection, _)) = tokio::join!(
            server::Connection::handshake(
                theirs,
                &SETTINGS,
                Limits::default(),
                std::time::Duration::ZERO
            ),
            connect(ours)
        );
        let mut server = server.unwrap();
        let mut exchange = begin(&connection, &pool());
        exchange
            .send_head(&request("POST", BodyLength::Streamed), false)
            .unwrap();
        let serve = async {
            let (head, mut stream) = server.accept(RequestHead::new).await.unwrap().unwrap();
            assert_eq!(
                (&head.authority[..], &head.path[..]),
                (&b"a"[..], &b"/p?q"[..])
            );
            let mut answer = ResponseHead::new();
            answer.status = 200;
            answer.body = BodyLength::Streamed;
            stream.send_head(&answer, false).unwrap();
            let echo = async move {
                loop {
                    let piece =
                        poll_fn(|cx| stream.poll_data(cx).map_ok(|data| data.map(<[u8]>::to_vec)));
                    let Some(piece) = piece.await.unwrap() else {
                        break;
                    };
                    stream.consume(piece.len());
                    assert_eq!(stream.send_data(&piece).unwrap(), piece.len());
                    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
                }
                let mut trailers = Headers::new();
                trailers.push(b"grpc-status", b"0");
                stream.send_end(Some(&trailers)).unwrap();
            };
            tokio::task::spawn_local(echo);
            assert!(server.accept(RequestHead::new).await.is_none());
        };
        let talk = async {
            let mut head = ResponseHead::new();
            poll_fn(|cx| exchange.poll_head(cx, &mut head))
                .await
                .unwrap();
            // Each message is answered before the next is sent.
            for message in [&b"one"[..], b"two", &[7; 40_000]] {
                assert_eq!(exchange.send_data(message).unwrap(), message.len());
                poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
                let mut got = 0;
                while got < message.len() {
                    let n = poll_fn(|cx| exchange.poll_data(cx).map_ok(|data| data.unwrap().len()));
                    let n = n.await.unwrap();
                    exchange.consume(n);
                    got += n;
                }
            }
            exchange.send_end(None).unwrap();
            assert_eq!(read_body(&mut exchange).await.unwrap(), b"");
            assert!(exchange.response_ended());
            let trailers = exchange.take_trailers().unwrap();
            assert_eq!(trailers.named(b"grpc-status").next(), Some(&b"0"[..]));
            drop((exchange, connection));
        };
        tokio::join!(serve, talk);
    });
}

#[test]
fn what_http2_cannot_say_is_an_error_of_ours() {
    run(async {
        let (connection, _, _server) = pair().await;
        for (path, method) in [
            (&b"/a#b"[..], &b"GET"[..]),
            (b"/a\xff", b"GET"),
            (b"/", b"G T"),
        ] {
            let mut head = request("GET", BodyLength::None);
            head.path = path.to_vec();
            head.method = method.to_vec();
            let error = begin(&connection, &pool())
                .send_head(&head, true)
                .unwrap_err();
            assert!(matches!(error, StreamError::Unrepresentable(_)), "{error}");
        }
        // Without an authority (HTTP/1.0) it still goes.
        let mut head = request("GET", BodyLength::None);
        head.authority.clear();
        begin(&connection, &pool()).send_head(&head, true).unwrap();
    });
}
