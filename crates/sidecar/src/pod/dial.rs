//! Connections to the application of this pod, as the kubelet and Prometheus would make them: to the
//! pod's address, which is where it must listen. They come from the source that the redirects let
//! pass, so that neither they nor mutual TLS are in the way.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::application::Target;
use crate::discovery::resolve;
use crate::upstream::connect;

/// What the redirects let pass: `127.0.0.6` and `::6`.
const SOURCE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 6));
const SOURCE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6));

/// Makes them.
#[derive(Clone, Debug)]
pub struct Dialer {
    addresses: Arc<[IpAddr]>,
}

impl Dialer {
    /// For the pod that has these addresses, the first of which the kubelet uses.
    pub fn new(addresses: &[IpAddr]) -> Self {
        Dialer {
            addresses: addresses.into(),
        }
    }

    /// The host as it stands in a URL.
    pub fn host(&self, target: &Target) -> String {
        match &target.host {
            Some(host) => host.clone(),
            None => self.address().to_string(),
        }
    }

    fn address(&self) -> IpAddr {
        let first = self.addresses.first();
        first.copied().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Connects to the first of the target's addresses that can be connected to.
    ///
    /// # Errors
    /// The last attempt's, with its address.
    pub async fn connect(&self, target: &Target) -> io::Result<TcpStream> {
        let addresses = match &target.host {
            Some(host) => resolve::addresses(host, target.port).await?,
            None => vec![SocketAddr::new(self.address(), target.port)],
        };
        let mut failure = None;
        for address in addresses {
            match self.connect_one(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = Some(io::Error::other(format!("{address}: {error}"))),
            }
        }
        Err(failure.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
    }

    async fn connect_one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = connect::new_socket(address, None)?;
        if address.ip().is_loopback() || self.addresses.contains(&address.ip()) {
            let source = match address {
                SocketAddr::V4(_) => SOURCE_V4,
                SocketAddr::V6(_) => SOURCE_V6,
            };
            connect::bind(&socket, SocketAddr::new(source, 0))?;
        }
        socket.connect(address).await
    }
}
