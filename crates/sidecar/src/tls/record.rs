//! Protection of TLS records once the handshake is done: RFC 8446 section 5.2 for TLS 1.3, RFC 5246
//! section 6.2.3.3 with RFC 5288 and RFC 7905 for TLS 1.2.
//!
//! rustls does the handshake and derives every key; the records of the connection are sealed and
//! opened here, so that bulk data is encrypted from one buffer straight into another, many records
//! to a system call, with no copy and no allocation.

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

use crate::config::tls::TlsVersion;

/// Bytes of a record's header.
pub const HEADER: usize = 5;
/// The most plaintext in one record.
pub const MAX_PLAINTEXT: usize = 1 << 14;
/// The most bytes that sealing adds to one record.
pub const MAX_OVERHEAD: usize = HEADER + EXPLICIT_NONCE + TAG + 1;
/// The longest record that we send.
pub const MAX_SEALED: usize = MAX_PLAINTEXT + MAX_OVERHEAD;
/// The longest record that we accept: TLS 1.2's bound, the larger of the two.
pub const MAX_RECORD: usize = HEADER + MAX_PLAINTEXT + 2048;

const TAG: usize = 16;
const EXPLICIT_NONCE: usize = 8;

/// What a record carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentType(pub u8);

impl ContentType {
    /// `alert`
    pub const ALERT: ContentType = ContentType(21);
    /// `handshake`
    pub const HANDSHAKE: ContentType = ContentType(22);
    /// `application_data`
    pub const APPLICATION_DATA: ContentType = ContentType(23);
}

/// Why a record cannot be opened or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The header is not TLS.
    #[error("the peer sent bytes that are no TLS record")]
    NotTls,
    /// A record longer than the protocol allows.
    #[error("the peer sent a TLS record that is too long")]
    TooLong,
    /// It was not sealed by the peer, or changed on its way.
    #[error("a TLS record failed authentication")]
    BadMac,
    /// A kind of record or message that has no place here.
    #[error("the peer sent an unexpected TLS message")]
    Unexpected,
    /// A message that cannot be parsed.
    #[error("the peer sent a malformed TLS message")]
    Malformed,
    /// The peer ended the connection with a fatal alert.
    #[error("the peer sent TLS alert {0}")]
    Alert(u8),
    /// Many records in a row that carry no data.
    #[error("the peer sent too many TLS records without data")]
    TooManyEmpty,
    /// The key has protected as many records as it may.
    #[error("the TLS key has reached its limit")]
    KeyExhausted,
    /// The key schedule or the cipher refused to work.
    #[error("TLS cipher failure")]
    Cipher,
}

impl RecordError {
    /// The alert that tells the peer (RFC 8446 section 6.2); `None` where it already knows.
    pub fn alert(self) -> Option<u8> {
        match self {
            RecordError::Alert(_) => None,
            RecordError::NotTls | RecordError::Unexpected | RecordError::TooManyEmpty => Some(10),
            RecordError::BadMac => Some(20),
            RecordError::TooLong => Some(22),
            RecordError::Malformed => Some(50),
            RecordError::KeyExhausted | RecordError::Cipher => Some(80),
        }
    }
}

/// The length of the record at the front of `bytes`, with its header; `None` if its header is not
/// complete.
///
/// # Errors
/// It is no TLS record, or longer than any may be.
pub fn record_length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if header[1] != 3 || !(20..=23).contains(&header[0]) {
        return Err(RecordError::NotTls);
    }
    let length = HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length > MAX_RECORD {
        return Err(RecordError::TooLong);
    }
    Ok(Some(length))
}

/// One direction's key with its place in the sequence of records.
struct Protection {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    version: TlsVersion,
    /// TLS 1.2 with AES-GCM: eight bytes of the nonce travel with the record.
    explicit_nonce: bool,
}

impl Protection {
    fn new(
        version: TlsVersion,
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
    ) -> Result<Self, RecordError> {
        let (algorithm, key, iv, gcm) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv, true),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv, true),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&CHACHA20_POLY1305, key, iv, false)
            }
            _ => return Err(RecordError::Cipher),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Cipher)?;
        Ok(Protection {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| RecordError::Cipher)?,
            sequence,
            version,
            explicit_nonce: gcm && version == TlsVersion::V1_2,
        })
    }

    /// RFC 8446 section 5.3: the sequence number over the IV. TLS 1.2 uses the same for ChaCha20
    /// (RFC 7905), and may for the explicit part of AES-GCM, which need only be unique.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= sequence;
        }
        nonce
    }

    /// The bytes before the ciphertext.
    fn prefix(&self) -> usize {
        HEADER
            + if self.explicit_nonce {
                EXPLICIT_NONCE
            } else {
                0
            }
    }

    /// The bytes of inner content type (TLS 1.3) and tag after the payload.
    fn suffix(&self) -> usize {
        TAG + usize::from(self.version == TlsVersion::V1_3)
    }

    fn additional_data(&self, kind: u8, header: [u8; HEADER], plaintext: usize) -> AdditionalData {
        let mut data = AdditionalData::default();
        match self.version {
            TlsVersion::V1_3 => data.set(&header),
            TlsVersion::V1_2 => {
                let [high, low] = (plaintext as u16).to_be_bytes();
                data.set(&self.sequence.to_be_bytes());
                data.set(&[kind, 3, 3, high, low]);
            }
        }
        data
    }
}

/// At most the 13 bytes of TLS 1.2.
#[derive(Default)]
struct AdditionalData {
    bytes: [u8; 13],
    length: usize,
}

impl AdditionalData {
    fn set(&mut self, more: &[u8]) {
        self.bytes[self.length..self.length + more.len()].copy_from_slice(more);
        self.length += more.len();
    }
}

impl AsRef<[u8]> for AdditionalData {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Seals what we send.
pub struct Sealer {
    protection: Protection,
    /// Records that one key may protect.
    limit: u64,
}

impl Sealer {
    /// A sealer for one key. `limit` is the cipher suite's confidentiality limit, in records.
    ///
    /// # Errors
    /// A cipher that we do not know.
    pub fn new(
        version: TlsVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
        limit: u64,
    ) -> Result<Self, RecordError> {
        Ok(Sealer {
            protection: Protection::new(version, sequence, &secrets)?,
            // Sequence numbers must not wrap either (RFC 8446 section 5.5); some room is left for
            // the KeyUpdate or the close.
            limit: limit.min(u64::MAX - (1 << 16)) - 16,
        })
    }

    /// Sets the limit of this key.
    #[cfg(test)]
    pub fn set_limit(&mut self, records: u64) {
        self.limit = records;
    }

    /// Whether the key must be replaced (TLS 1.3) or the connection closed (TLS 1.2) before more
    /// data is sealed.
    pub fn exhausted(&self) -> bool {
        self.protection.sequence >= self.limit
    }

    /// Seals the `payload` slices, together at most [`MAX_PLAINTEXT`] bytes, as one record at the
    /// front of `out`, which has room for [`MAX_SEALED`]; answers the record's length.
    ///
    /// # Errors
    /// The cipher fails, which it does not for payloads of that size.
    pub fn seal(
        &mut self,
        kind: ContentType,
        payload: Gathered<'_, '_>,
        out: &mut [u8],
    ) -> Result<usize, RecordError> {
        let protection = &mut self.protection;
        let (prefix, suffix) = (protection.prefix(), protection.suffix());
        let length = payload.length;
        let total = prefix + length + suffix;
        let nonce = protection.nonce();
        let (outer, inner): (u8, &[u8]) = match protection.version {
            TlsVersion::V1_3 => (ContentType::APPLICATION_DATA.0, &[kind.0]),
            TlsVersion::V1_2 => (kind.0, &[]),
        };
        let [high, low] = ((total - HEADER) as u16).to_be_bytes();
        let header = [outer, 3, 3, high, low];
        let aad = Aad::from(protection.additional_data(kind.0, header, length));

        let (head, body) = out[..total].split_at_mut(prefix);
        let (body, tag) = body.split_at_mut(length);
        head[..HEADER].copy_from_slice(&header);
        if protection.explicit_nonce {
            head[HEADER..].copy_from_slice(&nonce[4..]);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        match payload.slices {
            [only] => protection
                .key
                .seal_out_of_place_scatter(nonce, aad, only, body, inner, tag),
            parts => {
                let mut at = 0;
                for part in parts {
                    body[at..at + part.len()].copy_from_slice(part);
                    at += part.len();
                }
                protection
                    .key
                    .seal_in_place_scatter(nonce, aad, body, inner, tag)
            }
        }
        .map_err(|_| RecordError::Cipher)?;
        protection.sequence += 1;
        Ok(total)
    }
}

/// A payload in pieces.
#[derive(Clone, Copy)]
pub struct Gathered<'a, 'b> {
    slices: &'b [&'a [u8]],
    length: usize,
}

impl<'a, 'b> Gathered<'a, 'b> {
    /// The pieces in order.
    pub fn new(slices: &'b [&'a [u8]]) -> Self {
        Gathered {
            slices,
            length: slices.iter().map(|slice| slice.len()).sum(),
        }
    }
}

/// Opens what the peer sent.
pub struct Opener {
    protection: Protection,
}

impl Opener {
    /// An opener for one key.
    ///
    /// # Errors
    /// A cipher that we do not know.
    pub fn new(
        version: TlsVersion,
        (sequence, secrets): (u64, ConnectionTrafficSecrets),
    ) -> Result<Self, RecordError> {
        Ok(Opener {
            protection: Protection::new(version, sequence, &secrets)?,
        })
    }

    /// The room that [`Opener::open_into`] needs for a record of this length.
    pub fn room(&self, record: usize) -> usize {
        record.saturating_sub(self.protection.prefix() + TAG)
    }

    /// Opens one whole record into `out`, which is [`Opener::room`] bytes; answers its kind and how
    /// many bytes of `out` are its content.
    ///
    /// # Errors
    /// [`RecordError`]; nothing of `out` may be used then.
    pub fn open_into(
        &mut self,
        record: &[u8],
        out: &mut [u8],
    ) -> Result<(ContentType, usize), RecordError> {
        let (nonce, aad) = self.prepare(record)?;
        let (ciphertext, tag) = record[self.protection.prefix()..].split_at(out.len());
        self.protection
            .key
            .open_separate_gather(nonce, aad, ciphertext, tag, out)
            .map_err(|_| RecordError::BadMac)?;
        self.finish(record[0], out)
    }

    /// Opens one whole record where it is; answers its kind and its content.
    ///
    /// # Errors
    /// [`RecordError`]
    pub fn open_in_place<'a>(
        &mut self,
        record: &'a mut [u8],
    ) -> Result<(ContentType, &'a [u8]), RecordError> {
        let (nonce, aad) = self.prepare(record)?;
        let kind = record[0];
        let plaintext = self
            .protection
            .key
            .open_in_place(nonce, aad, &mut record[self.protection.prefix()..])
            .map_err(|_| RecordError::BadMac)?;
        let (kind, length) = self.finish(kind, plaintext)?;
        Ok((kind, &plaintext[..length]))
    }

    fn prepare(&self, record: &[u8]) -> Result<(Nonce, Aad<AdditionalData>), RecordError> {
        let protection = &self.protection;
        let Some(plaintext) = record.len().checked_sub(protection.prefix() + TAG) else {
            return Err(RecordError::BadMac);
        };
        let header = *record
            .first_chunk::<HEADER>()
            .ok_or(RecordError::Malformed)?;
        let mut nonce = protection.nonce();
        match protection.version {
            TlsVersion::V1_3 => {
                if header[0] != ContentType::APPLICATION_DATA.0 {
                    return Err(RecordError::Unexpected);
                }
                if plaintext > MAX_PLAINTEXT + 240 {
                    return Err(RecordError::TooLong);
                }
            }
            TlsVersion::V1_2 if protection.explicit_nonce => {
                nonce[4..].copy_from_slice(&record[HEADER..HEADER + EXPLICIT_NONCE]);
            }
            TlsVersion::V1_2 => {}
        }
        Ok((
            Nonce::assume_unique_for_key(nonce),
            Aad::from(protection.additional_data(header[0], header, plaintext)),
        ))
    }

    fn finish(&mut self, outer: u8, plaintext: &[u8]) -> Result<(ContentType, usize), RecordError> {
        self.protection.sequence = self
            .protection
            .sequence
            .checked_add(1)
            .ok_or(RecordError::KeyExhausted)?;
        let (kind, length) = match self.protection.version {
            TlsVersion::V1_2 => (outer, plaintext.len()),
            // The content type is the last byte that is not zero: padding follows it.
            TlsVersion::V1_3 => {
                let last = plaintext
                    .iter()
                    .rposition(|byte| *byte != 0)
                    .ok_or(RecordError::Unexpected)?;
                (plaintext[last], last)
            }
        };
        if length > MAX_PLAINTEXT {
            return Err(RecordError::TooLong);
        }
        Ok((ContentType(kind), length))
    }
}
