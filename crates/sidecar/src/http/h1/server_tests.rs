//! The server's connection against scripted clients.

use std::pin::Pin;
use std::task::Waker;

use tokio::io::{AsyncReadExt, DuplexStream, ReadBuf};

use super::*;
use crate::http::headers::Name;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            tokio::time::timeout(Duration::from_secs(10), future)
                .await
                .expect("stuck")
        })
}

fn pair() -> (Connection<DuplexStream>, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    (Connection::new(ours, "http", Limits::default()), theirs)
}

fn response(status: u16, body: BodyLength) -> ResponseHead {
    let mut head = ResponseHead::new();
    head.status = status;
    head.body = body;
    head
}

async fn read_body<IO: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<IO>,
) -> Result<Vec<u8>, StreamError> {
    let mut body = Vec::new();
    loop {
        let n = poll_fn(|cx| {
            connection
                .poll_data(cx)
                .map_ok(|data| data.map(|data| (body.extend_from_slice(data), data.len()).1))
        })
        .await?;
        match n {
            Some(n) => connection.consume(n),
            None => return Ok(body),
        }
    }
}

/// Answers every request with its own body and trailers, framed as the request was, until the
/// connection ends.
async fn echo<IO: AsyncRead + AsyncWrite + Unpin>(connection: &mut Connection<IO>) -> Vec<String> {
    let mut log = Vec::new();
    let mut head = RequestHead::new();
    loop {
        match connection.next_request(&mut head).await {
            Ok(true) => {}
            Ok(false) => {
                log.push("end".to_owned());
                return log;
            }
            Err(error) => {
                log.push(error.to_string());
                if let Some(status) = error.status() {
                    connection
                        .send_head(&response(status, BodyLength::None), true)
                        .unwrap();
                    poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
                }
                return log;
            }
        }
        let body = match read_body(connection).await {
            Ok(body) => body,
            Err(error) => {
                log.push(error.to_string());
                return log;
            }
        };
        log.push(format!("{} {}", head.path.escape_ascii(), body.len()));
        connection
            .send_head(&response(200, head.body), false)
            .unwrap();
        let mut rest = &body[..];
        while !rest.is_empty() {
            poll_fn(|cx| connection.poll_ready(cx)).await.unwrap();
            rest = &rest[connection.send_data(rest).unwrap()..];
        }
        let trailers = connection.take_trailers();
        connection.send_end(trailers.as_ref()).unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        if connection.after() == After::Close {
            log.push("close".to_owned());
            return log;
        }
    }
}

async fn talk(requests: &[u8]) -> (Vec<String>, String) {
    let (mut connection, mut client) = pair();
    client.write_all(requests).await.unwrap();
    client.shutdown().await.unwrap();
    let log = echo(&mut connection).await;
    drop(connection);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    (log, String::from_utf8(answer).unwrap())
}

#[test]
fn conversations() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    let cases: &[(&str, &[&str], String)] = &[
        (
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
            &["/1 0", "/2 3", "/3 0", "end"],
            format!("{OK}content-length: 0\r\n\r\n{OK}content-length: 3\r\n\r\nabc{OK}content-length: 0\r\n\r\n"),
        ),
        (
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\nSum: 4\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n",
            &["/c 4", "/ 0", "close"],
            format!("{OK}transfer-encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nSum: 4\r\n\r\n{OK}connection: close\r\ncontent-length: 0\r\n\r\n"),
        ),
        (
            "GET /old HTTP/1.0\r\n\r\nGET /never HTTP/1.0\r\n\r\n",
            &["/old 0", "close"],
            "HTTP/1.0 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "GET /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /two HTTP/1.0\r\n\r\n",
            &["/old 0", "/two 0", "close"],
            "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\nHTTP/1.0 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        // A bad head is answered and nothing behind it is looked at.
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /  HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &["/ 0", "malformed head: the request target has a space, a control character or a byte over 127"],
            format!("{OK}content-length: 0\r\n\r\nHTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
        ),
        // Ends in the middle.
        ("", &["end"], String::new()),
        ("\r\n", &["the peer closed in the middle of a head"], String::new()),
        ("GET / HTTP/1.1\r\nHost: a\r\n", &["the peer closed in the middle of a head"], String::new()),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc",
            &["the peer closed the connection"],
            String::new(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n",
            &["the peer closed the connection"],
            String::new(),
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdef\r\n0\r\n\r\n",
            &["the peer broke the protocol: a chunk is longer than its size"],
            String::new(),
        ),
    ];
    for (requests, log, answer) in cases {
        let (got_log, got) = run(talk(requests.as_bytes()));
        // Bodies come back in as many chunks as reads.
        let got = got.replace("3\r\nabc\r\n1\r\nd\r\n", "4\r\nabcd\r\n");
        assert_eq!(got_log, *log, "{requests:?}");
        assert_eq!(got, *answer, "{requests:?}");
    }
}

#[test]
fn large_bodies_pass_whole() {
    for chunked in [false, true] {
        let body: Vec<u8> = (0..3_000_000u32).map(|i| (i * 7 % 256) as u8).collect();
        let (mut connection, client) = pair();
        let (mut reader, mut writer) = tokio::io::split(client);
        let sent = body.clone();
        let answer = run(async move {
            let write = async {
                if chunked {
                    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
                    writer.write_all(head.as_bytes()).await.unwrap();
                    for piece in sent.chunks(70_001) {
                        let size = format!("{:X}\r\n", piece.len());
                        writer.write_all(size.as_bytes()).await.unwrap();
                        writer.write_all(piece).await.unwrap();
                        writer.write_all(b"\r\n").await.unwrap();
                    }
                    writer.write_all(b"0\r\n\r\n").await.unwrap();
                } else {
                    let head = format!(
                        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                        sent.len()
                    );
                    writer.write_all(head.as_bytes()).await.unwrap();
                    writer.write_all(&sent).await.unwrap();
                }
                writer.shutdown().await.unwrap();
            };
            let serve = async {
                let log = echo(&mut connection).await;
                connection.wire.io.shutdown().await.unwrap();
                log
            };
            let read = async {
                let mut answer = Vec::new();
                reader.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let ((), log, answer) = tokio::join!(write, serve, read);
            assert_eq!(log, ["/ 3000000", "end"]);
            answer
        });
        let split = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
        let answer = &answer[split..];
        if !chunked {
            assert!(answer == body);
            continue;
        }
        let (mut decoder, mut at, mut decoded) = (Decoder::chunked(), 0, Vec::new());
        loop {
            match decoder.step(&answer[at..], &Limits::default()).unwrap() {
                Step::Skip(n) => at += n,
                Step::Data(n) => {
                    decoded.extend_from_slice(&answer[at..at + n]);
                    decoder.consumed(n);
                    at += n;
                }
                Step::More => panic!("truncated"),
                Step::End => break,
            }
        }
        assert!(decoded == body);
    }
}

#[test]
fn continue_upgrade_and_early_answers() {
    run(async {
        // 100-continue is asked for, given, and the body follows.
        let (mut connection, mut client) = pair();
        let mut head = RequestHead::new();
        let ask =
            b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        client.write_all(ask).await.unwrap();
        assert!(connection.next_request(&mut head).await.unwrap());
        assert_eq!(head.headers.first(Name::Expect), Some(&b"100-continue"[..]));
        connection
            .send_informational(&response(100, BodyLength::None))
            .unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        let mut line = [0; 25];
        client.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        client.write_all(b"ok").await.unwrap();
        assert_eq!(read_body(&mut connection).await.unwrap(), b"ok");

        // A whole answer before the body has come says that the connection ends.
        let (mut connection, mut client) = pair();
        client.write_all(ask).await.unwrap();
        assert!(connection.next_request(&mut head).await.unwrap());
        connection
            .send_head(&response(417, BodyLength::Sized(0)), true)
            .unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        assert_eq!(connection.after(), After::Close);
        drop(connection);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("connection: close"), "{answer}");

        // An upgrade hands the connection over with what came early.
        let (mut connection, mut client) = pair();
        let ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly";
        client.write_all(ask).await.unwrap();
        assert!(connection.next_request(&mut head).await.unwrap());
        let mut switching = response(101, BodyLength::None);
        switching.headers.push_known(Name::Connection, b"upgrade");
        switching.headers.push_known(Name::Upgrade, b"x");
        connection.send_head(&switching, false).unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        assert_eq!(connection.after(), After::Close);
        let (io, early) = connection.into_upgraded();
        assert_eq!(early, b"early");
        drop(io);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(
            answer,
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
        );
    });
}

#[test]
fn responses_are_framed_for_their_request() {
    for (request, head, expect) in [
        (
            "HEAD / HTTP/1.1",
            response(200, BodyLength::Sized(5)),
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            "HEAD / HTTP/1.1",
            response(200, BodyLength::Streamed),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            response(204, BodyLength::None),
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            response(304, BodyLength::None),
            "HTTP/1.1 304 Not Modified\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            response(200, BodyLength::Streamed),
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "GET / HTTP/1.0",
            response(200, BodyLength::Streamed),
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1",
            response(599, BodyLength::None),
            "HTTP/1.1 599 Unknown\r\ncontent-length: 0\r\n\r\n",
        ),
    ] {
        run(async {
            let (mut connection, mut client) = pair();
            let text = format!("{request}\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
            client.write_all(text.as_bytes()).await.unwrap();
            let mut ask = RequestHead::new();
            assert!(connection.next_request(&mut ask).await.unwrap());
            connection.send_head(&head, false).unwrap();
            connection.send_end(None).unwrap();
            poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
            let persists = !expect.contains("close");
            assert_eq!(connection.after() == After::Next, persists, "{request}");
            drop(connection);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, expect, "{request}");
        });
    }
    // A body that is not what its head said cannot be sent.
    run(async {
        let (mut connection, mut client) = pair();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut ask = RequestHead::new();
        assert!(connection.next_request(&mut ask).await.unwrap());
        connection
            .send_head(&response(200, BodyLength::Sized(3)), false)
            .unwrap();
        assert_eq!(connection.send_data(b"ab").unwrap(), 2);
        assert!(connection.send_end(None).is_err());
        assert!(connection.send_data(b"cd").is_err());
        connection.reset(Reset::InternalError);
        assert!(matches!(
            connection.send_data(b"c"),
            Err(StreamError::Aborted)
        ));
    });
}

#[test]
fn a_client_that_goes_away_is_noticed() {
    run(async {
        let (mut connection, mut client) = pair();
        let mut head = RequestHead::new();
        client
            .write_all(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HT")
            .await
            .unwrap();
        assert!(connection.next_request(&mut head).await.unwrap());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(connection.poll_closed(&mut cx).is_pending());
        client
            .write_all(b"TP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        assert!(connection.poll_closed(&mut cx).is_pending());
        // The next request is kept.
        connection
            .send_head(&response(200, BodyLength::None), true)
            .unwrap();
        poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
        assert_eq!(connection.after(), After::Next);
        assert!(connection.next_request(&mut head).await.unwrap());
        assert_eq!(head.path, b"/2");
        drop(client);
        let gone = poll_fn(|cx| connection.poll_closed(cx)).await;
        assert!(matches!(gone, StreamError::Closed));
    });
}

/// Counts what would be system calls.
struct Counting {
    io: DuplexStream,
    reads: usize,
    writes: usize,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        self.reads += usize::from(result.is_ready());
        result
    }
}

impl AsyncWrite for Counting {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes += 1;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[test]
fn a_small_request_costs_one_read_and_one_write_and_no_memory_when_idle() {
    run(async {
        let (ours, mut client) = tokio::io::duplex(1 << 16);
        let io = Counting {
            io: ours,
            reads: 0,
            writes: 0,
        };
        let mut connection = Connection::new(io, "http", Limits::default());
        let mut head = RequestHead::new();
        for round in 1..=3 {
            client
                .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
                .await
                .unwrap();
            assert!(connection.next_request(&mut head).await.unwrap());
            let mut cx = Context::from_waker(Waker::noop());
            let Poll::Ready(Ok(Some(b"abc"))) = connection.poll_data(&mut cx) else {
                panic!("no body");
            };
            connection.consume(3);
            assert!(connection.request_ended());
            connection
                .send_head(&response(200, BodyLength::Sized(2)), false)
                .unwrap();
            connection.send_data(b"ok").unwrap();
            connection.send_end(None).unwrap();
            poll_fn(|cx| connection.poll_flush(cx)).await.unwrap();
            assert_eq!(connection.after(), After::Next);
            assert_eq!(
                (connection.wire.io.reads, connection.wire.io.writes),
                (round, round)
            );
            assert!(connection.poll_wait(&mut cx).is_pending());
            assert!(!connection.wire.input.holds_memory());
            assert!(!connection.wire.output.holds_memory());
        }
        assert!(size_of::<Connection<DuplexStream>>() < 1024);
    });
}
