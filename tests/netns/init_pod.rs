//! A pod under `outrider-init`, and connections of which it is seen where they come out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use outrider_testkit::bins;
use outrider_testkit::netns::{Network, Pod};
use socket2::{Domain, Socket, Type};

/// Both kinds of iptables.
pub const BACKENDS: [&str; 2] = ["nft", "legacy"];
/// Longer than anything takes that is not lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `outrider-init` in a pod.
pub fn init(pod: &Pod, arguments: &[&str]) -> Result<Output> {
    let mut command = pod.command(bins::path("outrider-init")?);
    command
        .args(arguments)
        .output()
        .context("run outrider-init")
}

/// Runs it and expects it to succeed; returns what it printed.
pub fn init_done(pod: &Pod, arguments: &[&str]) -> Result<String> {
    let output = init(pod, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{arguments:?} failed ({}): {said}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs it and expects it to fail with an exit code; returns what it said.
pub fn init_failed(output: &Output, code: i32) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(code),
        "{} instead of {code}: {said}",
        output.status
    );
    Ok(said)
}

/// A pod that is redirected and one that is not, on one network.
pub struct Pair {
    pub app: Pod,
    pub peer: Pod,
    _network: Network,
}

impl Pair {
    pub fn new(label: &str) -> Result<Self> {
        let network = Network::new(label)?;
        Ok(Self {
            app: network.pod("app")?,
            peer: network.pod("peer")?,
            _network: network,
        })
    }
}

/// Who a connection is made by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum As {
    App,
    ProxyUser,
    ProxyGroup,
}

impl As {
    /// Makes the sockets of this thread belong to that user. (The credentials of the file system
    /// are a thread's own, and are those that the owner match looks at.)
    pub fn assume(self) {
        match self {
            Self::App => {}
            Self::ProxyUser => drop(setfsuid(Uid::from_raw(1337))),
            Self::ProxyGroup => drop(setfsgid(Gid::from_raw(1337))),
        }
    }
}

/// A connection to be tried.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    by: As,
    source: Option<IpAddr>,
    target: SocketAddr,
}

impl Try {
    pub fn to(address: impl Into<IpAddr>, port: u16) -> Self {
        let target = SocketAddr::new(address.into(), port);
        Self {
            by: As::App,
            source: None,
            target,
        }
    }

    pub fn by(self, by: As) -> Self {
        Self { by, ..self }
    }

    pub fn from(self, source: impl Into<IpAddr>) -> Self {
        Self {
            source: Some(source.into()),
            ..self
        }
    }

    /// Connects from within `pod`.
    fn connect(&self, pod: &Pod) -> Result<io::Result<Socket>> {
        pod.run(|| {
            self.by.assume();
            let socket = Socket::new(Domain::for_address(self.target), Type::STREAM, None)?;
            if let Some(source) = self.source {
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            socket.connect_timeout(&self.target.into(), PATIENCE)?;
            Ok(socket)
        })
    }

    /// Connects and expects to come out at `server`, under the name of the target.
    pub fn reaches(&self, pod: &Pod, server: &Server) -> Result<()> {
        let client = self
            .connect(pod)?
            .with_context(|| format!("{self:?} from {}", pod.label()))?;
        let address = client
            .local_addr()?
            .as_socket()
            .context("the client's address")?;
        let original = server
            .accept(address)
            .with_context(|| format!("{self:?} from {}", pod.label()))?;
        // Without a redirect the kernel may keep no track of it, and the address is the server's.
        if let Some(original) = original {
            ensure!(
                original == self.target,
                "{self:?}: its original destination is {original}"
            );
        }
        Ok(())
    }

    /// Connects and expects to be refused.
    pub fn is_refused(&self, pod: &Pod) -> Result<()> {
        match self.connect(pod)? {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error).with_context(|| format!("{self:?}: not refused")),
            Ok(_) => bail!("{self:?}: accepted"),
        }
    }
}

/// A listening socket in a pod.
pub struct Server {
    socket: Socket,
}

impl Server {
    pub fn on(pod: &Pod, address: impl Into<IpAddr>, port: u16) -> Result<Self> {
        let address = SocketAddr::new(address.into(), port);
        let listen = || -> io::Result<_> {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())?;
            socket.listen(64)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = pod
            .run(listen)?
            .with_context(|| format!("listen on {address}"))?;
        Ok(Self { socket })
    }

    /// Takes the connection of `client`, and returns its original destination if there is one.
    fn accept(&self, client: SocketAddr) -> Result<Option<SocketAddr>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.socket.accept() {
                Ok((connection, peer)) if peer.as_socket() == Some(client) => {
                    let original = match client {
                        SocketAddr::V4(_) => connection.original_dst_v4(),
                        SocketAddr::V6(_) => connection.original_dst_v6(),
                    };
                    return Ok(original.ok().and_then(|address| address.as_socket()));
                }
                Ok((_, peer)) => bail!("{peer:?} came instead of {client}"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ensure!(Instant::now() < deadline, "came out somewhere else");
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error).context("accept"),
            }
        }
    }
}
