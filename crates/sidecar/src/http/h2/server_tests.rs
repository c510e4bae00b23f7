//! The server's connection against the `h2` crate's client, which can be told to misbehave.

use std::future::poll_fn;

use ::h2::client::SendRequest;
use http::{HeaderMap, Request, Version as HttpVersion};
use tokio::io::{AsyncWriteExt, DuplexStream};

use super::*;
use crate::http::headers::Name;
use crate::http::message::BodyLength;
use crate::upstream::exchange::tests::run;

const SETTINGS: Http2Settings = Http2Settings {
    max_concurrent_streams: 100,
    initial_stream_window: 65_535,
    initial_connection_window: 65_535,
    allow_connect: false,
    header_table_size: 4096,
    keepalive: None,
};

async fn pair() -> (Connection<DuplexStream>, SendRequest<Bytes>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let limits = Limits {
        // The four pseudo-headers count, too.
        headers: 9,
        ..Limits::default()
    };
    let (server, client) = tokio::join!(
        Connection::handshake(ours, &SETTINGS, limits, std::time::Duration::ZERO),
        ::h2::client::handshake(theirs)
    );
    let (send, connection) = client.unwrap();
    tokio::task::spawn_local(connection);
    (server.unwrap(), send)
}

/// Sends a request and tells what the server made of it: the head and its body length, or how the
/// stream ended.
async fn ask(request: Request<()>, end: bool) -> String {
    let (mut server, mut client) = pair().await;
    let (response, _stream) = client.send_request(request, end).unwrap();
    let accept = async {
        match server.accept(RequestHead::new).await {
            Some(Ok((head, _))) => {
                let mut text = format!(
                    "{} {} {} {} {:?}",
                    head.method.escape_ascii(),
                    head.scheme,
                    head.authority.escape_ascii(),
                    head.path.escape_ascii(),
                    head.body
                );
                for (_, name, value) in head.headers.iter() {
                    text += &format!(" | {}={}", name.escape_ascii(), value.escape_ascii());
                }
                text
            }
            Some(Err(error)) => error.to_string(),
            None => "ended".to_owned(),
        }
    };
    tokio::select! {
        text = accept => text,
        response = response => match response {
            Ok(response) => format!("answered {}", response.status().as_u16()),
            Err(error) => format!("reset {:?}", error.reason()),
        },
    }
}

/// `:path` is `*`.
fn asterisk() -> http::Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTPS);
    parts.authority = Some(http::uri::Authority::from_static("a"));
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("*"));
    http::Uri::from_parts(parts).unwrap()
}

#[test]
fn requests() {
    let get = || Request::builder().uri("https://a:8/p?q");
    let many = (0..6).fold(get(), |request, i| request.header(format!("x-{i}"), "y"));
    let cases = [
        (
            get().header("X-Y", "z").body(()),
            true,
            "GET https a:8 /p?q None | x-y=z",
        ),
        (get().body(()), false, "GET https a:8 /p?q Streamed"),
        (
            get().header("content-length", "5").body(()),
            false,
            "GET https a:8 /p?q Sized(5)",
        ),
        (
            get().header("host", "A:8").body(()),
            true,
            "GET https a:8 /p?q None",
        ),
        (
            Request::builder()
                .uri("/p")
                .version(HttpVersion::HTTP_11)
                .header("host", "b")
                .body(()),
            true,
            "GET http b /p None",
        ),
        (
            get().header("te", "trailers").body(()),
            true,
            "GET https a:8 /p?q None | te=trailers",
        ),
        (
            Request::builder().method("CONNECT").uri("a:443").body(()),
            false,
            "CONNECT http a:443  Streamed",
        ),
        // What HTTP/1 would not count as part of a value does not count here.
        (
            get().header("x-y", " z\t").body(()),
            true,
            "GET https a:8 /p?q None | x-y=z",
        ),
        (
            Request::builder()
                .method("OPTIONS")
                .uri(asterisk())
                .body(()),
            true,
            "OPTIONS https a * None",
        ),
        // Refused
        (
            Request::builder().uri(asterisk()).body(()),
            true,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (
            get().header("host", "b").body(()),
            true,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (
            get().header("host", "a:8").header("host", "a:8").body(()),
            true,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (
            get()
                .header("content-length", "5")
                .header("content-length", "5")
                .body(()),
            false,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (
            get().header("content-length", "+5").body(()),
            false,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (
            Request::builder().uri("https://u@a/").body(()),
            true,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (
            Request::builder().uri("ftp://a/").body(()),
            true,
            "reset Some(PROTOCOL_ERROR)",
        ),
        (many.body(()), true, "answered 431"),
        (
            get().header("x", "y".repeat(62_000)).body(()),
            true,
            "answered 431",
        ),
    ];
    for (request, end, expect) in cases {
        let request = request.unwrap();
        let shown = format!("{} {:.500?}", request.uri(), request.headers());
        assert_eq!(run(ask(request, end)), expect, "{shown}");
    }
}

#[test]
fn streams_flow_both_ways_with_trailers_and_small_windows() {
    run(async {
        let (mut server, mut client) = pair().await;
        let body: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 % 256) as u8).collect();
        let request = Request::builder()
            .method("POST")
            .uri("http://a/")
            .body(())
            .unwrap();
        let (response, mut upload) = client.send_request(request, false).unwrap();
        let relay = async {
            let (_, mut stream) = server.accept(RequestHead::new).await.unwrap().unwrap();
            let mut head = ResponseHead::new();
            head.status = 103;
            stream.send_informational(&head).unwrap();
            head.status = 200;
            head.body = BodyLength::Streamed;
            head.headers.push(b"X-Y", b"z");
            stream.send_head(&head, false).unwrap();
            // Echo: what is consumed opens the client's window again.
            let echo = async {
                loop {
                    let piece =
                        poll_fn(|cx| stream.poll_data(cx).map_ok(|data| data.map(<[u8]>::to_vec)))
                            .await
                            .unwrap();
                    let Some(piece) = piece else { break };
                    let mut rest = &piece[..];
                    while !rest.is_empty() {
                        let n = stream.send_data(rest).unwrap();
                        rest = &rest[n..];
                        if n == 0 {
                            poll_fn(|cx| stream.poll_ready(cx)).await.unwrap();
                        }
                    }
                    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
                    stream.consume(piece.len());
                }
                assert!(stream.request_ended());
                let trailers = stream.take_trailers().unwrap();
                stream.send_end(Some(&trailers)).unwrap();
                drop(stream);
                std::future::pending::<()>().await
            };
            tokio::select! {
                () = echo => {}
                end = server.accept(RequestHead::new) => assert!(end.is_none()),
            }
        };
        let talk = async {
            let send = async {
                let mut rest = Bytes::from(body.clone());
                while !rest.is_empty() {
                    upload.reserve_capacity(rest.len());
                    let n = poll_fn(|cx| upload.poll_capacity(cx))
                        .await
                        .unwrap()
                        .unwrap();
                    upload
                        .send_data(rest.split_to(n.min(rest.len())), false)
                        .unwrap();
                }
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                trailers.insert("set-cookie", "x".parse().unwrap());
                upload.send_trailers(trailers).unwrap();
            };
            let receive = async {
                let response = response.await.unwrap();
                assert_eq!(response.headers()["x-y"], "z");
                let mut stream = response.into_body();
                let mut got = Vec::new();
                while let Some(piece) = stream.data().await {
                    let piece = piece.unwrap();
                    stream.flow_control().release_capacity(piece.len()).unwrap();
                    got.extend_from_slice(&piece);
                }
                let trailers = stream.trailers().await.unwrap().unwrap();
                (got, trailers)
            };
            let ((), (got, trailers)) = tokio::join!(send, receive);
            assert!(got == body);
            assert_eq!(trailers.len(), 1);
            assert_eq!(trailers["grpc-status"], "0");
            drop((client, upload));
        };
        tokio::join!(relay, talk);
    });
}

#[test]
fn the_end_travels_with_the_last_bytes() {
    run(async {
        let (mut server, mut client) = pair().await;
        let request = Request::builder().uri("http://a/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let (_, mut stream) = server.accept(RequestHead::new).await.unwrap().unwrap();
        let mut head = ResponseHead::new();
        head.status = 200;
        head.body = BodyLength::Sized(5);
        stream.send_head(&head, false).unwrap();
        poll_fn(|cx| stream.poll_ready(cx)).await.unwrap();
        assert_eq!(stream.send_data(b"hello").unwrap(), 5);
        poll_fn(|cx| stream.poll_ready(cx)).await.unwrap();
        stream.send_end(None).unwrap();
        drop(stream);
        drop(client);
        let receive = async {
            let response = response.await.unwrap();
            assert_eq!(response.headers()["content-length"], "5");
            let mut body = response.into_body();
            let piece = body.data().await.unwrap().unwrap();
            assert_eq!(piece, "hello");
            assert!(body.is_end_stream());
        };
        let ((), end) = tokio::join!(receive, server.accept(RequestHead::new));
        assert!(end.is_none());
    });
}

#[test]
fn resets_are_told_and_floods_end_the_connection() {
    run(async {
        let (mut server, mut client) = pair().await;
        let get = || Request::builder().uri("http://a/").body(()).unwrap();
        let (response, mut upload) = client.send_request(get(), false).unwrap();
        let (_, mut stream) = server.accept(RequestHead::new).await.unwrap().unwrap();
        upload.send_reset(Reason::CANCEL);
        let gone = tokio::select! {
            gone = poll_fn(|cx| stream.poll_closed(cx)) => gone,
            _ = server.accept(RequestHead::new) => panic!("a request?"),
        };
        assert!(matches!(gone, StreamError::Reset(Reason::CANCEL)));
        drop((response, upload, stream));

        // Each stream is taken up and then reset before it is answered.
        let flood = async {
            for _ in 0..PREMATURE_FROM * 2 {
                let ready = poll_fn(|cx| client.poll_ready(cx)).await;
                let Ok((response, mut upload)) =
                    ready.and_then(|()| client.send_request(get(), false))
                else {
                    return "refused";
                };
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                upload.send_reset(Reason::CANCEL);
                if let Err(error) = response.await
                    && error.is_go_away()
                {
                    return "refused";
                }
            }
            "tolerated"
        };
        let serve = async {
            let mut taken = 0;
            while let Some(Ok((_, mut stream))) = server.accept(RequestHead::new).await {
                taken += 1;
                tokio::task::spawn_local(async move {
                    poll_fn(|cx| stream.poll_closed(cx)).await;
                });
            }
            taken
        };
        let (outcome, taken) = tokio::join!(flood, serve);
        assert_eq!(outcome, "refused");
        assert!(taken <= PREMATURE_FROM, "{taken}");
    });
}

/// Writes the preface, `first`, and then `again` without end, without reading a byte, to a server
/// that does what it can. Tells how many bytes went until it closed, or took no more.
async fn flood(first: &[u8], again: &[u8]) -> usize {
    let (ours, mut theirs) = tokio::io::duplex(1 << 14);
    let serve = async {
        let limits = Limits::default();
        let Ok(mut server) =
            Connection::handshake(ours, &SETTINGS, limits, std::time::Duration::ZERO).await
        else {
            return;
        };
        while let Some(Ok((_, mut stream))) = server.accept(RequestHead::new).await {
            tokio::task::spawn_local(async move {
                poll_fn(|cx| stream.poll_closed(cx)).await;
            });
        }
    };
    tokio::task::spawn_local(serve);
    let mut written = 0;
    let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    theirs.write_all(settings).await.unwrap();
    theirs.write_all(first).await.unwrap();
    let mut stalled = 0;
    while stalled < 1000 && written < 64 << 20 {
        tokio::select! {
            biased;
            result = theirs.write_all(again) => match result {
                Ok(()) => (written, stalled) = (written + again.len(), 0),
                Err(_) => break,
            },
            () = tokio::task::yield_now() => stalled += 1,
        }
    }
    written
}

#[test]
fn floods_of_frames_are_bounded() {
    let continuation = [&b"\0\x04\0\x09\0\0\0\0\x01"[..], &[b'\x40'; 1024]].concat();
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\x01\0\0";
    for (name, first, again) in [
        ("PING", &b""[..], &b"\0\0\x08\x06\0\0\0\0\x0012345678"[..]),
        ("SETTINGS", b"", settings),
        (
            "CONTINUATION",
            b"\0\0\x01\x01\0\0\0\0\x01\x82",
            &continuation,
        ),
        // An unfinished request, then DATA of no bytes for it.
        (
            "empty DATA",
            b"\0\0\x06\x01\x04\0\0\0\x01\x83\x86\x84\x41\x01a",
            b"\0\0\0\0\0\0\0\0\x01",
        ),
    ] {
        let written = run(flood(first, again));
        assert!(written < 4 << 20, "{name}: {written} bytes were taken");
    }
}

#[test]
fn graceful_shutdown_lets_streams_finish() {
    run(async {
        let (mut server, mut client) = pair().await;
        let get = || Request::builder().uri("http://a/").body(()).unwrap();
        let (response, _) = client.send_request(get(), true).unwrap();
        let (_, mut stream) = server.accept(RequestHead::new).await.unwrap().unwrap();
        server.graceful();
        let served = async {
            // The client learns of it while the stream is open.
            loop {
                match poll_fn(|cx| client.poll_ready(cx)).await {
                    Ok(()) => tokio::task::yield_now().await,
                    Err(error) => break assert!(error.is_go_away()),
                }
            }
            let mut head = ResponseHead::new();
            head.status = 200;
            stream.send_head(&head, true).unwrap();
            drop(stream);
            assert_eq!(response.await.unwrap().status(), 200);
        };
        let ((), end) = tokio::join!(served, server.accept(RequestHead::new));
        assert!(end.is_none());
    });
}

#[test]
fn cookie_crumbs_are_joined_on_demand() {
    run(async {
        let (mut server, mut client) = pair().await;
        let request = Request::builder()
            .uri("http://a/")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        let _response = client.send_request(request, true).unwrap();
        let (mut head, _stream) = server.accept(RequestHead::new).await.unwrap().unwrap();
        assert_eq!(head.headers.all(Name::Cookie).count(), 2);
        head.join_cookies();
        assert_eq!(head.headers.first(Name::Cookie), Some(&b"a=1; b=2"[..]));
        assert_eq!(head.headers.all(Name::Cookie).count(), 1);
    });
}
