//! The token by which this workload proves who it is, in a file that others renew.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use outrider_xds::ads::client::{ConnectError, bearer};
use tonic::metadata::MetadataMap;

/// The environment variable that names the file.
pub const TOKEN_FILE: &str = "OUTRIDER_TOKEN_FILE";

/// The file of a token. The token itself is held no longer than a request takes to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(PathBuf);

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the token file {path} ({TOKEN_FILE}): {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is nothing in it.
    #[error("the token file {path} ({TOKEN_FILE}) is empty")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// What is in it is no token.
    #[error("the token file {path} ({TOKEN_FILE}) holds no token: {reason}")]
    Unusable {
        /// Which.
        path: PathBuf,
        /// Why not, without the token.
        reason: ConnectError,
    },
}

impl TokenFile {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        TokenFile(path.into())
    }

    /// The file that `OUTRIDER_TOKEN_FILE` names, looked up by `variable`.
    pub fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        variable(TOKEN_FILE)
            .filter(|value| !value.is_empty())
            .map(TokenFile::new)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads the token, for the headers of one call.
    ///
    /// # Errors
    /// [`TokenFileError`], which never shows what the file holds.
    pub fn metadata(&self) -> Result<MetadataMap, TokenFileError> {
        let path = || self.0.clone();
        let text = std::fs::read_to_string(&self.0).map_err(|source| TokenFileError::Read {
            path: path(),
            source,
        })?;
        if text.trim().is_empty() {
            return Err(TokenFileError::Empty { path: path() });
        }
        bearer(&text).map_err(|reason| TokenFileError::Unusable {
            path: path(),
            reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_read_at_each_use_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::new(folder.path().join("token"));
        let problem = |file: &TokenFile| file.metadata().unwrap_err().to_string();
        assert!(problem(&file).contains("No such file"));
        std::fs::write(file.path(), " \n").unwrap();
        assert!(problem(&file).contains("is empty"));
        std::fs::write(file.path(), "sec\nret").unwrap();
        let text = problem(&file);
        assert!(
            text.contains("no header can hold") && !text.contains("sec\n"),
            "{text}"
        );
        for token in ["one", "two\n"] {
            std::fs::write(file.path(), token).unwrap();
            let metadata = file.metadata().unwrap();
            let header = metadata.get("authorization").unwrap();
            assert_eq!(
                header.as_bytes(),
                format!("Bearer {}", token.trim()).as_bytes()
            );
            assert!(!format!("{metadata:?}").contains(token.trim()));
        }
    }
}
