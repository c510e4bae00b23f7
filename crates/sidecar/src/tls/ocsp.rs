//! OCSP responses (RFC 6960, section 4.2), as far as a server that staples one must understand it:
//! whom it is about, what it says, how long it is valid. The signature is the clients' concern.

use std::time::{Duration, SystemTime};

use x509_parser::asn1_rs::{Any, Class, FromDer as _};
use x509_parser::prelude::X509Certificate;
use x509_parser::time::ASN1Time;

/// What a response says of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspResponse {
    /// The serial number that it is about.
    serial: Vec<u8>,
    /// Whether the certificate is good.
    status: CertificateStatus,
    this_update: SystemTime,
    /// When newer information will be there; from then on it is expired.
    pub next_update: Option<SystemTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CertificateStatus {
    Good,
    Revoked,
    Unknown,
}

/// Why a response cannot be stapled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OcspError {
    /// It is not DER of an OCSP response.
    #[error("is not an OCSP response in DER")]
    Malformed,
    /// The responder failed: `responseStatus` is not `successful`.
    #[error("says that the responder failed (status {0}): fetch it again")]
    Unsuccessful(u8),
    /// It speaks of several certificates, or of none.
    #[error("must be about one certificate, and is about {0}")]
    Count(usize),
    /// It is about another certificate.
    #[error("is about another certificate than the first of certificate_chain")]
    OtherCertificate,
    /// Stapling it would tell clients to stay away.
    #[error("says that the certificate is revoked or unknown: get another certificate")]
    NotGood,
    /// `thisUpdate` lies ahead.
    #[error("is from the future (thisUpdate): is a clock wrong?")]
    Future,
}

/// Reads a response.
///
/// # Errors
/// [`OcspError`]
pub fn parse(der: &[u8]) -> Result<OcspResponse, OcspError> {
    const BASIC: &str = "1.3.6.1.5.5.7.48.1.1";
    let mut outer = Fields(sequence(der)?);
    let status = outer.next()?;
    match *status.data {
        [0] => {}
        [status] => return Err(OcspError::Unsuccessful(status)),
        _ => return Err(OcspError::Malformed),
    }
    let mut wrapped = Fields(sequence(outer.tagged(0)?.data)?);
    let kind = wrapped.next()?.oid().map_err(|_| OcspError::Malformed)?;
    if kind.to_id_string() != BASIC {
        return Err(OcspError::Malformed);
    }
    let basic = sequence(wrapped.next()?.data)?;
    let mut data = Fields(Fields(basic).next()?.data);
    // The version, where it is named.
    let _ = data.tagged(0);
    let _responder = data.next()?;
    let _produced = data.next()?;
    let mut singles = Fields(data.next()?.data);
    let mut about = Vec::new();
    while !singles.0.is_empty() {
        about.push(single(singles.next()?.data)?);
    }
    match about.len() {
        1 => about.pop().ok_or(OcspError::Malformed),
        count => Err(OcspError::Count(count)),
    }
}

fn single(body: &[u8]) -> Result<OcspResponse, OcspError> {
    let mut fields = Fields(body);
    let mut id = Fields(fields.next()?.data);
    let (_algorithm, _name, _key) = (id.next()?, id.next()?, id.next()?);
    let serial = id.next()?.data.to_vec();
    let status = fields.next()?;
    let status = match (status.class(), status.tag().0) {
        (Class::ContextSpecific, 0) => CertificateStatus::Good,
        (Class::ContextSpecific, 1) => CertificateStatus::Revoked,
        (Class::ContextSpecific, 2) => CertificateStatus::Unknown,
        _ => return Err(OcspError::Malformed),
    };
    let this_update = fields.time()?;
    let next_update = match fields.tagged(0) {
        Ok(tagged) => Some(Fields(tagged.data).time()?),
        Err(_) => None,
    };
    Ok(OcspResponse {
        serial,
        status,
        this_update,
        next_update,
    })
}

impl OcspResponse {
    /// Whether it may be stapled to this certificate, at `now`. That it expired is no mistake of the
    /// configuration: what follows from that is the context's policy.
    ///
    /// # Errors
    /// [`OcspError`]
    pub fn check(&self, certificate: &[u8], now: SystemTime) -> Result<(), OcspError> {
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|_| OcspError::OtherCertificate)?;
        if certificate.raw_serial() != self.serial {
            return Err(OcspError::OtherCertificate);
        }
        if self.status != CertificateStatus::Good {
            return Err(OcspError::NotGood);
        }
        if self.this_update > now {
            return Err(OcspError::Future);
        }
        Ok(())
    }
}

fn sequence(der: &[u8]) -> Result<&[u8], OcspError> {
    let (_, any) = Any::from_der(der).map_err(|_| OcspError::Malformed)?;
    any.header
        .is_constructed()
        .then_some(any.data)
        .ok_or(OcspError::Malformed)
}

/// The fields of a sequence that are still to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn next(&mut self) -> Result<Any<'a>, OcspError> {
        let (rest, any) = Any::from_der(self.0).map_err(|_| OcspError::Malformed)?;
        self.0 = rest;
        Ok(any)
    }

    /// The next one if it has this tag of the context.
    fn tagged(&mut self, tag: u32) -> Result<Any<'a>, OcspError> {
        let (rest, any) = Any::from_der(self.0).map_err(|_| OcspError::Malformed)?;
        if any.class() != Class::ContextSpecific || any.tag().0 != tag {
            return Err(OcspError::Malformed);
        }
        self.0 = rest;
        Ok(any)
    }

    fn time(&mut self) -> Result<SystemTime, OcspError> {
        let (rest, time) = ASN1Time::from_der(self.0).map_err(|_| OcspError::Malformed)?;
        self.0 = rest;
        let seconds = u64::try_from(time.timestamp()).map_err(|_| OcspError::Malformed)?;
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}
