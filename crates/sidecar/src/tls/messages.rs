//! What peers say to each other after the handshake beside data: alerts, KeyUpdate, session
//! tickets. No I/O.

use rustls::client::ClientConnectionData;
use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;

use super::record::{ContentType, Opener, RecordError, Sealer};
use crate::config::tls::TlsVersion;

/// Records without data that a peer may send in a row: enough for tickets and KeyUpdates, too few
/// to keep us busy for nothing.
const MAX_WITHOUT_DATA: u32 = 32;
/// The longest handshake message after the handshake; a session ticket is the longest that is due.
const MAX_MESSAGE: usize = 1 << 16;

const HELLO_REQUEST: u8 = 0;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// What rustls keeps of the key schedule.
pub enum Keys {
    /// We are the client.
    Client(KernelConnection<ClientConnectionData>),
    /// We are the server.
    Server(KernelConnection<ServerConnectionData>),
}

impl Keys {
    fn limit(&self) -> u64 {
        let suite = match self {
            Keys::Client(keys) => keys.negotiated_cipher_suite(),
            Keys::Server(keys) => keys.negotiated_cipher_suite(),
        };
        confidentiality_limit(suite)
    }
}

/// Records that one key of this suite may protect.
pub fn confidentiality_limit(suite: rustls::SupportedCipherSuite) -> u64 {
    match suite {
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.confidentiality_limit,
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.confidentiality_limit,
    }
}

/// The state of that conversation.
pub struct Messages {
    version: TlsVersion,
    keys: Keys,
    /// A handshake message that is not complete.
    fragment: Vec<u8>,
    without_data: u32,
    closed: bool,
    key_update_owed: bool,
}

impl Messages {
    /// The alert that ends what we send.
    pub const CLOSE_NOTIFY: [u8; 2] = [1, 0];
    /// A KeyUpdate that asks for none in return.
    pub const KEY_UPDATE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];

    /// The state right after the handshake.
    pub fn new(version: TlsVersion, keys: Keys) -> Self {
        Messages {
            version,
            keys,
            fragment: Vec::new(),
            without_data: 0,
            closed: false,
            key_update_owed: false,
        }
    }

    /// Whether the peer has ended its data by close_notify.
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// Whether this version has KeyUpdate.
    pub fn may_update_keys(&self) -> bool {
        self.version == TlsVersion::V1_3
    }

    /// Notes that data came.
    ///
    /// # Errors
    /// One empty record too many, or data in the middle of a message.
    pub fn data(&mut self, length: usize) -> Result<(), RecordError> {
        if !self.fragment.is_empty() {
            return Err(RecordError::Unexpected);
        }
        if length > 0 {
            self.without_data = 0;
            return Ok(());
        }
        self.count()
    }

    fn count(&mut self) -> Result<(), RecordError> {
        self.without_data += 1;
        if self.without_data > MAX_WITHOUT_DATA {
            return Err(RecordError::TooManyEmpty);
        }
        Ok(())
    }

    /// Whether a KeyUpdate is owed and may be sent now; it counts as sent. One answers any number
    /// of requests, so a peer that does not read cannot make us pile them up.
    pub fn take_key_update_owed(&mut self, nothing_waits: bool) -> bool {
        nothing_waits && std::mem::take(&mut self.key_update_owed)
    }

    /// The sealer for what follows our KeyUpdate.
    ///
    /// # Errors
    /// The key schedule fails.
    pub fn next_sealer(&mut self) -> Result<Sealer, RecordError> {
        let limit = self.keys.limit();
        let secrets = match &mut self.keys {
            Keys::Client(keys) => keys.update_tx_secret(),
            Keys::Server(keys) => keys.update_tx_secret(),
        }
        .map_err(|_| RecordError::Cipher)?;
        Sealer::new(self.version, secrets, limit)
    }

    /// Handles a record that is not data; answers the opener of the records behind it where the
    /// peer changed its key.
    ///
    /// # Errors
    /// The connection must end, and why.
    pub fn message(
        &mut self,
        kind: ContentType,
        content: &[u8],
    ) -> Result<Option<Opener>, RecordError> {
        self.count()?;
        match kind {
            ContentType::ALERT => self.alert(content).map(|()| None),
            ContentType::HANDSHAKE => self.handshake(content),
            _ => Err(RecordError::Unexpected),
        }
    }

    fn alert(&mut self, content: &[u8]) -> Result<(), RecordError> {
        const CLOSE_NOTIFY: u8 = 0;
        const USER_CANCELED: u8 = 90;
        const NO_RENEGOTIATION: u8 = 100;
        let [level, description] = *content else {
            return Err(RecordError::Malformed);
        };
        match (level, description, self.version) {
            (_, CLOSE_NOTIFY, _) => self.closed = true,
            // In TLS 1.3 every alert but close_notify and user_canceled is fatal, whatever its
            // level says.
            (_, USER_CANCELED, TlsVersion::V1_3) => {}
            (1, USER_CANCELED | NO_RENEGOTIATION, TlsVersion::V1_2) => {}
            _ => return Err(RecordError::Alert(description)),
        }
        Ok(())
    }

    fn handshake(&mut self, content: &[u8]) -> Result<Option<Opener>, RecordError> {
        if content.is_empty() {
            return Err(RecordError::Unexpected);
        }
        self.fragment.extend_from_slice(content);
        let mut fragment = std::mem::take(&mut self.fragment);
        let mut at = 0;
        let mut opener = None;
        while let Some(header) = fragment[at..].first_chunk::<4>() {
            let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            if length > MAX_MESSAGE {
                return Err(RecordError::TooLong);
            }
            let Some(body) = fragment[at + 4..].get(..length) else {
                break;
            };
            at += 4 + length;
            match (header[0], self.version) {
                (KEY_UPDATE, TlsVersion::V1_3) => {
                    // The key changes with the next record, so the message must end this one.
                    if at != fragment.len() {
                        return Err(RecordError::Unexpected);
                    }
                    match body {
                        [0] => {}
                        [1] => self.key_update_owed = true,
                        _ => return Err(RecordError::Malformed),
                    }
                    opener = Some(self.next_opener()?);
                }
                (NEW_SESSION_TICKET, TlsVersion::V1_3) => match &mut self.keys {
                    Keys::Client(keys) => keys
                        .handle_new_session_ticket(body)
                        .map_err(|_| RecordError::Malformed)?,
                    Keys::Server(_) => return Err(RecordError::Unexpected),
                },
                // A wish to renegotiate, which we never do: RFC 5246 lets us ignore the server's.
                // To the client's we could only say no, and BoringSSL ends the connection too.
                (HELLO_REQUEST, TlsVersion::V1_2)
                    if matches!(self.keys, Keys::Client(_)) && body.is_empty() => {}
                _ => return Err(RecordError::Unexpected),
            }
        }
        fragment.drain(..at);
        if !fragment.is_empty() {
            self.fragment = fragment;
        }
        Ok(opener)
    }

    fn next_opener(&mut self) -> Result<Opener, RecordError> {
        let secrets = match &mut self.keys {
            Keys::Client(keys) => keys.update_rx_secret(),
            Keys::Server(keys) => keys.update_rx_secret(),
        }
        .map_err(|_| RecordError::Cipher)?;
        Opener::new(self.version, secrets)
    }
}
