//! Servers that answer each request with a number: which connection it came on, counted from 1.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, spawn_local};

use crate::tls::server::ServerContext;
use crate::tls::stream::Stream;

/// How a server treats its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At once.
    Now,
    /// When [`Server::release`] allows it.
    WhenReleased,
    /// At once, and then it closes the connection without having announced it.
    ThenClose,
}

/// What a server speaks.
#[derive(Clone)]
enum Speaks {
    Http1,
    Http2,
    /// What ALPN agrees on; HTTP/1 where that is nothing.
    Tls(Arc<ServerContext>),
}

/// A server on 127.0.0.1. Dropping it closes it and its connections.
pub struct Server {
    pub address: SocketAddr,
    state: Rc<State>,
    accepting: AbortHandle,
}

struct State {
    answer: Answer,
    accepted: Cell<u32>,
    open: Cell<u32>,
    requests: Cell<u32>,
    peers: RefCell<Vec<SocketAddr>>,
    released: watch::Sender<bool>,
    leaving: watch::Sender<bool>,
    streams: u32,
}

impl Server {
    /// HTTP/1.
    pub async fn http1(answer: Answer) -> Self {
        Self::start(answer, Speaks::Http1, 0).await
    }

    /// HTTP/2 with prior knowledge, of so many concurrent streams.
    pub async fn http2(answer: Answer, streams: u32) -> Self {
        Self::start(answer, Speaks::Http2, streams).await
    }

    /// What ALPN agrees on.
    pub async fn tls(answer: Answer, context: Arc<ServerContext>) -> Self {
        Self::start(answer, Speaks::Tls(context), 100).await
    }

    async fn start(answer: Answer, speaks: Speaks, streams: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let state = Rc::new(State {
            answer,
            accepted: Cell::new(0),
            open: Cell::new(0),
            requests: Cell::new(0),
            peers: RefCell::default(),
            released: watch::Sender::new(answer != Answer::WhenReleased),
            leaving: watch::Sender::new(false),
            streams,
        });
        let address = listener.local_addr().expect("an address");
        let accepting = spawn_local(accept(listener, state.clone(), speaks));
        Server {
            address,
            state,
            accepting: accepting.abort_handle(),
        }
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u32 {
        self.state.accepted.get()
    }

    /// Connections that are open.
    pub fn open(&self) -> u32 {
        self.state.open.get()
    }

    /// Requests received.
    pub fn requests(&self) -> u32 {
        self.state.requests.get()
    }

    /// Where the connections came from.
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.state.peers.borrow().clone()
    }

    /// Answers what waits, and all that follows.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// Sends GOAWAY on all HTTP/2 connections.
    pub fn go_away(&self) {
        self.state.leaving.send_replace(true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Rc<State>, speaks: Speaks) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, peer)) = listener.accept().await {
        let number = state.accepted.get() + 1;
        state.accepted.set(number);
        state.open.set(state.open.get() + 1);
        state.peers.borrow_mut().push(peer);
        let (state, speaks) = (state.clone(), speaks.clone());
        connections.spawn_local(async move {
            match speaks {
                Speaks::Http1 => serve_http1(tcp, number, &state).await,
                Speaks::Http2 => serve_http2(tcp, number, &state).await,
                Speaks::Tls(context) => serve_tls(tcp, &context, number, &state).await,
            }
            state.open.set(state.open.get() - 1);
        });
    }
}

async fn serve_tls(tcp: TcpStream, context: &ServerContext, number: u32, state: &Rc<State>) {
    let Ok(tls) = context.accept(tcp, None, Vec::new()).await else {
        return;
    };
    let stream = Stream::from(tls);
    match stream.handshake() {
        Some(handshake) if handshake.alpn == b"h2" => serve_http2(stream, number, state).await,
        _ => serve_http1(stream, number, state).await,
    }
}

async fn serve_http1(mut tcp: impl AsyncRead + AsyncWrite + Unpin, number: u32, state: &State) {
    let mut buffer = Vec::new();
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if !matches!(tcp.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        buffer.clear();
        wait_for_release(state).await;
        let body = number.to_string();
        let response = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if write(&mut tcp, &response).await.is_err() || state.answer == Answer::ThenClose {
            return;
        }
    }
}

async fn write(io: &mut (impl AsyncWrite + Unpin), text: &str) -> std::io::Result<()> {
    io.write_all(text.as_bytes()).await?;
    io.flush().await
}

async fn wait_for_release(state: &State) {
    state.requests.set(state.requests.get() + 1);
    let mut released = state.released.subscribe();
    let _ = released.wait_for(|released| *released).await;
}

async fn serve_http2(tcp: impl AsyncRead + AsyncWrite + Unpin, number: u32, state: &Rc<State>) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(state.streams);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(tcp).await else {
        return;
    };
    let mut leaving = state.leaving.subscribe();
    let mut streams = JoinSet::new();
    let mut left = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            Ok(_) = leaving.wait_for(|leaving| *leaving), if !left => {
                left = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((_request, mut respond))) = accepted else {
            return;
        };
        let state = state.clone();
        streams.spawn_local(async move {
            wait_for_release(&state).await;
            if let Ok(mut body) = respond.send_response(http::Response::new(()), false) {
                let _ = body.send_data(number.to_string().into(), true);
            }
        });
    }
}
