//! The small HTTP servers of the control thread: the admin API and those for the pod.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::either::Either;

/// What is answered.
pub type Page = Response<Full<Bytes>>;

/// How long a request's head may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How many connections of one server are open at once: each takes memory of the control thread, and
/// some of the servers can be reached from everywhere.
const MAX_CONNECTIONS: usize = 256;
/// How many of them one address of another machine may have: nobody keeps the kubelet out.
const MAX_OF_ONE: usize = 16;
/// The wait after a connection that could not be accepted, for want of descriptors most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Who asks was not given an answer: the connection ends without one.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer")]
pub struct Hangup;

/// Where connections come from.
pub enum Listener {
    /// An address.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener::Tcp(listener)
    }
}

impl Listener {
    /// The next connection, and who it is of. Whoever reaches a Unix socket is on this machine.
    async fn accept(&self) -> io::Result<(Either<TcpStream, UnixStream>, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Either::Left(socket), peer))
            }
            Listener::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Either::Right(socket), (Ipv4Addr::LOCALHOST, 0).into()))
            }
        }
    }
}

/// Answers until the process ends. `answer` gets the address of who asks.
pub async fn serve<A, F>(name: &'static str, listener: Listener, answer: A)
where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Page, Hangup>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let peers = Arc::<Peers>::default();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "{name}: accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Some(place) = Peers::admit(&peers, peer.ip().to_canonical()) else {
            tracing::debug!(%peer, "{name}: too many connections of one address");
            continue;
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(peer, request));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "{name}: a connection ended");
            }
            drop((permit, place));
        });
    }
}

/// How many connections each address has.
#[derive(Default)]
struct Peers(Mutex<HashMap<IpAddr, usize>>);

/// One of them, until it is dropped.
struct Place {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more; `None` where the address has enough. This machine may have all.
    fn admit(peers: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut counts = peers.counts();
        let count = counts.entry(address).or_default();
        if *count >= MAX_OF_ONE && !address.is_loopback() {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place {
            peers: peers.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.peers.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_does_not_keep_others_out() {
        let peers = Arc::<Peers>::default();
        let [near, far, other] = ["127.0.0.1", "10.0.0.1", "fd00::1"];
        let admit = |address: &str| Peers::admit(&peers, address.parse().unwrap());
        let mut places: Vec<_> = (0..MAX_OF_ONE).filter_map(|_| admit(far)).collect();
        assert_eq!(places.len(), MAX_OF_ONE);
        assert!(admit(far).is_none());
        assert!(admit(other).is_some());
        assert!((0..100).all(|_| admit(near).is_some()));
        places.pop();
        assert!(admit(far).is_some());
        drop(places);
        assert!(peers.counts().is_empty());
    }
}
