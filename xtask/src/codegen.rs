//! `cargo xtask codegen`: the protocol's schema tables and the list of supported fields.
//!
//! The descriptor set that `envoy-types` ships inside its source package says what the messages
//! look like; `crates/xds/schema/fields.yaml` says what we do with each field. Together they become
//! constants that `outrider-xds` walks without a descriptor pool, and `SUPPORTED.md` for users.

mod model;
mod render;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use prost_reflect::DescriptorPool;

use model::{Annotations, Model};

/// Where the hand-written annotations are, from the top of the workspace.
const ANNOTATIONS: &str = "crates/xds/schema/fields.yaml";
/// Where the tables go.
const TABLES: &str = "crates/xds/src/schema/generated/tables.rs";
/// Where the page for users goes.
const SUPPORTED: &str = "crates/sidecar/SUPPORTED.md";

/// Regenerate the schema tables and SUPPORTED.md from the protos and schema/fields.yaml
#[derive(clap::Args, Debug)]
pub(crate) struct Codegen {
    /// Write nothing; fail if a generated file is not what it should be
    #[arg(long)]
    check: bool,
}

impl Codegen {
    /// Runs the verb.
    pub(crate) fn run(&self) -> Result<()> {
        if self.check {
            return check();
        }
        let top = workspace()?;
        for (path, text) in &generate(&top)? {
            let path = top.join(path);
            if std::fs::read_to_string(&path).ok().as_deref() == Some(text.as_str()) {
                continue;
            }
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
            println!("wrote {}", path.display());
        }
        Ok(())
    }
}

/// Fails, naming the file, where a generated file is not what its sources say. For `tidy`.
pub(crate) fn check() -> Result<()> {
    let top = workspace()?;
    for (path, text) in generate(&top)? {
        let present = std::fs::read_to_string(top.join(path)).unwrap_or_default();
        if present != text {
            bail!("{path} is out of date: run `cargo xtask codegen` and commit the result");
        }
    }
    Ok(())
}

fn generate(top: &Path) -> Result<Vec<(&'static str, String)>> {
    let (version, descriptors) = descriptor_set(top)?;
    let pool = DescriptorPool::decode(descriptors.as_slice())
        .context("the descriptor set of envoy-types does not decode")?;
    let text = std::fs::read_to_string(top.join(ANNOTATIONS))
        .with_context(|| format!("reading {ANNOTATIONS}"))?;
    let annotations =
        Annotations::parse(&text).with_context(|| format!("{ANNOTATIONS} does not parse"))?;
    let model = Model::build(&pool, &annotations)
        .with_context(|| format!("{ANNOTATIONS} does not fit the protos"))?;
    Ok(vec![
        (TABLES, render::tables(&model, &version)?),
        (SUPPORTED, render::supported(&model, &version)),
    ])
}

/// The version of envoy-types that the workspace uses, and its descriptor set.
fn descriptor_set(top: &Path) -> Result<(String, Vec<u8>)> {
    let version = cargo(top, &["-vV"])?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("cargo -vV does not name the host")?;
    // For the host only, so that packages of other platforms need not be downloaded.
    let metadata = cargo(
        top,
        &[
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            host,
        ],
    )?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let package = metadata["packages"]
        .as_array()
        .and_then(|all| all.iter().find(|package| package["name"] == "envoy-types"))
        .context("the workspace does not depend on envoy-types")?;
    let version = package["version"]
        .as_str()
        .context("envoy-types without a version")?;
    let manifest = package["manifest_path"]
        .as_str()
        .context("envoy-types without a manifest")?;
    let path = Path::new(manifest).with_file_name("src/generated/types.bin");
    let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok((version.to_owned(), bytes))
}

fn cargo(top: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(top)
        .output();
    let output = output.with_context(|| format!("running cargo {}", arguments.join(" ")))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("cargo {}: {}", arguments.join(" "), error.trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn workspace() -> Result<PathBuf> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask has no parent")?;
    Ok(top.to_owned())
}
