//! Where the admin API is reached.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::net::UnixListener;

use super::{Admin, Asked};
use crate::config::address::Address;
use crate::runtime::http_server::{self, Hangup, Listener};

/// Why the admin API could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("admin.address: cannot listen on {address}: {source}")]
pub struct AdminError {
    /// The address that was asked for.
    address: Address,
    /// Why not.
    source: io::Error,
}

/// A bound address.
pub struct AdminListener {
    listener: Listener,
    address: Address,
}

impl AdminListener {
    /// Where it is, with the port that the system has chosen where 0 was asked for.
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

/// Binds the admin address.
///
/// # Errors
/// It cannot be had.
pub fn bind(address: &Address) -> Result<AdminListener, AdminError> {
    let bound = match address {
        Address::Socket(socket) => tcp(*socket),
        Address::Pipe(path) => unix(path).map(|listener| (listener, address.clone())),
    };
    let (listener, address) = bound.map_err(|source| AdminError {
        address: address.clone(),
        source,
    })?;
    Ok(AdminListener { listener, address })
}

fn tcp(address: SocketAddr) -> io::Result<(Listener, Address)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    Ok((Listener::Tcp(listener), Address::Socket(bound)))
}

/// A path that begins with `@` is abstract. Of a process before us, the socket may be there still.
fn unix(path: &Path) -> io::Result<Listener> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener as Std, UnixStream};

    let name = path.to_string_lossy();
    let listener = if let Some(name) = name.strip_prefix('@') {
        Std::bind_addr(&SocketAddr::from_abstract_name(name)?)?
    } else {
        let is_socket =
            std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
        if is_socket && UnixStream::connect(path).is_err() {
            std::fs::remove_file(path)?;
        }
        Std::bind(path)?
    };
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Listener::Unix)
}

/// The most bytes of a form that are read.
const MOST_FORM: usize = 64 * 1024;

/// Serves until the process ends.
pub async fn serve(listener: AdminListener, admin: Arc<Admin>) {
    let answer = move |_, request: Request<Incoming>| {
        let admin = admin.clone();
        async move {
            let (head, body) = request.into_parts();
            let form = form(&head.headers, body).await?;
            Ok(admin.answer(&Asked {
                method: &head.method,
                uri: &head.uri,
                headers: &head.headers,
                form: form.as_deref(),
            }))
        }
    };
    http_server::serve("admin", listener.listener, answer).await;
}

/// The parameters in a body that is a form; any other is not looked at.
async fn form(headers: &HeaderMap, body: Incoming) -> Result<Option<String>, Hangup> {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_form = kind.is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !is_form {
        return Ok(None);
    }
    let body = Limited::new(body, MOST_FORM).collect().await;
    let body = body.map_err(|_| Hangup)?.to_bytes();
    Ok(Some(String::from_utf8_lossy(&body).into_owned()))
}
