//! Finding the programs that the workspace built.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// The path of the built program `name`: in `OUTRIDER_BIN_DIR` if that is set, else where cargo
/// put it, in the same profile as the test that asks.
///
/// # Errors
/// When it is not there; the error says how to build it.
pub fn path(name: &str) -> Result<PathBuf> {
    let directory = match std::env::var_os("OUTRIDER_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => profile_directory(&std::env::current_exe().context("find this executable")?)?,
    };
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is not built: cargo build --workspace --bins (cargo xtask test does it)",
        path.display()
    );
    Ok(path)
}

/// `target/debug` of `target/debug/deps/test-0123` or of `target/debug/program`.
fn profile_directory(executable: &Path) -> Result<PathBuf> {
    let directory = executable
        .parent()
        .context("the executable has no folder")?;
    let is_test = directory
        .file_name()
        .is_some_and(|name| name == "deps" || name == "examples");
    let directory = if is_test {
        directory.parent()
    } else {
        Some(directory)
    };
    Ok(directory
        .context("the executable's folder has no parent")?
        .to_owned())
}
