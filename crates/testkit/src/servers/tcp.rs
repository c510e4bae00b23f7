//! Servers of plain TCP.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use anyhow::Result;

use super::{Server, reset};

/// Sends back what comes, and closes its own direction when the client has closed its own.
///
/// # Errors
/// When it cannot be started.
pub fn echo(listener: TcpListener) -> Result<Server> {
    Server::start(listener, |mut connection| {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = connection.read(&mut buffer)?;
            if length == 0 {
                connection.shutdown(Shutdown::Write)?;
                return Ok(());
            }
            connection.write_all(&buffer[..length])?;
        }
    })
}

/// Reads to the end and only then answers, with the count of the bytes: what works only where
/// half-closed connections do.
///
/// # Errors
/// When it cannot be started.
pub fn count(listener: TcpListener) -> Result<Server> {
    Server::start(listener, |mut connection| {
        let total = std::io::copy(&mut connection, &mut std::io::sink())?;
        connection.write_all(total.to_string().as_bytes())?;
        Ok(())
    })
}

/// Speaks first, as MySQL and SMTP do, then echoes.
///
/// # Errors
/// When it cannot be started.
pub fn banner(listener: TcpListener, greeting: &[u8]) -> Result<Server> {
    let greeting = greeting.to_vec();
    Server::start(listener, move |mut connection| {
        connection.write_all(&greeting)?;
        let mut buffer = [0; 4096];
        loop {
            let length = connection.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            connection.write_all(&buffer[..length])?;
        }
    })
}

/// Resets each connection: at once, or after its first bytes.
///
/// # Errors
/// When it cannot be started.
pub fn resets(listener: TcpListener, after_first_bytes: bool) -> Result<Server> {
    Server::start(listener, move |mut connection| {
        if after_first_bytes {
            let _ = connection.read(&mut [0; 4096])?;
        }
        reset(connection)
    })
}

/// Accepts and never says a word; holds the connection until the client ends it.
///
/// # Errors
/// When it cannot be started.
pub fn silent(listener: TcpListener) -> Result<Server> {
    Server::start(listener, |mut connection| {
        connection.set_read_timeout(None::<Duration>)?;
        std::io::copy(&mut connection, &mut std::io::sink())?;
        Ok(())
    })
}
