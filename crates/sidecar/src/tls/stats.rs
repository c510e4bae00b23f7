//! `ssl.*`: what a listener or a cluster counts of its TLS handshakes.

use std::cell::{OnceCell, RefCell};

use metrics::Counter;
use rustls::{NamedGroup, SignatureScheme};
use smallvec::SmallVec;

use super::error::TlsError;
use super::stream::{Handshake, Staple};
use super::witness::Refusal;
use crate::config::tls::TlsVersion;
use crate::telemetry::metrics::Scope;

macro_rules! tls_stats {
    ($($counter:ident)+) => {
        struct Counters {
            $($counter: Counter,)+
            secrets_not_ready: Counter,
            /// By name, each made when it first occurs: there are a handful.
            kinds: RefCell<SmallVec<[(&'static str, Counter); 8]>>,
        }

        impl Counters {
            fn new(scope: &Scope, secrets_not_ready: &'static str) -> Self {
                Counters {
                    $($counter: scope.counter(concat!("ssl.", stringify!($counter))),)+
                    secrets_not_ready: scope.counter(secrets_not_ready),
                    kinds: RefCell::default(),
                }
            }
        }
    };
}

tls_stats! {
    connection_error
    handshake
    session_reused
    no_certificate
    fail_verify_no_cert
    fail_verify_error
    fail_verify_san
    fail_verify_cert_hash
    ocsp_staple_failed
    ocsp_staple_omitted
    ocsp_staple_responses
    ocsp_staple_requests
}

/// Stats of one listener or cluster on one worker, under Envoy's names; made at the first handshake,
/// for most have no TLS.
pub struct TlsStats {
    scope: Scope,
    secrets_not_ready: &'static str,
    counters: OnceCell<Box<Counters>>,
}

impl TlsStats {
    /// Those of a listener.
    pub fn downstream(scope: Scope) -> Self {
        TlsStats {
            scope,
            secrets_not_ready: "server_ssl_socket_factory.downstream_context_secrets_not_ready",
            counters: OnceCell::new(),
        }
    }

    /// Those of a cluster.
    pub fn upstream(scope: Scope) -> Self {
        TlsStats {
            scope,
            secrets_not_ready: "client_ssl_socket_factory.upstream_context_secrets_not_ready",
            counters: OnceCell::new(),
        }
    }

    fn counters(&self) -> &Counters {
        self.counters
            .get_or_init(|| Box::new(Counters::new(&self.scope, self.secrets_not_ready)))
    }

    /// Counts a handshake that succeeded.
    pub fn shook_hands(&self, handshake: &Handshake) {
        let counters = self.counters();
        counters.handshake.increment(1);
        if handshake.resumed {
            counters.session_reused.increment(1);
        }
        if handshake.peer_chain.is_empty() {
            counters.no_certificate.increment(1);
        }
        counters.staple(handshake.staple);
        let version = match handshake.version {
            TlsVersion::V1_2 => "ssl.versions.TLSv1.2",
            TlsVersion::V1_3 => "ssl.versions.TLSv1.3",
        };
        let kinds = [
            Some(version),
            cipher(handshake.cipher),
            handshake.group.and_then(curve),
            handshake.peer_scheme.and_then(signature),
        ];
        for name in kinds.into_iter().flatten() {
            counters.count(&self.scope, name);
        }
    }

    /// Counts a handshake that failed.
    pub fn failed(&self, error: &TlsError) {
        let counters = self.counters();
        match error {
            TlsError::Refused(refusal) => match refusal {
                Refusal::Chain(_) => counters.fail_verify_error.increment(1),
                Refusal::Names(_) => counters.fail_verify_san.increment(1),
                Refusal::Hashes => counters.fail_verify_cert_hash.increment(1),
                Refusal::NoCertificate => counters.fail_verify_no_cert.increment(1),
                Refusal::KeyUsage => counters.connection_error.increment(1),
            },
            TlsError::SecretMissing(_) => counters.secrets_not_ready.increment(1),
            TlsError::NoStaple => {
                counters.staple(Some(Staple::Failed));
                counters.connection_error.increment(1);
            }
            // A peer that goes away is counted with the connections.
            TlsError::Closed | TlsError::Io(_) => {}
            _ => counters.connection_error.increment(1),
        }
    }
}

impl Counters {
    fn staple(&self, staple: Option<Staple>) {
        let Some(staple) = staple else {
            return;
        };
        self.ocsp_staple_requests.increment(1);
        match staple {
            Staple::Sent => self.ocsp_staple_responses.increment(1),
            Staple::Omitted => self.ocsp_staple_omitted.increment(1),
            Staple::Failed => self.ocsp_staple_failed.increment(1),
        }
    }

    fn count(&self, scope: &Scope, name: &'static str) {
        let mut kinds = self.kinds.borrow_mut();
        if let Some((_, counter)) = kinds.iter().find(|(known, _)| *known == name) {
            counter.increment(1);
            return;
        }
        let counter = scope.counter(name);
        counter.increment(1);
        kinds.push((name, counter));
    }
}

fn cipher(name: &str) -> Option<&'static str> {
    Some(match name {
        "TLS_AES_128_GCM_SHA256" => "ssl.ciphers.TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384" => "ssl.ciphers.TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256" => "ssl.ciphers.TLS_CHACHA20_POLY1305_SHA256",
        "ECDHE-ECDSA-AES128-GCM-SHA256" => "ssl.ciphers.ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384" => "ssl.ciphers.ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305" => "ssl.ciphers.ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-GCM-SHA256" => "ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384" => "ssl.ciphers.ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305" => "ssl.ciphers.ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}

fn curve(group: NamedGroup) -> Option<&'static str> {
    Some(match group {
        NamedGroup::X25519 => "ssl.curves.X25519",
        NamedGroup::secp256r1 => "ssl.curves.P-256",
        NamedGroup::secp384r1 => "ssl.curves.P-384",
        NamedGroup::X25519MLKEM768 => "ssl.curves.X25519MLKEM768",
        _ => return None,
    })
}

fn signature(scheme: SignatureScheme) -> Option<&'static str> {
    Some(match scheme {
        SignatureScheme::ECDSA_NISTP256_SHA256 => "ssl.sigalgs.ecdsa_secp256r1_sha256",
        SignatureScheme::ECDSA_NISTP384_SHA384 => "ssl.sigalgs.ecdsa_secp384r1_sha384",
        SignatureScheme::ECDSA_NISTP521_SHA512 => "ssl.sigalgs.ecdsa_secp521r1_sha512",
        SignatureScheme::RSA_PSS_SHA256 => "ssl.sigalgs.rsa_pss_rsae_sha256",
        SignatureScheme::RSA_PSS_SHA384 => "ssl.sigalgs.rsa_pss_rsae_sha384",
        SignatureScheme::RSA_PSS_SHA512 => "ssl.sigalgs.rsa_pss_rsae_sha512",
        SignatureScheme::RSA_PKCS1_SHA256 => "ssl.sigalgs.rsa_pkcs1_sha256",
        SignatureScheme::RSA_PKCS1_SHA384 => "ssl.sigalgs.rsa_pkcs1_sha384",
        SignatureScheme::RSA_PKCS1_SHA512 => "ssl.sigalgs.rsa_pkcs1_sha512",
        SignatureScheme::ED25519 => "ssl.sigalgs.ed25519",
        _ => return None,
    })
}
