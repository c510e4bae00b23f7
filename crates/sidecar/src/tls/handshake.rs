//! Drives rustls through a handshake and takes the keys over.

use std::sync::Arc;

use outrider_identity::CertificateDetails;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CipherSuite, CommonState, HandshakeKind, ProtocolVersion};
use rustls_pki_types::UnixTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::encrypted::TlsStream;
use super::error::TlsError;
use super::messages::{Keys, confidentiality_limit};
use super::peer::PeerPolicy;
use super::record::{Opener, RecordError, Sealer, record_length};
use super::socket::Socket;
use super::stream::{Handshake, PlainStream};
use super::witness::{Refusal, Staple, Witness};
use crate::config::tls::TlsVersion;

/// Does the server's side of a handshake. `received` is what the client has sent already;
/// `asks_for_staple` is known of its hello. Who comes back with a ticket is held to `policy` again.
pub async fn accept(
    mut connection: UnbufferedServerConnection,
    socket: Socket,
    received: Vec<u8>,
    asks_for_staple: bool,
    policy: &PeerPolicy,
) -> Result<TlsStream, TlsError> {
    let witness = Witness {
        asks_for_staple,
        ..Witness::default()
    };
    let mut driver = Driver::new(socket, received, witness);
    driver.run(&mut connection).await?;
    let mut handshake = describe(&connection, &mut driver.witness)?;
    if handshake.resumed {
        let at = driver.witness.resumed_at.unwrap_or_else(UnixTime::now);
        handshake.peer_validated = policy
            .verify_again(&handshake.peer_chain, at)
            .map_err(TlsError::Refused)?;
    }
    if handshake.version == TlsVersion::V1_2 {
        // The server has the last word, and the client waits for it.
        driver.flush().await?;
    }
    let (secrets, keys) = connection
        .dangerous_into_kernel_connection()
        .map_err(TlsError::Handshake)?;
    let limit = confidentiality_limit(keys.negotiated_cipher_suite());
    driver.finish(handshake, secrets, limit, Keys::Server(keys))
}

/// Does the client's side of a handshake.
pub async fn connect(
    mut connection: UnbufferedClientConnection,
    socket: Socket,
) -> Result<TlsStream, TlsError> {
    let mut driver = Driver::new(socket, Vec::new(), Witness::default());
    driver.run(&mut connection).await?;
    let handshake = describe(&connection, &mut driver.witness)?;
    let (secrets, keys) = connection
        .dangerous_into_kernel_connection()
        .map_err(TlsError::Handshake)?;
    let limit = confidentiality_limit(keys.negotiated_cipher_suite());
    driver.finish(handshake, secrets, limit, Keys::Client(keys))
}

/// What the two kinds of connection have in common.
trait Connection {
    type Data;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn has_more_to_send(&self) -> bool;
}

impl Connection for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn has_more_to_send(&self) -> bool {
        self.wants_write()
    }
}

impl Connection for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn process<'c, 'i>(
        &'c mut self,
        incoming: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn has_more_to_send(&self) -> bool {
        self.wants_write()
    }
}

enum Step {
    Again,
    /// rustls has used all that it was shown.
    Blocked,
    Done,
}

struct Driver {
    socket: PlainStream,
    incoming: Vec<u8>,
    /// How much of `incoming` rustls has been shown. It sees one record at a time, so that it
    /// never opens one that comes after the handshake: those are ours.
    shown: usize,
    outgoing: Vec<u8>,
    witness: Witness,
}

impl Driver {
    fn new(socket: Socket, incoming: Vec<u8>, witness: Witness) -> Self {
        Driver {
            socket: PlainStream::new(socket, Vec::new()),
            incoming,
            shown: 0,
            outgoing: Vec::new(),
            witness,
        }
    }

    async fn run<C: Connection>(&mut self, connection: &mut C) -> Result<(), TlsError> {
        loop {
            match self.step(connection) {
                Ok(Step::Again) => {}
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Blocked) => self.show_next_record().await?,
                Err(error) => {
                    // rustls has the alert for the peer ready, perhaps behind the beginning of an
                    // answer. Asked once more than that it would look at what came again.
                    while connection.has_more_to_send() && self.step(connection).is_ok() {}
                    // The peer may be gone; the handshake's failure is what matters.
                    let _ = self.socket.write_all(&self.outgoing).await;
                    return Err(match (self.witness.refusal.take(), error) {
                        (Some(refusal), _) => TlsError::Refused(refusal),
                        (None, rustls::Error::NoCertificatesPresented) => {
                            TlsError::Refused(Refusal::NoCertificate)
                        }
                        (None, _) if self.witness.staple == Some(Staple::Failed) => {
                            TlsError::NoStaple
                        }
                        (None, error) => TlsError::Handshake(error),
                    });
                }
            }
        }
    }

    fn step<C: Connection>(&mut self, connection: &mut C) -> Result<Step, rustls::Error> {
        let incoming = &mut self.incoming[..self.shown];
        let UnbufferedStatus { discard, state } =
            self.witness.during(|| connection.process(incoming));
        let step = act(state, &mut self.outgoing);
        self.incoming.drain(..discard);
        self.shown -= discard;
        step
    }

    /// Lets rustls see one more record, which is received if need be.
    async fn show_next_record(&mut self) -> Result<(), TlsError> {
        loop {
            let hidden = &self.incoming[self.shown..];
            match record_length(hidden) {
                Ok(Some(length)) if length <= hidden.len() => {
                    self.shown += length;
                    return Ok(());
                }
                Ok(_) => {}
                // rustls names the fault and tells the peer.
                Err(RecordError::NotTls | RecordError::TooLong) if !hidden.is_empty() => {
                    self.shown = self.incoming.len();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            self.flush().await?;
            self.incoming.reserve(4096);
            if self.socket.read_buf(&mut self.incoming).await? == 0 {
                return Err(TlsError::Closed);
            }
        }
    }

    async fn flush(&mut self) -> Result<(), TlsError> {
        if !self.outgoing.is_empty() {
            self.socket.write_all(&self.outgoing).await?;
            self.outgoing.clear();
        }
        Ok(())
    }

    fn finish(
        self,
        handshake: Handshake,
        secrets: rustls::ExtractedSecrets,
        limit: u64,
        keys: Keys,
    ) -> Result<TlsStream, TlsError> {
        let opener = Opener::new(handshake.version, secrets.rx)?;
        let sealer = Sealer::new(handshake.version, secrets.tx, limit)?;
        Ok(TlsStream::new(
            self.socket.into_socket(),
            handshake,
            (opener, sealer),
            keys,
            self.incoming,
            self.outgoing,
        ))
    }
}

/// Does what rustls asks for in this state.
fn act<Data>(
    state: Result<ConnectionState<'_, '_, Data>, rustls::Error>,
    outgoing: &mut Vec<u8>,
) -> Result<Step, rustls::Error> {
    match state? {
        ConnectionState::EncodeTlsData(mut data) => {
            let end = outgoing.len();
            if let Err(EncodeError::InsufficientSize(need)) = data.encode(&mut []) {
                outgoing.resize(end + need.required_size, 0);
                data.encode(&mut outgoing[end..])
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
            }
            Ok(Step::Again)
        }
        // It goes out when the peer is waited for, or with the first data.
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake => Ok(Step::Blocked),
        ConnectionState::WriteTraffic(_) => Ok(Step::Done),
        ConnectionState::PeerClosed | ConnectionState::Closed => Err(rustls::Error::General(
            "the peer sent close_notify during the handshake".to_owned(),
        )),
        other => Err(rustls::Error::General(format!(
            "unexpected state {other:?} during the handshake"
        ))),
    }
}

fn describe(connection: &CommonState, witness: &mut Witness) -> Result<Handshake, TlsError> {
    let unfinished = || TlsError::Handshake(rustls::Error::HandshakeNotComplete);
    let suite = connection
        .negotiated_cipher_suite()
        .ok_or_else(unfinished)?;
    let peer_chain: Vec<_> = connection
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.clone().into_owned())
        .collect();
    let peer_uris = match peer_chain.first() {
        // Where the peer is verified, its names have been read before; where it is not, a
        // certificate that cannot be read names nobody.
        Some(leaf) => CertificateDetails::parse(leaf)
            .map(|details| details.uris.into_iter().map(Arc::from).collect())
            .unwrap_or_default(),
        None => Vec::new(),
    };
    let own = witness.own.take();
    Ok(Handshake {
        version: match connection.protocol_version().ok_or_else(unfinished)? {
            ProtocolVersion::TLSv1_2 => TlsVersion::V1_2,
            _ => TlsVersion::V1_3,
        },
        cipher: cipher_name(suite.suite()),
        group: connection
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
        peer_scheme: witness.peer_scheme,
        resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        staple: witness.staple,
        alpn: connection.alpn_protocol().unwrap_or_default().to_vec(),
        peer_validated: witness.peer_validated && !peer_chain.is_empty(),
        peer_chain,
        peer_uris,
        own_uri: own.as_ref().and_then(|own| own.uri.clone()),
        own_certificate: own.and_then(|own| own.certified.cert.first().cloned()),
    })
}

/// BoringSSL's name of a suite, which Envoy's stats and logs have: OpenSSL's for TLS 1.2, IANA's for
/// 1.3.
fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "unknown",
    }
}
