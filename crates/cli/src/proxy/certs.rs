//! `outrider proxy certs`

use std::time::SystemTime;

use serde_json::Value;

use super::dump::{list, text};
use crate::output::{Table, lifetime, parse_rfc3339};

/// The page.
pub(super) const PATH: &str = "/certs";

/// What matters of the proxy's own certificate.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Certificate {
    /// The SPIFFE id, or the other names.
    pub(crate) identity: String,
    /// The end of its validity, RFC 3339.
    pub(crate) expires: String,
}

/// One row a certificate, each once however many listeners and clusters use it.
pub(super) fn table(page: &Value, now: SystemTime) -> Table {
    let mut table = Table::new(&["KIND", "IDENTITY", "VALID", "EXPIRES", "SERIAL"]);
    let mut seen = Vec::new();
    for (field, kind) in [("/cert_chain", "own"), ("/ca_cert", "trusted authority")] {
        for entry in list(page, "/certificates") {
            for (index, certificate) in list(entry, field).iter().enumerate() {
                let kind = if index > 0 && field == "/cert_chain" {
                    "intermediate"
                } else {
                    kind
                };
                let row = row(kind, certificate, now);
                if !seen.contains(&row) {
                    seen.push(row.clone());
                    table.row(row);
                }
            }
        }
    }
    table
}

fn row(kind: &str, certificate: &Value, now: SystemTime) -> [String; 5] {
    let error = text(certificate, "/error");
    if !error.is_empty() {
        return [kind, "", error, "", ""].map(str::to_owned);
    }
    let expires = text(certificate, "/expiration_time");
    let valid = match parse_rfc3339(text(certificate, "/valid_from")) {
        Some(begin) if begin > now => format!("not yet, in {}", lifetime(begin, now)),
        _ => parse_rfc3339(expires).map_or_else(String::new, |end| lifetime(end, now)),
    };
    [
        kind.to_owned(),
        identity(certificate),
        valid,
        expires.to_owned(),
        text(certificate, "/serial_number").to_owned(),
    ]
}

fn identity(certificate: &Value) -> String {
    let names = list(certificate, "/subject_alt_names").iter();
    let names = names.filter_map(|name| name.as_object()?.values().next()?.as_str());
    names.collect::<Vec<_>>().join(", ")
}

/// The workload certificate of a `/certs` page: the leaf that names a SPIFFE identity.
pub(crate) fn own_certificate(page: &Value) -> Option<Certificate> {
    let leaves = list(page, "/certificates").iter();
    let mut leaves = leaves.filter_map(|entry| list(entry, "/cert_chain").first());
    let leaf = leaves.find(|leaf| identity(leaf).starts_with("spiffe://"))?;
    Some(Certificate {
        identity: identity(leaf),
        expires: text(leaf, "/expiration_time").to_owned(),
    })
}
