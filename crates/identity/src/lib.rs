//! Who a workload is and how it proves it: SPIFFE ids, keys, certificate requests, the certificate
//! authority, trust bundles, the verification of peers, and the tokens of workloads.
//!
//! Nothing here does network I/O. Time is an argument, so everything can be tested without a
//! clock. Private key material lives only in types whose `Debug` shows nothing of it.

pub mod authority;
pub mod certificate;
pub mod key;
mod owner_only;
pub mod spiffe;
pub mod token;
pub mod trust;
pub mod verify;

pub use authority::{AuthorityError, CertificateAuthority, IssuedCertificate};
pub use certificate::{CertificateDetails, CertificateError};
pub use key::{KeyError, SecretPem, WorkloadKey};
pub use owner_only::StoreError;
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub use token::{ServiceAccount, TokenError, TokenSigner, TokenVerifier};
pub use trust::{TrustBundle, TrustBundles, TrustError};
pub use verify::{PeerRole, VerifyError, verify_chain, verify_listed, verify_path};
