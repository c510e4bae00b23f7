//! `/certs`

use std::time::SystemTime;

use outrider_identity::certificate::CertificateDetails;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::config::secret::Secret;
use crate::discovery::dump::Dump;

pub fn page(dump: &Dump) -> Value {
    let certificates = dump
        .secrets()
        .into_iter()
        .filter_map(|secret| match &*secret {
            Secret::Certificate(certificate) => {
                Some(json!({"ca_cert": [], "cert_chain": all(&certificate.certified.cert)}))
            }
            Secret::Validation(context) => {
                Some(json!({"ca_cert": all(&context.trusted_ca), "cert_chain": []}))
            }
            Secret::TicketKeys(_) => None,
        });
    json!({ "certificates": certificates.collect::<Vec<_>>() })
}

fn all(chain: &[rustls_pki_types::CertificateDer<'_>]) -> Vec<Value> {
    chain.iter().map(|der| one(der)).collect()
}

fn one(der: &[u8]) -> Value {
    let details = match CertificateDetails::parse(der) {
        Ok(details) => details,
        Err(error) => return json!({ "error": error.to_string() }),
    };
    let left = details
        .not_after
        .duration_since(SystemTime::now())
        .unwrap_or_default();
    let names = details.uris.iter().map(|uri| json!({ "uri": uri }));
    let names = names.chain(details.dns_names.iter().map(|dns| json!({ "dns": dns })));
    json!({
        "serial_number": details.serial,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "days_until_expiration": (left.as_secs() / 86_400).to_string(),
        "valid_from": rfc3339(details.not_before),
        "expiration_time": rfc3339(details.not_after),
    })
}

fn rfc3339(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(&Rfc3339)
        .unwrap_or_default()
}
