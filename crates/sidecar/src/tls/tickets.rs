//! Session tickets: who may come back without a full handshake, and for how long.
//!
//! What goes into a ticket is bound to the context that made it: its digest is part of what is
//! sealed. So listeners that share keys do not take each other's sessions unless they demand the
//! same of their clients, and a change of what is trusted ends all sessions that were admitted
//! before it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::cipher::{
    AES_256, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey,
    UnboundCipherKey,
};
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache, StoresServerSessions};
use rustls_pki_types::UnixTime;

use super::witness;
use crate::config::secret::TicketKey;

/// How long a session can be resumed unless `session_timeout` says otherwise: BoringSSL's two
/// hours.
const LIFETIME: Duration = Duration::from_secs(7200);
/// RFC 8446, section 4.6.1: no ticket is good for longer.
const MAX_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// Sessions that are remembered at most: BoringSSL's number.
const REMEMBERED: usize = 20 << 10;

const NAME: usize = 16;
const IV: usize = 16;
const TAG: usize = 32;

/// What makes a session one of this context's, and of this time.
#[derive(Debug)]
struct Binding {
    context: [u8; 32],
    lifetime: Duration,
}

impl Binding {
    fn new(context: [u8; 32], timeout: Option<Duration>) -> Self {
        Binding {
            context,
            lifetime: timeout.unwrap_or(LIFETIME).min(MAX_LIFETIME),
        }
    }

    /// The session with its bounds: when it began and when its client's certificate expires, in
    /// seconds since 1970, context, session.
    fn wrap(&self, session: &[u8]) -> Vec<u8> {
        let expires = witness::note(|witness| witness.peer_expires).unwrap_or(u64::MAX);
        let mut wrapped = Vec::with_capacity(8 + 8 + 32 + session.len());
        wrapped.extend_from_slice(&now().to_be_bytes());
        wrapped.extend_from_slice(&expires.to_be_bytes());
        wrapped.extend_from_slice(&self.context);
        wrapped.extend_from_slice(session);
        wrapped
    }

    /// The session, unless it is out of its bounds: then a full handshake follows, in which a client
    /// whose certificate expired can show its new one.
    fn unwrap(&self, wrapped: &[u8]) -> Option<Vec<u8>> {
        let (time, rest) = wrapped.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (context, session) = rest.split_first_chunk::<32>()?;
        let expires = u64::from_be_bytes(*expires);
        let now = now();
        let age = now.saturating_sub(u64::from_be_bytes(*time));
        let is_good = *context == self.context && age <= self.lifetime.as_secs() && now <= expires;
        is_good.then(|| {
            witness::note(|witness| {
                // The client may get another ticket, which is no better than this one.
                witness.peer_expires = Some(expires);
                witness.resumed_at = Some(UnixTime::since_unix_epoch(Duration::from_secs(now)));
            });
            session.to_vec()
        })
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The tickets of one context.
#[derive(Debug)]
pub struct Tickets {
    binding: Binding,
    keys: Keys,
}

#[derive(Debug)]
enum Keys {
    /// From the configuration: the first seals, any opens.
    Configured(Vec<TicketKey>),
    /// Made here, and changed every few hours.
    Own(Arc<dyn ProducesTickets>),
}

impl Tickets {
    /// Tickets under keys that others may have as well: any of our processes with the same keys and
    /// the same `context` takes them.
    pub fn configured(
        keys: Vec<TicketKey>,
        context: [u8; 32],
        timeout: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Tickets {
            binding: Binding::new(context, timeout),
            keys: Keys::Configured(keys),
        })
    }

    /// Tickets under keys that never leave the process.
    pub fn own(
        ticketer: Arc<dyn ProducesTickets>,
        context: [u8; 32],
        timeout: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Tickets {
            binding: Binding::new(context, timeout),
            keys: Keys::Own(ticketer),
        })
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(self.binding.lifetime.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let wrapped = self.binding.wrap(plain);
        match &self.keys {
            Keys::Configured(keys) => seal(keys.first()?, wrapped),
            Keys::Own(ticketer) => ticketer.encrypt(&wrapped),
        }
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let wrapped = match &self.keys {
            Keys::Configured(keys) => {
                let name = cipher.get(..NAME)?;
                open(keys.iter().find(|key| key.name == *name)?, cipher)
            }
            Keys::Own(ticketer) => ticketer.decrypt(cipher),
        }?;
        self.binding.unwrap(&wrapped)
    }
}

/// RFC 5077, section 4, with AES-256: name, IV, ciphertext, and the MAC over all three.
fn seal(key: &TicketKey, plain: Vec<u8>) -> Option<Vec<u8>> {
    let aes = UnboundCipherKey::new(&AES_256, &key.aes).ok()?;
    let mut sealed = plain;
    let context = PaddedBlockEncryptingKey::cbc_pkcs7(aes)
        .ok()?
        .encrypt(&mut sealed)
        .ok()?;
    let DecryptionContext::Iv128(iv) = context else {
        return None;
    };
    let mut ticket = Vec::with_capacity(NAME + IV + sealed.len() + TAG);
    ticket.extend_from_slice(&key.name);
    ticket.extend_from_slice(iv.as_ref());
    ticket.extend_from_slice(&sealed);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.hmac), &ticket);
    ticket.extend_from_slice(tag.as_ref());
    Some(ticket)
}

fn open(key: &TicketKey, ticket: &[u8]) -> Option<Vec<u8>> {
    let (rest, tag) = ticket.split_last_chunk::<TAG>()?;
    // Nothing is decrypted before the MAC is found right, in constant time.
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key.hmac), rest, tag).ok()?;
    let (iv, sealed) = rest.get(NAME..)?.split_first_chunk::<IV>()?;
    let aes = UnboundCipherKey::new(&AES_256, &key.aes).ok()?;
    let mut plain = sealed.to_vec();
    let length = PaddedBlockDecryptingKey::cbc_pkcs7(aes)
        .ok()?
        .decrypt(&mut plain, DecryptionContext::Iv128(FixedLength::from(iv)))
        .ok()?
        .len();
    plain.truncate(length);
    Some(plain)
}

/// Sessions of TLS 1.2 that the server remembers, where tickets are disabled.
#[derive(Debug)]
pub struct Remembered {
    binding: Binding,
    sessions: Arc<ServerSessionMemoryCache>,
}

impl Remembered {
    /// An empty memory.
    pub fn new(context: [u8; 32], timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Remembered {
            binding: Binding::new(context, timeout),
            sessions: ServerSessionMemoryCache::new(REMEMBERED),
        })
    }
}

impl StoresServerSessions for Remembered {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.sessions.put(key, self.binding.wrap(&value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.binding.unwrap(&self.sessions.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.binding.unwrap(&self.sessions.take(key)?)
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> TicketKey {
        TicketKey {
            name: [seed; 16],
            hmac: [seed + 1; 32],
            aes: [seed + 2; 32],
        }
    }

    fn tickets(keys: &[u8], context: u8, timeout: u64) -> Arc<Tickets> {
        Tickets::configured(
            keys.iter().map(|seed| key(*seed)).collect(),
            [context; 32],
            Some(Duration::from_secs(timeout)),
        )
    }

    #[test]
    fn a_ticket_is_opened_by_whoever_has_its_key_and_asks_the_same() {
        let ticket = tickets(&[1], 0, 60).encrypt(b"session").unwrap();
        for (keys, context, opens) in [
            (&[1][..], 0, true),
            // Rotated: the old key comes second.
            (&[9, 1], 0, true),
            (&[9], 0, false),
            (&[1], 1, false),
        ] {
            let opened = tickets(keys, context, 60).decrypt(&ticket);
            assert_eq!(opened.is_some(), opens, "{keys:?} {context}");
            assert!(opened.is_none_or(|opened| opened == b"session"));
        }
    }

    #[test]
    fn a_changed_or_old_ticket_is_refused() {
        let tickets = tickets(&[1], 0, 60);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "{at}");
        }
        let mut old = now().saturating_sub(61).to_be_bytes().to_vec();
        old.extend_from_slice(&u64::MAX.to_be_bytes());
        old.extend_from_slice(&[0; 32]);
        assert_eq!(tickets.binding.unwrap(&old), None);
        old[..8].copy_from_slice(&now().saturating_sub(59).to_be_bytes());
        assert_eq!(tickets.binding.unwrap(&old), Some(Vec::new()));
        // The client's certificate has expired since.
        old[8..16].copy_from_slice(&now().saturating_sub(1).to_be_bytes());
        assert_eq!(tickets.binding.unwrap(&old), None);
    }
}
