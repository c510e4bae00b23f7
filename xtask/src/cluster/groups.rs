//! The control groups of the cluster's pods: beneath one of our own, so that what is in it is ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use outrider_testkit::eventually;

use super::daemon;

/// The group that the kubelet makes all others in.
pub(super) const ROOT: &str = "/outrider-cluster";
const MOUNTED: &str = "/sys/fs/cgroup";

/// Makes our group in every hierarchy.
///
/// # Errors
/// The control groups are not where every distribution has them, or cannot be written.
pub(super) fn make() -> Result<()> {
    for root in roots()? {
        fs::create_dir_all(&root).with_context(|| format!("create {}", root.display()))?;
    }
    Ok(())
}

/// Kills every process in our group, and removes it.
///
/// # Errors
/// A process does not end, or a group cannot be removed.
pub(super) fn clear() -> Result<()> {
    let roots = roots()?;
    eventually(Duration::from_secs(20), || {
        let mut groups = Vec::new();
        for root in roots.iter().filter(|root| root.exists()) {
            descendants(root, &mut groups);
        }
        let mut left = Vec::new();
        for group in &groups {
            let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            left.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        daemon::end(&left, Signal::SIGKILL);
        ensure!(left.is_empty(), "processes of pods still run: {left:?}");
        for group in groups {
            // The kernel lets go of a group a moment after its last process.
            if let Err(error) = fs::remove_dir(&group)
                && group.exists()
            {
                return Err(error).with_context(|| format!("remove {}", group.display()));
            }
        }
        Ok(())
    })
}

/// Our group in each hierarchy of version 1, or in the one of version 2.
fn roots() -> Result<Vec<PathBuf>> {
    let mounted = Path::new(MOUNTED);
    let name = ROOT.trim_start_matches('/');
    if mounted.join("cgroup.controllers").exists() {
        return Ok(vec![mounted.join(name)]);
    }
    let mut roots = Vec::new();
    for entry in fs::read_dir(mounted).with_context(|| format!("read {MOUNTED}"))? {
        let path = entry?.path();
        // `cpu,cpuacct` has links by both names.
        if path.join("cgroup.procs").exists() && !path.is_symlink() {
            roots.push(path.join(name));
        }
    }
    ensure!(!roots.is_empty(), "no control groups at {MOUNTED}");
    Ok(roots)
}

/// The group and all beneath it, the deepest first.
fn descendants(group: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descendants(&entry.path(), into);
        }
    }
    into.push(group.to_owned());
}
