//! `outrider-sidecar wait`: until the sidecar of this pod is ready.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{READY, READY_PORT};

/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);
/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// As much of an answer as is read.
const MAX_ANSWER: u64 = 4096;

/// It did not become ready.
#[derive(Debug, thiserror::Error)]
#[error("the sidecar is not ready after {0:?}: {1}")]
pub struct NotReady(Duration, String);

/// Waits for as long as `timeout`.
///
/// # Errors
/// What it said last.
pub fn wait(timeout: Duration) -> Result<(), NotReady> {
    let deadline = Instant::now() + timeout;
    loop {
        let reason = match ask() {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => return Ok(()),
            Ok(answer) => match answer.split_once("\r\n\r\n") {
                Some((_, body)) => body.trim().to_owned(),
                None => "an answer that is none".to_owned(),
            },
            Err(error) => format!("127.0.0.1:{READY_PORT}: {error}"),
        };
        if Instant::now() + PAUSE >= deadline {
            return Err(NotReady(timeout, reason));
        }
        std::thread::sleep(PAUSE);
    }
}

fn ask() -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, READY_PORT));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {READY} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
