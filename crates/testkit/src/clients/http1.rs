//! A client of HTTP/1 and of plain TCP on one connection.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::message::{Head, Kind, Message, read_body, read_head};
use crate::netns::Pod;

/// How long it waits for one read or write, so that a test that would hang fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects from this process's own namespace.
    ///
    /// # Errors
    /// When the connection is refused or times out; the `io::Error` is the cause.
    pub fn connect(address: impl ToSocketAddrs) -> Result<Self> {
        Self::new(TcpStream::connect(address).context("connect")?)
    }

    /// Connects from inside a pod; names are resolved by its hosts file.
    ///
    /// # Errors
    /// When the connection is refused or times out; the `io::Error` is the cause.
    pub fn connect_from(pod: &Pod, address: impl ToSocketAddrs + Send) -> Result<Self> {
        Self::new(
            pod.run(|| TcpStream::connect(address))?
                .context("connect")?,
        )
    }

    /// Uses a connection that exists.
    ///
    /// # Errors
    /// When its options cannot be set.
    pub fn new(connection: TcpStream) -> Result<Self> {
        connection.set_nodelay(true)?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, connection),
        })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends exactly these bytes.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.reader
            .get_mut()
            .write_all(bytes.as_ref())
            .context("send")
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// When the connection has ended.
    pub fn close_write(&mut self) -> Result<()> {
        self.socket()
            .shutdown(Shutdown::Write)
            .context("end our direction")
    }

    /// Reads exactly this many bytes.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn read(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).context("read")?;
        Ok(bytes)
    }

    /// Reads all that comes until the peer ends its direction.
    ///
    /// # Errors
    /// When the connection is reset; the `io::Error` is the cause.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.reader
            .read_to_end(&mut bytes)
            .context("read to the end")?;
        Ok(bytes)
    }

    /// Reads one head, which may be that of an interim response.
    ///
    /// # Errors
    /// When the connection ends before.
    pub fn read_head(&mut self) -> Result<Head> {
        read_head(&mut self.reader)?.context("the connection ended before the response")
    }

    /// Reads the body that belongs to a head.
    ///
    /// # Errors
    /// When the connection ends within.
    pub fn read_body(&mut self, head: Head) -> Result<Message> {
        read_body(&mut self.reader, head, Kind::Response)
    }

    /// Reads a whole response; interim ones (1xx, but 101) are skipped.
    ///
    /// # Errors
    /// When the connection ends before or within, or what comes is not HTTP/1.
    pub fn read_response(&mut self, kind: Kind) -> Result<Message> {
        loop {
            let head = self.read_head()?;
            let status = head.status()?;
            if status >= 200 || status == 101 {
                return read_body(&mut self.reader, head, kind);
            }
        }
    }

    /// Sends exactly these bytes and reads a response.
    ///
    /// # Errors
    /// When either fails.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Result<Message> {
        self.send(&request)?;
        let to_head = request.as_ref().starts_with(b"HEAD ");
        self.read_response(if to_head {
            Kind::ResponseToHead
        } else {
            Kind::Response
        })
    }

    /// Sends a GET and reads the response.
    ///
    /// # Errors
    /// When either fails.
    pub fn get(&mut self, host: &str, target: &str) -> Result<Message> {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    /// Sends a POST with a sized body and reads the response.
    ///
    /// # Errors
    /// When either fails.
    pub fn post(&mut self, host: &str, target: &str, body: &[u8]) -> Result<Message> {
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.exchange(request)
    }
}
