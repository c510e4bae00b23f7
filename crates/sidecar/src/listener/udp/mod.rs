//! Listeners of datagrams. Each worker has a socket of its own, and the kernel gives all datagrams
//! of a client to the same one, so that its session is on that worker.

pub mod datagram;
mod proxy;
mod session;
mod stats;

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use socket2::Socket;
use tokio::sync::Notify;

use self::datagram::Listening;
use self::proxy::Proxy;
use super::running::Running;
use crate::runtime::worker::Worker;

/// So many datagrams are taken at once before others have their turn.
const AT_ONCE: usize = 64;

/// Takes datagrams from the socket until `stop` is told.
pub fn start(worker: &Rc<Worker>, running: &Rc<Running>, socket: Socket, stop: &Rc<Notify>) {
    let listening = match Listening::new(socket) {
        Ok(listening) => Rc::new(listening),
        Err(error) => {
            let listener = &running.config().name;
            return tracing::error!(%listener, %error, "cannot receive on this worker");
        }
    };
    let (worker, running, stop) = (worker.clone(), running.clone(), stop.clone());
    tokio::task::spawn_local(async move {
        tokio::select! {
            biased;
            () = stop.notified() => {}
            () = receive(&worker, &running, &listening) => {}
        }
    });
}

/// Never ends by itself. Dropped, it ends all sessions.
async fn receive(worker: &Rc<Worker>, running: &Rc<Running>, listening: &Rc<Listening>) {
    let begin = || Proxy::new(worker, running.config(), listening);
    let Some(mut proxy) = begin() else { return };
    loop {
        if let Err(error) = listening.readable().await {
            return tracing::error!(%error, "cannot wait for datagrams");
        }
        if !Arc::ptr_eq(proxy.config(), &running.config()) {
            // As in Envoy the sessions of another configuration end.
            match begin() {
                Some(next) => proxy = next,
                None => return,
            }
        }
        let taken = take(listening, &proxy);
        if taken == AT_ONCE {
            tokio::task::yield_now().await;
        }
    }
}

fn take(listening: &Listening, proxy: &Rc<Proxy>) -> usize {
    // One byte more, or a datagram that is too long would look like one that just fits.
    let mut bytes = proxy.room();
    for taken in 0..AT_ONCE {
        match listening.receive(&mut bytes) {
            Ok(received) if !received.whole || received.length == bytes.len() => {
                proxy.too_long();
            }
            Ok(received) => proxy.receive(&bytes[..received.length], &received),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return taken,
            Err(error) => {
                tracing::debug!(%error, "cannot receive a datagram");
                proxy.failed();
                return taken;
            }
        }
    }
    AT_ONCE
}
