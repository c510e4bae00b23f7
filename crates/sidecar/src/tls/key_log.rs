//! `TlsKeyLog`: the secrets of sessions, in the format that Wireshark reads. Only where the
//! configuration asks for it: whoever has the file can read the connections.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use ipnet::IpNet;

use crate::config::tls::KeyLogSettings;

/// An open key log.
#[derive(Debug)]
pub struct KeyLog {
    settings: KeyLogSettings,
    file: Arc<Lines>,
}

#[derive(Debug)]
struct Lines(File);

impl KeyLog {
    /// Opens the file, to which lines are appended; a new one is for its owner alone.
    ///
    /// # Errors
    /// The system's.
    pub fn open(settings: KeyLogSettings) -> io::Result<Self> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&settings.path)?;
        tracing::warn!(
            path = %settings.path.display(),
            "key_log: the keys of TLS sessions are written down; whoever has the file can read the connections"
        );
        Ok(KeyLog {
            settings,
            file: Arc::new(Lines(file)),
        })
    }

    /// Whether the keys of a connection between these addresses are wanted.
    pub fn wants(&self, local: Option<SocketAddr>, remote: Option<SocketAddr>) -> bool {
        let within = |ranges: &[IpNet], address: Option<SocketAddr>| {
            ranges.is_empty()
                || address.is_some_and(|address| {
                    let ip = address.ip().to_canonical();
                    ranges.iter().any(|range| range.contains(&ip))
                })
        };
        within(&self.settings.local, local) && within(&self.settings.remote, remote)
    }

    /// As rustls takes it.
    pub fn sink(&self) -> Arc<dyn rustls::KeyLog> {
        self.file.clone()
    }
}

impl rustls::KeyLog for Lines {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line =
            Vec::with_capacity(label.len() + 2 * (client_random.len() + secret.len()) + 3);
        line.extend_from_slice(label.as_bytes());
        for part in [client_random, secret] {
            line.push(b' ');
            for byte in part {
                // Writing to a Vec cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
        }
        line.push(b'\n');
        // One write to a file that is open for appending: lines of several threads stay whole.
        if let Err(error) = (&self.0).write_all(&line) {
            tracing::warn!(%error, "cannot write to the key log");
        }
    }
}
