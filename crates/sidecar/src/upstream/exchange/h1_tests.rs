//! Exchanges against scripted endpoints over loopback.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::lease::{Event, Owner};
use super::super::tests::{endpoint, read_body, run};
use super::*;

#[derive(Default)]
struct Pool {
    endpoint: Option<Arc<Endpoint>>,
    #[expect(clippy::vec_box, reason = "as pools get them")]
    kept: RefCell<Vec<Box<Connection>>>,
    released: Cell<usize>,
}

impl Owner for Pool {
    fn endpoint(&self) -> &Arc<Endpoint> {
        self.endpoint.as_ref().unwrap()
    }
    fn note(&self, _event: Event) {}
    fn keep(&self, connection: Box<Connection>) {
        self.kept.borrow_mut().push(connection);
    }
    fn released(&self) {
        self.released.set(self.released.get() + 1);
    }
}

async fn connected() -> (Box<Connection>, TcpStream, Rc<Pool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let pool = Pool {
        endpoint: Some(endpoint(address)),
        ..Pool::default()
    };
    let client = Transport::plain(client.unwrap(), Vec::new());
    let connection = Connection::new(client, None, Limits::default(), Box::new(()));
    (Box::new(connection), server.unwrap().0, Rc::new(pool))
}

fn begin(connection: Box<Connection>, pool: &Rc<Pool>) -> super::super::Exchange {
    super::super::Exchange::H1(Exchange::new(
        connection,
        Lease::new(pool.clone()),
        Dialect {
            trailers: true,
            ..Dialect::default()
        },
    ))
}

fn request(method: &str, body: BodyLength) -> RequestHead {
    let mut head = RequestHead::new();
    head.method = method.into();
    head.authority = b"a".to_vec();
    head.path = b"/p".to_vec();
    head.body = body;
    head.title_case = true;
    head.headers.push(b"X-Y", b"z");
    head
}

/// Sends GET, plays `answer`, and tells what came of it: heads, body, how it ended, whether the
/// connection is kept.
async fn play(method: &str, answer: &str, close: bool) -> (Vec<String>, bool) {
    let (connection, mut server, pool) = connected().await;
    let mut exchange = begin(connection, &pool);
    let mut log = Vec::new();
    let mut asked = request(method, BodyLength::None);
    if answer.contains("101") {
        asked.headers.push_known(Name::Upgrade, b"x");
    }
    exchange.send_head(&asked, true).unwrap();
    poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
    assert!(exchange.request_bytes_sent() && !exchange.bytes_of_response_seen());
    let mut buffer = [0; 1000];
    assert!(server.read(&mut buffer).await.unwrap() > 0);
    server.write_all(answer.as_bytes()).await.unwrap();
    if close {
        server.shutdown().await.unwrap();
    }
    let mut head = ResponseHead::new();
    let end = loop {
        if let Err(error) = poll_fn(|cx| exchange.poll_head(cx, &mut head)).await {
            assert_eq!(exchange.bytes_of_response_seen(), !answer.is_empty());
            break error.to_string();
        }
        log.push(format!("{} {:?}", head.status, head.body));
        if head.status == 101 {
            let upgraded = exchange.into_upgraded().unwrap();
            log.push(upgraded.read_ahead.escape_ascii().to_string());
            assert_eq!(pool.released.get(), 0);
            drop(upgraded);
            assert_eq!(pool.released.get(), 1);
            return (log, pool.kept.borrow().len() == 1);
        }
        if head.status >= 200 {
            break match read_body(&mut exchange).await {
                Ok(body) => body.escape_ascii().to_string(),
                Err(error) => error.to_string(),
            };
        }
    };
    log.push(end);
    drop(exchange);
    assert_eq!(pool.released.get(), 1);
    let kept = pool.kept.borrow().len() == 1;
    (log, kept)
}

#[test]
fn responses_and_what_becomes_of_the_connection() {
    let cases: &[(&str, &str, bool, &[&str], bool)] = &[
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            &["200 Sized(2)", "ok"],
            true,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            false,
            &["200 Streamed", "ok"],
            true,
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
            false,
            &["200 None", ""],
            true,
        ),
        (
            "GET",
            "HTTP/1.1 304 NM\r\nContent-Length: 2\r\n\r\n",
            false,
            &["304 None", ""],
            true,
        ),
        (
            "GET",
            "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            false,
            &["103 None", "204 None", ""],
            true,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
            false,
            &["200 Sized(0)", ""],
            true,
        ),
        // Not to be used again
        (
            "GET",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            false,
            &["200 Sized(2)", "ok"],
            false,
        ),
        (
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            &["200 Sized(2)", "ok"],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\n\r\nok",
            true,
            &["200 Streamed", "ok"],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokjunk",
            false,
            &["200 Sized(2)", "ok"],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            false,
            &["204 None", ""],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 101 S\r\nUpgrade: x\r\n\r\nearly",
            false,
            &["101 None", "early"],
            false,
        ),
        // Ends too soon, or is not HTTP
        ("GET", "", true, &["the peer closed the connection"], false),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-",
            true,
            &["the peer closed the connection"],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            true,
            &["200 Sized(3)", "the peer closed the connection"],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n",
            true,
            &["200 Streamed", "the peer closed the connection"],
            false,
        ),
        (
            "GET",
            "SSH-2.0-OpenSSH\r\n",
            false,
            &["the peer broke the protocol: the version is not one of HTTP"],
            false,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
            &["the peer broke the protocol: content-length together with transfer-encoding"],
            false,
        ),
    ];
    for (method, answer, close, log, kept) in cases {
        let (got, got_kept) = run(play(method, answer, *close));
        assert_eq!(got, *log, "{answer:?}");
        assert_eq!(got_kept, *kept, "{answer:?}");
    }
    let unasked = "HTTP/1.1 101 S\r\n\r\n";
    let (got, _) = run(async {
        let (connection, mut server, pool) = connected().await;
        let mut exchange = begin(connection, &pool);
        exchange
            .send_head(&request("GET", BodyLength::None), true)
            .unwrap();
        server.write_all(unasked.as_bytes()).await.unwrap();
        let mut head = ResponseHead::new();
        let error = poll_fn(|cx| exchange.poll_head(cx, &mut head)).await;
        (error.unwrap_err().to_string(), ())
    });
    assert!(got.contains("101 without"), "{got}");
}

#[test]
fn requests_are_written_as_they_should_be_and_connections_serve_again() {
    run(async {
        let (connection, mut server, pool) = connected().await;
        let mut kept = Some(connection);
        let cases: [(RequestHead, &[u8], &str); 4] = [
            (
                request("GET", BodyLength::None),
                b"",
                "GET /p HTTP/1.1\r\nHost: a\r\nX-Y: z\r\n\r\n",
            ),
            (
                request("POST", BodyLength::Sized(4)),
                b"body",
                "POST /p HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nContent-Length: 4\r\n\r\nbody",
            ),
            (
                request("POST", BodyLength::Streamed),
                b"0123456789abcdefg",
                "POST /p HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n",
            ),
            (
                request("POST", BodyLength::Sized(0)),
                b"",
                "POST /p HTTP/1.1\r\nHost: a\r\nX-Y: z\r\nContent-Length: 0\r\n\r\n",
            ),
        ];
        for (index, (head, body, wire)) in cases.iter().enumerate() {
            let mut exchange = begin(kept.take().unwrap(), &pool);
            assert_eq!(exchange.reused(), index > 0);
            exchange.send_head(head, body.is_empty()).unwrap();
            assert!(!exchange.request_bytes_sent());
            if !body.is_empty() {
                assert_eq!(exchange.send_data(body).unwrap(), body.len());
                exchange.send_end(None).unwrap();
            }
            poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
            // One send for head and body, so one receive has it all.
            let mut buffer = [0; 1000];
            let n = server.read(&mut buffer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..n]), *wire);
            server.write_all(b"HTTP/1.1 204 No\r\n\r\n").await.unwrap();
            let mut answer = ResponseHead::new();
            poll_fn(|cx| exchange.poll_head(cx, &mut answer))
                .await
                .unwrap();
            assert!(exchange.response_ended());
            drop(exchange);
            kept = pool.kept.borrow_mut().pop();
            assert_eq!(kept.as_ref().unwrap().served(), index as u64 + 1);
        }
        // While idle: nothing, then the end.
        let mut connection = kept.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(connection.poll_idle(&mut cx).is_pending());
        drop(server);
        poll_fn(|cx| connection.poll_idle(cx)).await;
    });
}

#[test]
fn an_early_response_is_read_and_the_connection_not_kept() {
    run(async {
        // The endpoint answers and resets while the request is still being written.
        let (connection, mut server, pool) = connected().await;
        let mut exchange = begin(connection, &pool);
        exchange
            .send_head(&request("POST", BodyLength::Streamed), false)
            .unwrap();
        poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
        let mut buffer = [0; 1000];
        assert!(server.read(&mut buffer).await.unwrap() > 0);
        server
            .write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        let mut head = ResponseHead::new();
        poll_fn(|cx| exchange.poll_head(cx, &mut head))
            .await
            .unwrap();
        assert_eq!(head.status, 413);
        assert!(exchange.response_ended());
        drop(exchange);
        assert_eq!(pool.kept.borrow().len(), 0);

        // A connection that is dead before the request: nothing of a response, not an error of
        // writing, is what the caller sees.
        let (connection, server, pool) = connected().await;
        let mut exchange = begin(connection, &pool);
        server.set_zero_linger().unwrap();
        drop(server);
        exchange
            .send_head(&request("GET", BodyLength::None), true)
            .unwrap();
        poll_fn(|cx| exchange.poll_flush(cx)).await.unwrap();
        let error = poll_fn(|cx| exchange.poll_head(cx, &mut head))
            .await
            .unwrap_err();
        assert!(error.is_departure(), "{error}");
        assert!(!exchange.bytes_of_response_seen());
    });
}
