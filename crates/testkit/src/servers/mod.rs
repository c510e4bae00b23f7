//! Fake servers: the apps behind the mesh, and the peers that misbehave.
//!
//! Each takes a bound listener, so that it serves in whichever pod the listener was made
//! (`pod.run(|| TcpListener::bind("0.0.0.0:80"))`), and ends, with its connections, on drop.

mod answer;
pub mod dns;
pub mod grpc;
mod health;
pub mod http1;
pub mod http2;
pub mod https;
pub mod script;
pub mod tcp;

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

pub use answer::{pattern, sha256};

/// A server with a thread for each connection.
pub struct Server {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    state: Arc<State>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopping: AtomicBool,
    accepted: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Server {
    /// Serves each connection of `listener` by a call of `serve` on its own thread.
    ///
    /// # Errors
    /// When the listener's address cannot be read or the thread cannot be started.
    pub fn start(
        listener: TcpListener,
        serve: impl Fn(TcpStream) -> Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let address = listener
            .local_addr()
            .context("read the listener's address")?;
        let listener = Arc::new(listener);
        let state = Arc::new(State::default());
        let acceptor = {
            let (listener, state) = (Arc::clone(&listener), Arc::clone(&state));
            let serve = Arc::new(serve);
            thread("acceptor", move || accept(&listener, &state, &serve))?
        };
        Ok(Self {
            address,
            listener,
            state,
            acceptor: Some(acceptor),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted.
    pub fn accepted(&self) -> usize {
        self.state.accepted.load(Ordering::Acquire)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        // Wakes the accept call, wherever its namespace is.
        let _ =
            nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let open = self
            .state
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for connection in open.iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn accept<F: Fn(TcpStream) -> Result<()> + Send + Sync + 'static>(
    listener: &TcpListener,
    state: &Arc<State>,
    serve: &Arc<F>,
) {
    loop {
        let connection = match listener.accept() {
            Ok((connection, _)) => connection,
            Err(_) if state.stopping.load(Ordering::Acquire) => return,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                eprintln!("testkit: a server stops accepting: {error}");
                return;
            }
        };
        state.accepted.fetch_add(1, Ordering::AcqRel);
        let Ok(kept) = connection.try_clone() else {
            continue;
        };
        let identity = kept.as_raw_fd();
        state
            .open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(kept);
        let (serve, owner) = (Arc::clone(serve), Arc::clone(state));
        let started = thread("connection", move || {
            let _ = connection.set_nodelay(true);
            if let Err(error) = serve(connection)
                && std::env::var_os("OUTRIDER_TESTKIT_LOG").is_some()
            {
                eprintln!("testkit: a connection ended: {error:#}");
            }
            // The copy would keep the connection open.
            let mut open = owner.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|kept| kept.as_raw_fd() != identity);
        });
        if let Err(error) = started {
            eprintln!("testkit: {error:#}");
        }
    }
}

/// Starts a thread with a stack small enough for thousands of them.
fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(512 << 10)
        .spawn(work)
        .with_context(|| format!("start the thread of a {name}"))
}

/// Makes the connection's close a RST.
fn reset(connection: TcpStream) -> Result<()> {
    socket2::SockRef::from(&connection)
        .set_linger(Some(Duration::ZERO))
        .context("set the linger time")?;
    drop(connection);
    Ok(())
}

/// A runtime on a thread of its own, for the servers that are futures. Ends on drop.
pub struct AsyncServer {
    address: SocketAddr,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AsyncServer {
    /// Runs the future that `serve` makes of the listener, until it ends or this is dropped.
    ///
    /// # Errors
    /// When the listener cannot be given to the runtime.
    pub fn start<F: Future<Output = ()>>(
        listener: TcpListener,
        serve: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
    ) -> Result<Self> {
        let address = listener
            .local_addr()
            .context("read the listener's address")?;
        listener
            .set_nonblocking(true)
            .context("make the listener non-blocking")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("make a runtime")?;
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread("async server", move || {
            runtime.block_on(async {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => tokio::select! {
                        () = serve(listener) => {}
                        _ = stopped => {}
                    },
                    Err(error) => eprintln!("testkit: cannot serve: {error}"),
                }
            });
            // Ends the tasks, and with them the connections.
            drop(runtime);
        })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for AsyncServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
