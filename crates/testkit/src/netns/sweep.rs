//! Removing namespaces: on drop, and those that a killed test process left behind.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{FILES, NAMED, PROGRAMS, run_ip};

/// How the name of every namespace of ours begins; the process id of its owner follows.
pub(super) const PREFIX: &str = "outrider-";

/// Removes the namespaces of owners that no longer live.
pub(super) fn sweep() {
    for place in [NAMED, FILES, PROGRAMS] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let owner = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.split('-').next());
            let Some(owner) = owner.filter(|owner| owner.parse::<u32>().is_ok()) else {
                continue;
            };
            if !Path::new("/proc").join(owner).exists() {
                remove(name);
            }
        }
    }
}

/// Removes one namespace, its files, and the processes inside. What is already gone is no error,
/// and a failure is only told: this runs in destructors.
pub(super) fn remove(name: &str) {
    let path = Path::new(NAMED).join(name);
    if path.exists() {
        kill_inside(&path);
        if let Err(error) = run_ip(&["netns", "delete", name], "") {
            eprintln!("testkit: cannot remove namespace {name}: {error:#}");
        }
    }
    for place in [FILES, PROGRAMS] {
        let files = Path::new(place).join(name);
        if files.exists()
            && let Err(error) = fs::remove_dir_all(&files)
        {
            eprintln!("testkit: cannot remove {}: {error}", files.display());
        }
    }
}

/// Kills every process whose main thread is in the namespace. This process itself is never
/// among them, for only threads that it started go inside.
fn kill_inside(namespace: &Path) {
    let Ok(wanted) = fs::metadata(namespace) else {
        return;
    };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let Ok(actual) = fs::metadata(entry.path().join("ns/net")) else {
            continue;
        };
        let inside = (actual.dev(), actual.ino()) == (wanted.dev(), wanted.ino());
        if inside && pid.unsigned_abs() != std::process::id() {
            // It may have ended by itself in the meantime.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}
