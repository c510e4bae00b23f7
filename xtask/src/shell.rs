//! Running other programs as steps that the reader can follow.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

/// How to run a verb again with what it lacks. Debian's users have no `sbin` in their `PATH`.
pub(crate) const AS_ROOT: &str = "sudo -E env \"PATH=$PATH:/usr/sbin\" cargo xtask";

/// The top folder of the workspace.
///
/// # Errors
/// When this was not started by cargo.
pub(crate) fn top() -> Result<PathBuf> {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").context("run this by `cargo xtask`")?;
    let parent = Path::new(&manifest)
        .parent()
        .context("the manifest's folder has no parent")?;
    Ok(parent.to_owned())
}

/// A cargo command in the top folder: the cargo that started us.
///
/// # Errors
/// When this was not started by cargo.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(top()?);
    Ok(command)
}

/// The command that builds a program as it is shipped, and where it will be: optimised, and static.
///
/// # Errors
/// The compiler does not tell which target it is for.
pub(crate) fn release(package: &str) -> Result<(Command, PathBuf)> {
    let program = static_folder("release")?.join(package);
    Ok((build_static(&[package], "release")?, program))
}

/// The command that builds packages linked statically, so that they run in an image without a C
/// library and map no more than they use (about 1.5 MiB less of a sidecar's memory).
///
/// # Errors
/// The compiler does not tell which target it is for.
pub(crate) fn build_static(packages: &[&str], profile: &str) -> Result<Command> {
    let host = host()?;
    let mut command = cargo(&["build", "--bins", "--profile", profile, "--target", &host])?;
    for package in packages {
        command.args(["--package", package]);
    }
    // Only for what is shipped: build scripts and macros keep the host's flags.
    command.arg("--config").arg(format!(
        "target.{host}.rustflags=[\"-Ctarget-feature=+crt-static\"]"
    ));
    Ok(command)
}

/// Where [`build_static`] puts programs.
///
/// # Errors
/// The compiler does not tell which target it is for.
pub(crate) fn static_folder(profile: &str) -> Result<PathBuf> {
    Ok(top()?.join("target").join(host()?).join(profile))
}

/// The target that the compiler builds for unless it is told otherwise.
fn host() -> Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.arg("-vV");
    let version = output(rustc)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Says what is done, runs the command with our own output, and says how long it took.
///
/// # Errors
/// When it cannot be started or fails.
pub(crate) fn step(what: &str, mut command: Command) -> Result<()> {
    println!("==> {what}");
    let began = Instant::now();
    let program = command.get_program().to_owned();
    let status = command
        .status()
        .with_context(|| format!("start {}", program.display()))?;
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        status.success(),
        "{what}: failed ({status}) after {seconds:.0} s"
    );
    println!("==> {what}: done in {seconds:.0} s");
    Ok(())
}

/// Runs a command to its end and returns what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or fails; the error has its standard error.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("start {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{name} failed ({}): {said}",
        output.status
    );
    String::from_utf8(output.stdout).with_context(|| format!("the output of {name} is not UTF-8"))
}

/// Whether CI runs this, where nothing may be skipped.
pub(crate) fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}
