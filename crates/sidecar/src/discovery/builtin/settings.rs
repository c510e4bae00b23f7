//! What the environment says of the certificate authority.

use std::ffi::OsString;
use std::path::PathBuf;

use http::uri::Authority;
use rustls_pki_types::ServerName;

use crate::discovery::token::{TOKEN_FILE, TokenFile};

/// Where the authority is: `host:port`.
const CA_ADDRESS: &str = "OUTRIDER_CA_ADDRESS";
/// The file with the roots that verify the authority and the mesh's peers.
pub const ROOT_FILE: &str = "OUTRIDER_ROOT_FILE";

/// Where a certificate comes from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The authority's address, as `host:port`.
    pub address: Authority,
    /// The name that its serving certificate must have: the address's host.
    pub server_name: ServerName<'static>,
    /// By what this workload proves who it is.
    pub token_file: TokenFile,
    /// The roots that verify the authority and the mesh's peers.
    pub root_file: PathBuf,
}

/// What is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The address is none.
    #[error(
        "{CA_ADDRESS} is {value:?}, which is not host:port (such as outrider-control.outrider.svc:15012)"
    )]
    Address {
        /// What it is.
        value: String,
    },
    /// A variable that belongs to it is missing.
    #[error("{CA_ADDRESS} is set, but not {variable}: it names {purpose}")]
    Missing {
        /// Its name.
        variable: &'static str,
        /// What for.
        purpose: &'static str,
    },
}

impl Settings {
    /// What the variables say, looked up by `variable`; `None` where no authority is named.
    ///
    /// # Errors
    /// [`SettingsError`]
    pub fn from_environment(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, SettingsError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let Some(value) = variable(CA_ADDRESS) else {
            return Ok(None);
        };
        let (address, server_name) = parse(&value).ok_or_else(|| SettingsError::Address {
            value: value.to_string_lossy().into_owned(),
        })?;
        let token_file = TokenFile::from_environment(variable).ok_or(SettingsError::Missing {
            variable: TOKEN_FILE,
            purpose: "the file with the token that proves who this workload is",
        })?;
        let root_file = variable(ROOT_FILE).ok_or(SettingsError::Missing {
            variable: ROOT_FILE,
            purpose: "the file with the roots that verify the authority and the mesh's peers",
        })?;
        Ok(Some(Settings {
            address,
            server_name,
            token_file,
            root_file: root_file.into(),
        }))
    }

    /// What to connect to, without the brackets of an IPv6 address.
    pub fn host_and_port(&self) -> (&str, u16) {
        (host(&self.address), self.address.port_u16().unwrap_or(0))
    }
}

fn parse(value: &OsString) -> Option<(Authority, ServerName<'static>)> {
    let address: Authority = value.to_str()?.parse().ok()?;
    address.port_u16().filter(|port| *port != 0)?;
    // `user@host` is an authority too.
    if address.as_str().contains('@') {
        return None;
    }
    let server_name = ServerName::try_from(host(&address).to_owned()).ok()?;
    Some((address, server_name))
}

fn host(address: &Authority) -> &str {
    let host = address.host();
    host.strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, SettingsError> {
        Settings::from_environment(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn all_three_variables_or_no_address() {
        assert!(read(&[]).unwrap().is_none());
        assert!(
            read(&[(CA_ADDRESS, ""), (ROOT_FILE, "/r")])
                .unwrap()
                .is_none()
        );
        let missing = read(&[(CA_ADDRESS, "ca:1"), (ROOT_FILE, "/r")]).unwrap_err();
        assert!(
            missing.to_string().contains("not OUTRIDER_TOKEN_FILE"),
            "{missing}"
        );
        let missing = read(&[(CA_ADDRESS, "ca:1"), (TOKEN_FILE, "/t")]).unwrap_err();
        assert!(
            missing.to_string().contains("not OUTRIDER_ROOT_FILE"),
            "{missing}"
        );
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let with = |address| read(&[(CA_ADDRESS, address), (TOKEN_FILE, "/t"), (ROOT_FILE, "/r")]);
        for (address, host, port) in [
            ("control.outrider.svc:15012", "control.outrider.svc", 15012),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[fd00::1]:15012", "fd00::1", 15012),
        ] {
            let settings = with(address).unwrap().unwrap();
            assert_eq!(settings.host_and_port(), (host, port));
        }
        for address in [
            "control",
            "control:",
            "control:0",
            "http://c:1",
            "a@b:1",
            ":1",
            "a_b c:1",
        ] {
            let error = with(address).unwrap_err();
            assert!(matches!(error, SettingsError::Address { .. }), "{address}");
        }
    }
}
