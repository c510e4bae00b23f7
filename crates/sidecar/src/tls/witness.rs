//! What rustls's callbacks know of a handshake and rustls does not tell: which certificate was
//! chosen, how the peer signed, why it was refused.
//!
//! The callbacks belong to a configuration, which all connections share, and run within
//! `process_tls_records` of one of them, on its thread. So the handshake leaves its witness with the
//! thread for the time of that call.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls_pki_types::UnixTime;

use super::certificates::Own;

/// What one handshake has come to so far.
#[derive(Debug, Default)]
pub struct Witness {
    /// Whether the client asks for an OCSP response: told to the callbacks.
    pub asks_for_staple: bool,
    /// Our certificate.
    pub own: Option<Arc<Own>>,
    /// How the peer signed.
    pub peer_scheme: Option<SignatureScheme>,
    /// Whether the peer's certificate is valid.
    pub peer_validated: bool,
    /// When the client's certificate expires, in seconds since 1970, where that bounds its session.
    pub peer_expires: Option<u64>,
    /// When a session was taken up again: what its client's certificate was then is what counts,
    /// for it may expire before the handshake ends.
    pub resumed_at: Option<UnixTime>,
    /// Why the peer was refused.
    pub refusal: Option<Refusal>,
    /// What became of the OCSP response.
    pub staple: Option<Staple>,
}

/// Why a peer's certificate was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No valid chain leads to a root, or a certificate of it is revoked.
    #[error("X509_verify_cert: {0}")]
    Chain(Arc<str>),
    /// None of its names is demanded.
    #[error("SAN matcher: no name of the peer's certificate is accepted; it has {0}")]
    Names(Arc<str>),
    /// It is none of those whose hash is demanded.
    #[error("cert hash and spki")]
    Hashes,
    /// There is none.
    #[error("the peer gave no certificate")]
    NoCertificate,
    /// Its key may not be used for handshakes.
    #[error("its key usage has no digitalSignature")]
    KeyUsage,
}

/// What became of the OCSP response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Staple {
    /// It goes with the certificate.
    Sent,
    /// There is no valid one, and the policy lets the certificate go without.
    Omitted,
    /// The policy lets no certificate go without.
    Failed,
}

thread_local! {
    static PRESENT: RefCell<Witness> = RefCell::default();
}

impl Witness {
    /// Calls rustls with this witness in place.
    pub fn during<T>(&mut self, call: impl FnOnce() -> T) -> T {
        PRESENT.set(std::mem::take(self));
        let result = call();
        *self = PRESENT.take();
        result
    }
}

/// From a callback: notes something with the handshake that the thread is at.
pub fn note<T>(with: impl FnOnce(&mut Witness) -> T) -> T {
    PRESENT.with_borrow_mut(with)
}
