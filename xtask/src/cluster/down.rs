//! Taking the cluster down, whatever state it is in, so that nothing of it stays.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::Signal;
use outrider_testkit::cluster::{self, NETWORK_RECORDS, STATE};

use super::{daemon, groups, network, node};

/// Takes it down.
///
/// # Errors
/// A process does not end, or something cannot be removed.
pub(crate) fn down() -> Result<()> {
    println!("==> cluster down");
    let began = Instant::now();
    // The kubelet first, else it starts again what is ended; etcd last, since the API server
    // waits for it.
    let (etcd, others): (Vec<&str>, _) = node::DAEMONS.iter().partition(|name| **name == "etcd");
    let others: Vec<&str> = others;
    daemon::stop(&["kubelet"], Duration::from_secs(5))?;
    groups::clear()?;
    daemon::stop(&others, Duration::from_secs(2))?;
    daemon::stop(&etcd, Duration::from_secs(2))?;
    end_shims();
    unmount()?;
    remove_pod_networks()?;
    network::remove()?;
    remove_strays();
    if Path::new(STATE).exists() {
        fs::remove_dir_all(STATE).with_context(|| format!("remove {STATE}"))?;
    }
    println!(
        "==> cluster down: done in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Ends what stands between containerd and each pod: it outlives containerd by design. Its socket
/// lies in a folder that all instances of containerd share.
fn end_shims() {
    let tasks = Path::new(STATE).join("run/io.containerd.runtime.v2.task/k8s.io");
    for task in fs::read_dir(tasks).into_iter().flatten().flatten() {
        let address = fs::read_to_string(task.path().join("address")).unwrap_or_default();
        if let Some(socket) = address.trim().strip_prefix("unix://") {
            let _ = fs::remove_file(socket);
        }
    }
    let ours = cluster::containerd_socket().display().to_string();
    let mut shims = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = command.split(|byte| *byte == 0);
        let is_shim = arguments
            .next()
            .is_some_and(|program| String::from_utf8_lossy(program).contains("containerd-shim"));
        if is_shim && arguments.any(|argument| argument == ours.as_bytes()) {
            shims.push(pid);
        }
    }
    daemon::end(&shims, Signal::SIGKILL);
}

/// Unmounts everything beneath our folder, what was mounted last first.
fn unmount() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let beneath = format!("{STATE}/");
    let ours: Vec<PathBuf> = points
        .filter(|point| point.starts_with(&beneath))
        .map(PathBuf::from)
        .collect();
    for point in ours.iter().rev() {
        // Lazily: a shim that is just ending may still be inside.
        umount2(point, MntFlags::MNT_DETACH)
            .with_context(|| format!("unmount {}", point.display()))?;
    }
    Ok(())
}

/// Removes the pods' network namespaces, which the records name, and the records.
fn remove_pod_networks() -> Result<()> {
    for path in cluster::network_records()? {
        let text = fs::read_to_string(&path).unwrap_or_default();
        // A record may have been cut by the end of its writer: then it names none.
        let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let interfaces = record["result"]["interfaces"].as_array();
        for interface in interfaces.into_iter().flatten() {
            if let Some(namespace) = interface["sandbox"].as_str().filter(|s| !s.is_empty()) {
                let _ = umount2(namespace, MntFlags::MNT_DETACH);
                let _ = fs::remove_file(namespace);
            }
        }
        if let Some(pod) = record["containerId"].as_str() {
            let loopback = Path::new(NETWORK_RECORDS).join(format!("cni-loopback-{pod}-lo"));
            let _ = fs::remove_file(loopback);
        }
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    // Only if nobody else has records there.
    let _ = fs::remove_dir(NETWORK_RECORDS);
    let _ = fs::remove_dir("/var/lib/cni");
    Ok(())
}

/// What the kubelet puts where nothing can tell it otherwise: it links every container's log into
/// a folder whose path is fixed.
fn remove_strays() {
    let folder = Path::new("/var/log/containers");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(STATE)) {
            let _ = fs::remove_file(entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
    // Where devices' drivers would register. Whoever still listens there is not ours.
    let socket = Path::new("/var/lib/kubelet/device-plugins/kubelet.sock");
    let refused = UnixStream::connect(socket).err();
    if refused.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
        let _ = fs::remove_file(socket);
    }
    let _ = fs::remove_dir("/var/lib/kubelet/device-plugins");
    let _ = fs::remove_dir("/var/lib/kubelet");
}
