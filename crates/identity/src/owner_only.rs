//! Files that only their owner can read: the authority's own key store.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Why the key store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the file or enter the directory.
    #[error(
        "{path} has mode {mode:04o}, so others can reach the keys in it: run `chmod {wanted:o} \
         {path}`, or make new keys if others may have read them"
    )]
    Permissions {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Another user owns the file or directory, and can read and replace what is in it.
    #[error(
        "{path} belongs to user {owner} and this program runs as user {user}: run \
         `chown -R {user} {path}`, or make new keys if that user may have read them"
    )]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who we are.
        user: u32,
    },
    /// It is no file, or one of a size that no key has.
    #[error("{path} is not a file of at most {LIMIT} bytes, so it is no key store")]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
}

/// The longest file of keys that is read.
const LIMIT: u64 = 1 << 20;

impl StoreError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Makes the directory (mode 0700) unless it exists, and refuses one that others can enter.
pub(crate) fn ensure_directory(directory: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(StoreError::io("making the directory", directory))?;
    let metadata = fs::metadata(directory).map_err(StoreError::io("looking at", directory))?;
    check(directory, &metadata, 0o700)
}

/// Reads a file that only its owner can read; `None` if it does not exist. What is looked at is the
/// open file: the name may lead elsewhere a moment later.
pub(crate) fn read(path: &Path) -> Result<Option<String>, StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        // A pipe would keep us waiting for its writer.
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("reading", path)(error)),
    };
    let metadata = file
        .metadata()
        .map_err(StoreError::io("looking at", path))?;
    check(path, &metadata, 0o600)?;
    let not_a_key = || StoreError::NotAKey {
        path: path.to_owned(),
    };
    if !metadata.is_file() {
        return Err(not_a_key());
    }
    let mut text = String::new();
    file.take(LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(StoreError::io("reading", path))?;
    if text.len() as u64 > LIMIT {
        return Err(not_a_key());
    }
    Ok(Some(text))
}

/// Reads the file, or creates it with what `make` gives. The content appears whole or not at all,
/// and of several processes that start at once one wins and all get the winner's content.
pub(crate) fn read_or_create<E: From<StoreError>>(
    path: &Path,
    make: impl FnOnce() -> Result<String, E>,
) -> Result<String, E> {
    if let Some(text) = read(path)? {
        return Ok(text);
    }
    let text = make()?;
    let temporary = path.with_extension(format!("new.{}", std::process::id()));
    let created = write_and_link(&temporary, path, text.as_bytes());
    // Whatever came of it, no second copy of the key stays behind.
    let removed = fs::remove_file(&temporary).map_err(StoreError::io("removing", &temporary));
    let created = created?;
    removed?;
    if created {
        return Ok(text);
    }
    let lost = || StoreError::io("reading", path)(io::ErrorKind::NotFound.into());
    Ok(read(path)?.ok_or_else(lost)?)
}

/// False when the file exists already.
fn write_and_link(temporary: &Path, path: &Path, content: &[u8]) -> Result<bool, StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(StoreError::io("creating", temporary))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io("writing", temporary))?;
    // A link, unlike a rename, never replaces a file that another process made meanwhile.
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(StoreError::io("creating", path)(error)),
    }
}

fn check(path: &Path, metadata: &fs::Metadata, wanted: u32) -> Result<(), StoreError> {
    let user = nix::unistd::geteuid().as_raw();
    // What belongs to root is no less safe than this process, which root can read.
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(StoreError::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Permissions {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}
