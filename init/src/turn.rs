//! One run at a time in each pod.
//!
//! Between listing the rules and restoring the planned text, nobody else may do the same, or both
//! would add their jumps. The lock is the name of an abstract Unix socket: such names belong to the
//! network namespace, as the rules do, and are free again when their process is gone.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::diagnose::Holder;
use crate::error::Error;

/// Held for as long as it lives.
pub(crate) struct Turn(#[expect(dead_code, reason = "holds the name")] UnixListener);

impl Turn {
    /// Waits until no other run is at work in this network namespace.
    ///
    /// # Errors
    /// When one still is after `wait`, named.
    pub(crate) fn take(wait: Duration) -> Result<Self, Error> {
        let failed = |source| Error::Netlink {
            action: "bind the abstract socket that keeps runs apart".to_owned(),
            hint: "",
            source,
        };
        let name = SocketAddr::from_abstract_name("outrider-init").map_err(failed)?;
        let deadline = Instant::now() + wait;
        loop {
            match UnixListener::bind_addr(&name) {
                Ok(listener) => return Ok(Self(listener)),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(failed(error)),
            }
            if Instant::now() >= deadline {
                return Err(Error::Busy {
                    holder: holder(&name),
                    waited: wait,
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn holder(name: &SocketAddr) -> Holder {
    let peer = UnixStream::connect_addr(name).ok();
    let credentials = peer.and_then(|peer| getsockopt(&peer, PeerCredentials).ok());
    credentials.map_or(Holder::Unseen, |credentials| {
        Holder::of_pid(credentials.pid())
    })
}
