//! The key and the certificate on disk, in the pod's own folder in memory: what a sidecar that
//! starts again while the authority is down goes on with.

use std::time::SystemTime;

use outrider_identity::{SecretPem, TrustBundle};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};

use super::issued::{Issued, IssuedError};
use crate::discovery::disk::{StateError, StateFolder};

/// Its file.
const FILE: &str = "identity";

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct Saved {
    key: String,
    /// The certificates and the roots, as the authority gives them.
    answer: Vec<String>,
}

/// Why what is on disk is not used. No text shows the key.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The file.
    #[error(transparent)]
    State(#[from] StateError),
    /// What is in it.
    #[error("it is not what this version writes")]
    Form,
    /// The certificate: it has expired, or does not lead to the roots any more.
    #[error(transparent)]
    Certificate(#[from] IssuedError),
}

/// Writes it.
///
/// # Errors
/// The system's.
pub fn save(folder: &StateFolder, issued: &Issued) -> std::io::Result<()> {
    let (key, answer) = issued.parts();
    let saved = Saved {
        key: key.expose().to_owned(),
        answer,
    };
    folder.write(FILE, &serde_json::to_vec(&saved)?)
}

/// Reads it and checks it like an answer of the authority; `None` where there is none.
///
/// # Errors
/// [`SavedError`]
pub fn restore(
    folder: &StateFolder,
    roots: &TrustBundle,
    now: SystemTime,
) -> Result<Option<Issued>, SavedError> {
    let Some(bytes) = folder.read(FILE)? else {
        return Ok(None);
    };
    let saved: Saved = serde_json::from_slice(&bytes).map_err(|_| SavedError::Form)?;
    let der = PrivateKeyDer::from_pem_slice(saved.key.as_bytes()).map_err(|_| SavedError::Form)?;
    let key = SecretPem::new(saved.key);
    let issued = Issued::check_with(&saved.answer, &der, key, roots, now)?;
    Ok(Some(issued))
}
