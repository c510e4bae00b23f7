//! What a sidecar keeps on disk, in a folder of its pod that lies in memory and goes with it: the
//! last configuration, and its key and certificate. So it starts again while the control plane is
//! down.

mod configuration;

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use outrider_identity::certificate::sha256;

pub use configuration::{DiskCopy, Saved};

/// What every file begins with: what it is, and the version of its form.
const MAGIC: &[u8] = b"outrider-state 1";
/// Only for us: there is a key among it.
const MODE: u32 = 0o600;
/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 30;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is larger than any that we wrote.
    #[error("it is longer than {MAX_FILE} bytes")]
    Size,
    /// It is of another program, or of another version of this one.
    #[error("it is none that this version has written")]
    Form,
    /// It is of another pod, or of the same one with another control plane.
    #[error("it is of {found:?}, and this is {expected:?}")]
    Owner {
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// It is not what was written.
    #[error("it is damaged")]
    Damaged,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
    owner: String,
}

impl StateFolder {
    /// The folder at `path`, with what belongs to `owner` (one line).
    pub fn new(path: impl Into<PathBuf>, owner: impl Into<String>) -> Self {
        StateFolder {
            path: path.into(),
            owner: owner.into(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written to a file; `None` where nothing was.
    ///
    /// # Errors
    /// [`StateError`]
    pub fn read(&self, file: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.path.join(file);
        let mut bytes = match fs::metadata(&path) {
            Ok(metadata) if metadata.len() > MAX_FILE => return Err(StateError::Size),
            Ok(_) => fs::read(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let rest = bytes
            .strip_prefix(MAGIC)
            .and_then(|rest| rest.strip_prefix(b"\n"));
        let rest = rest.ok_or(StateError::Form)?;
        let end = memchr::memchr(b'\n', rest).ok_or(StateError::Damaged)?;
        let (owner, rest) = (&rest[..end], &rest[end + 1..]);
        if owner != self.owner.as_bytes() {
            return Err(StateError::Owner {
                found: String::from_utf8_lossy(owner).into_owned(),
                expected: self.owner.clone(),
            });
        }
        let (sum, content) = rest.split_first_chunk().ok_or(StateError::Damaged)?;
        if sha256(content) != *sum {
            return Err(StateError::Damaged);
        }
        let begin = bytes.len() - content.len();
        bytes.drain(..begin);
        Ok(Some(bytes))
    }

    /// Replaces a file in one step: whoever reads it has the old one or the new one.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path.join(file);
        let part = path.with_extension("part");
        let mut written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(MODE)
            .open(&part)?;
        for bytes in [
            MAGIC,
            b"\n",
            self.owner.as_bytes(),
            b"\n",
            &sha256(content),
            content,
        ] {
            written.write_all(bytes)?;
        }
        fs::rename(&part, &path)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::new(folder.path(), "me");
        assert!(state.read("file").unwrap().is_none());
        state.write("file", b"old").unwrap();
        state.write("file", b"new\ncontent").unwrap();
        assert_eq!(state.read("file").unwrap().unwrap(), b"new\ncontent");
        let path = folder.path().join("file");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

        let other = StateFolder::new(folder.path(), "you");
        let error = other.read("file").unwrap_err().to_string();
        assert_eq!(error, "it is of \"me\", and this is \"you\"");
        let good = fs::read(&path).unwrap();
        for (bytes, expected) in [
            (good[..good.len() - 1].to_vec(), "damaged"),
            (good[..20].to_vec(), "damaged"),
            (b"outrider-state 0\nme\n".to_vec(), "none that this version"),
            (Vec::new(), "none that this version"),
        ] {
            fs::write(&path, bytes).unwrap();
            let error = state.read("file").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
