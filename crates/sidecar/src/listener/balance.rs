//! `exact_balance`: a new connection goes to the worker that has fewest of its listener.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::socket::Accepted;
use crate::config::address::Address;
use crate::tls::socket::Socket;

/// A connection on its way to another worker, whose event loop it is not part of yet.
#[derive(Debug)]
pub struct Passed {
    socket: PassedSocket,
    peer: Address,
    local: Address,
}

#[derive(Debug)]
enum PassedSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Passed {
    fn new(accepted: Accepted) -> io::Result<Self> {
        let Accepted {
            socket,
            peer,
            local,
        } = accepted;
        let socket = match socket {
            Socket::Tcp(tcp) => PassedSocket::Tcp(tcp.into_std()?),
            Socket::Unix(unix) => PassedSocket::Unix(unix.into_std()?),
        };
        Ok(Passed {
            socket,
            peer,
            local,
        })
    }

    /// On the worker that takes it.
    pub fn accept(self) -> io::Result<Accepted> {
        let socket = match self.socket {
            PassedSocket::Tcp(tcp) => Socket::Tcp(TcpStream::from_std(tcp)?),
            PassedSocket::Unix(unix) => Socket::Unix(UnixStream::from_std(unix)?),
        };
        Ok(Accepted {
            socket,
            peer: self.peer,
            local: self.local,
        })
    }
}

/// How many connections each worker has.
#[derive(Debug)]
pub struct Balance {
    open: Box<[AtomicUsize]>,
    ends: Mutex<Vec<Option<Ends>>>,
}

/// What one worker gives to the others and gets from them. When no worker gives any more, what it
/// gets ends.
#[derive(Debug)]
pub struct Ends {
    /// The way to each worker.
    pub senders: Senders,
    /// What comes from others.
    pub receiver: UnboundedReceiver<Passed>,
}

/// The way to each worker.
pub type Senders = Box<[UnboundedSender<Passed>]>;

impl Balance {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..workers).map(|_| unbounded_channel()).unzip();
        let ends = receivers.into_iter().map(|receiver| {
            Some(Ends {
                senders: senders.clone().into(),
                receiver,
            })
        });
        Balance {
            open: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            ends: Mutex::new(ends.collect()),
        }
    }

    /// A worker's ends; given out once.
    pub fn take(&self, worker: usize) -> Option<Ends> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get_mut(worker)?.take()
    }

    /// Counts a new connection for the worker that has fewest, of which `here` is the first choice.
    pub fn choose(&self, here: usize) -> usize {
        let open = |worker: usize| self.open[worker].load(Relaxed);
        let fewest = (0..self.open.len()).min_by_key(|worker| (open(*worker), *worker != here));
        let chosen = fewest.unwrap_or(here);
        self.open[chosen].fetch_add(1, Relaxed);
        chosen
    }

    /// A connection of this worker has ended.
    pub fn closed(&self, worker: usize) {
        self.open[worker].fetch_sub(1, Relaxed);
    }

    /// Gives a connection to the worker that was chosen for it.
    pub fn pass(&self, accepted: Accepted, senders: &Senders, to: usize) {
        let passed = Passed::new(accepted).and_then(|passed| {
            senders[to]
                .send(passed)
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        });
        if let Err(error) = passed {
            self.closed(to);
            tracing::debug!(%error, worker = to, "a connection is lost on its way to another worker");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_goes_where_there_are_fewest() {
        let balance = Balance::new(3);
        assert_eq!(
            [0, 0, 0, 1].map(|here| balance.choose(here)),
            [0, 1, 2, 1],
            "this worker is the first choice"
        );
        balance.closed(2);
        assert_eq!(balance.choose(1), 2);
    }
}
