//! A server that plays a script of exact bytes, to each connection the same.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Server, reset};

/// One step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads up to and with this text.
    ReadUntil(Vec<u8>),
    /// Reads this many bytes.
    Read(usize),
    /// Reads until the client ends its direction.
    ReadToEnd,
    /// Writes these bytes.
    Write(Vec<u8>),
    /// Lets time pass, as a slow peer does.
    Pause(Duration),
    /// Ends our direction and leaves the client's open.
    CloseWrite,
    /// Ends the connection with a RST.
    Reset,
}

impl Step {
    /// Reads an HTTP/1 head.
    pub fn read_head() -> Self {
        Self::ReadUntil(b"\r\n\r\n".to_vec())
    }

    /// Writes text.
    pub fn write(text: &str) -> Self {
        Self::Write(text.as_bytes().to_vec())
    }
}

/// A server that plays a script, and what it has read.
pub struct Script {
    server: Server,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Script {
    /// Plays `steps` on each connection, then closes it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(listener: TcpListener, steps: Vec<Step>) -> Result<Self> {
        let received: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let records = Arc::clone(&received);
        let server = Server::start(listener, move |connection| {
            let mut record = Vec::new();
            let result = play(connection, &steps, &mut record);
            records
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(record);
            result
        })?;
        Ok(Self { server, received })
    }

    /// The server: its address and how many connections it accepted.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// What was read on each connection that has ended, in the order in which they ended.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn play(connection: TcpStream, steps: &[Step], record: &mut Vec<u8>) -> Result<()> {
    let mut writer = connection.try_clone().context("share the connection")?;
    let mut reader = BufReader::new(connection);
    for step in steps {
        match step {
            Step::ReadUntil(text) => {
                let from = record.len();
                while !record[from..].ends_with(text) {
                    let mut byte = [0];
                    reader.read_exact(&mut byte)?;
                    record.push(byte[0]);
                }
            }
            Step::Read(length) => {
                let from = record.len();
                record.resize(from + length, 0);
                reader.read_exact(&mut record[from..])?;
            }
            Step::ReadToEnd => {
                reader.read_to_end(record)?;
            }
            Step::Write(bytes) => writer.write_all(bytes)?,
            Step::Pause(time) => std::thread::sleep(*time),
            Step::CloseWrite => writer.shutdown(Shutdown::Write)?,
            Step::Reset => return reset(writer),
        }
    }
    Ok(())
}
