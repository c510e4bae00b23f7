//! Servers that answer each request with a number: which connection it came on, counted from 1.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet, spawn_local};

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
        Self::start(answer, None).await
    }

    /// HTTP/2 with prior knowledge, of so many concurrent streams.
    pub async fn http2(answer: Answer, streams: u32) -> Self {
        Self::start(answer, Some(streams)).await
    }

    async fn start(answer: Answer, http2: Option<u32>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let state = Rc::new(State {
            answer,
            accepted: Cell::new(0),
            open: Cell::new(0),
            requests: Cell::new(0),
            peers: RefCell::default(),
            released: watch::Sender::new(answer != Answer::WhenReleased),
            leaving: watch::Sender::new(false),
            streams: http2.unwrap_or(0),
        });
        let address = listener.local_addr().expect("an address");
        let accepting = spawn_local(accept(listener, state.clone(), http2.is_some()));
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

async fn accept(listener: TcpListener, state: Rc<State>, http2: bool) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, peer)) = listener.accept().await {
        let number = state.accepted.get() + 1;
        state.accepted.set(number);
        state.open.set(state.open.get() + 1);
        state.peers.borrow_mut().push(peer);
        let state = state.clone();
        connections.spawn_local(async move {
            if http2 {
                serve_http2(tcp, number, &state).await;
            } else {
                serve_http1(tcp, number, &state).await;
            }
            state.open.set(state.open.get() - 1);
        });
    }
}

async fn serve_http1(mut tcp: TcpStream, number: u32, state: &State) {
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
        let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if tcp.write_all(response.as_bytes()).await.is_err() || state.answer == Answer::ThenClose {
            return;
        }
    }
}

async fn wait_for_release(state: &State) {
    state.requests.set(state.requests.get() + 1);
    let mut released = state.released.subscribe();
    let _ = released.wait_for(|released| *released).await;
}

async fn serve_http2(tcp: TcpStream, number: u32, state: &Rc<State>) {
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
