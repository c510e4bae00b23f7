//! Where bytes from the network come in, one function each, for `cargo xtask fuzz`. None may panic,
//! whatever the bytes are; where two ways must agree, they are compared.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{AeadKey, Iv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::bootstrap;
use crate::config::build::context::Detached;
use crate::config::build::resource;
use crate::config::http_protocol::Http2Settings;
use crate::config::tls::TlsVersion;
use crate::http::h1::Limits;
use crate::http::h1::decoder::{Decoder, Step};
use crate::http::h1::response::{Asked, ResponseParser};
use crate::http::message::{RequestHead, ResponseHead};
use crate::http::{h1, h2};
use crate::matching::cel::Expression;
use crate::telemetry::access_log::format::{Format, Missing};
use crate::tls::client_hello::{self, Parsed};
use crate::tls::record::{Opener, record_length};

/// One way in.
pub struct Target {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Takes the bytes.
    pub run: fn(&[u8]),
    /// Text that leads deeper into it, for the first inputs.
    pub seeds: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "http1_requests",
        run: http1_requests,
        seeds: &[
            "\u{20}GET /a?b=c HTTP/1.1\r\nHost: a.b\r\nConnection: close\r\n\r\n",
            "\u{1}POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: t\r\n\r\n\
             5;e=\"f\"\r\nhello\r\n0\r\nt: 1\r\n\r\nGET http://x/ HTTP/1.0\r\n\r\n",
            "\u{7f}PUT * HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\nabc",
        ],
    },
    Target {
        name: "http1_responses",
        run: http1_responses,
        seeds: &[
            "\u{9}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "\u{30}HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 \r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ],
    },
    Target {
        name: "http2_frames",
        run: http2_frames,
        seeds: &[
            "\0\0\0\u{4}\0\0\0\0\0",
            "\0\0\u{1}\u{1}\u{5}\0\0\0\u{1}\u{2}",
        ],
    },
    Target {
        name: "client_hellos",
        run: client_hellos,
        seeds: &["\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0\u{1}\0"],
    },
    Target {
        name: "tls_records",
        run: tls_records,
        seeds: &["\u{17}\u{3}\u{3}\0\u{11}0123456789abcdef0"],
    },
    Target {
        name: "resources",
        run: resources,
        seeds: &[
            "0\n\u{1}l",
            "1\n\u{1}c",
            "2\n\u{1}r",
            "3\n\u{1}e",
            "4\n\u{1}s",
        ],
    },
    Target {
        name: "documents",
        run: documents,
        seeds: &[
            "node: {id: a, cluster: b}\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n\
             static_resources: {clusters: [{name: c, connect_timeout: 1.5s, type: STATIC}]}\n",
        ],
    },
    Target {
        name: "formats",
        run: formats,
        seeds: &["%START_TIME(%s.%3f)% %REQ(:METHOD?x):5% %RESPONSE_CODE%%%"],
    },
    Target {
        name: "expressions",
        run: expressions,
        seeds: &[
            "request.path in ['/a', r'\\/b'] && request.headers['x'].startsWith(\"\\x41\") // c",
            "((((((((((((((((((((((((((((((((((true))))))))))))))))))))))))))))))))))",
            "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]] == []",
            "1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1 == 2",
            "request.headers.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a == 1",
        ],
    },
];

/// A peer that sends its bytes in small pieces, and takes what it is sent.
struct Script<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl<'a> Script<'a> {
    /// The first byte says how large the pieces are.
    fn new(bytes: &'a [u8]) -> Self {
        let (piece, bytes) = bytes.split_first().unwrap_or((&0, bytes));
        Script {
            bytes,
            piece: usize::from(*piece).max(1) * 4,
        }
    }
}

impl AsyncRead for Script<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.piece.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(length);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls until it is done, or waits for what will not come: time does not pass here.
fn run<F: Future>(future: F) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..64 {
        if future.as_mut().poll(&mut cx).is_ready() {
            return;
        }
    }
}

fn http1_requests(bytes: &[u8]) {
    run(async {
        let mut connection =
            h1::server::Connection::new(Script::new(bytes), "http", Limits::default());
        let mut head = RequestHead::new();
        while let Ok(true) = connection.next_request(&mut head).await {
            loop {
                let length = std::future::poll_fn(|cx| {
                    connection
                        .poll_data(cx)
                        .map_ok(|data| data.map(<[u8]>::len))
                });
                match length.await {
                    Ok(Some(length)) => connection.consume(length),
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            let mut answer = ResponseHead::new();
            answer.status = 200;
            if connection.send_head(&answer, true).is_err() {
                return;
            }
        }
    });
}

/// However the bytes are cut, the outcome is the same.
fn http1_responses(bytes: &[u8]) {
    let Some((&cut, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = response(bytes, bytes.len());
    let cut = response(bytes, usize::from(cut).min(bytes.len()));
    assert_eq!(whole, cut);
}

/// Status, fields and body of a response of which `first` bytes come before the others.
fn response(bytes: &[u8], first: usize) -> Option<(u16, usize, Vec<u8>)> {
    let limits = Limits::default();
    let mut parser = ResponseParser::default();
    let mut head = ResponseHead::new();
    let (mut taken, mut until) = (0, first);
    loop {
        let asked = Asked::by(b"GET");
        match parser.parse(&bytes[..until], &mut taken, &mut head, asked, &limits) {
            Ok(true) => break,
            Ok(false) if until < bytes.len() => until = bytes.len(),
            Ok(false) | Err(_) => return None,
        }
    }
    let mut decoder = match parser.is_chunked() {
        true => Decoder::chunked(),
        false => Decoder::until_close(),
    };
    let mut body = Vec::new();
    loop {
        match decoder.step(&bytes[taken..], &limits) {
            Ok(Step::Skip(length)) => taken += length,
            Ok(Step::Data(length)) => {
                body.extend_from_slice(&bytes[taken..taken + length]);
                decoder.consumed(length);
                taken += length;
            }
            Ok(Step::More | Step::End) => break,
            Err(_) => return None,
        }
    }
    Some((head.status, head.headers.iter().count(), body))
}

fn http2_frames(bytes: &[u8]) {
    const SETTINGS: Http2Settings = Http2Settings {
        max_concurrent_streams: 10,
        initial_stream_window: 65_535,
        initial_connection_window: 65_535,
        allow_connect: true,
        header_table_size: 4096,
        keepalive: None,
    };
    let (piece, frames) = bytes.split_first().unwrap_or((&0, bytes));
    let sent = [&[*piece], &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], frames].concat();
    run(async {
        let limits = Limits::default();
        let script = Script::new(&sent);
        let patience = Duration::ZERO;
        let begun = h2::server::Connection::handshake(script, &SETTINGS, limits, patience).await;
        let Ok(mut connection) = begun else {
            return;
        };
        let mut streams = Vec::new();
        while let Some(Ok((_, mut stream))) = connection.accept(RequestHead::new).await {
            let mut answer = ResponseHead::new();
            answer.status = 200;
            let _ = stream.send_head(&answer, false);
            streams.push(stream);
        }
        let mut cx = Context::from_waker(Waker::noop());
        for stream in &mut streams {
            while let Poll::Ready(Ok(Some(data))) = stream.poll_data(&mut cx) {
                let length = data.len();
                stream.consume(length);
            }
        }
    });
}

/// What a whole hello says, its beginning did not deny.
fn client_hellos(bytes: &[u8]) {
    if let Parsed::Hello(_) = client_hello::parse(bytes) {
        let beginning = client_hello::parse(&bytes[..bytes.len() / 2]);
        assert_ne!(beginning, Parsed::NotTls);
    }
}

/// Opened in place and opened apart, a record is the same.
fn tls_records(bytes: &[u8]) {
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let opener = || {
            let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
            Opener::new(
                version,
                (1, ConnectionTrafficSecrets::Aes256Gcm { key, iv }),
            )
        };
        let (Ok(mut apart), Ok(mut in_place)) = (opener(), opener()) else {
            return;
        };
        let Ok(Some(length)) = record_length(bytes) else {
            continue;
        };
        let Some(record) = bytes.get(..length) else {
            continue;
        };
        let mut out = vec![0; apart.room(record.len())];
        let apart = apart.open_into(record, &mut out);
        let mut record = record.to_vec();
        let in_place = in_place.open_in_place(&mut record);
        assert_eq!(
            apart.map(|(kind, length)| (kind, out[..length].to_vec())),
            in_place.map(|(kind, content)| (kind, content.to_vec()))
        );
    }
}

/// A resource as a control plane sends it; the first byte says of which kind.
fn resources(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else {
        return;
    };
    let _ = match kind % 5 {
        0 => resource::listener(bytes, &Detached).map(drop),
        1 => resource::cluster(bytes, &Detached).map(drop),
        2 => resource::route_table(bytes, &Detached).map(drop),
        3 => resource::load_assignment(bytes).map(drop),
        _ => resource::secret(bytes).map(drop),
    };
}

fn documents(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        bootstrap::check_text(text);
    }
}

fn formats(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Format::text(text, Missing::Dash);
    }
}

fn expressions(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Expression::parse(text);
    }
}
