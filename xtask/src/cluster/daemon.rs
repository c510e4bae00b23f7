//! The programs of the node: started on their own, found again and ended by their process ids.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use outrider_testkit::cluster::{Cluster, STATE};
use outrider_testkit::eventually;

/// One program that runs for as long as the cluster does.
pub(super) struct Daemon {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
}

impl Daemon {
    /// Starts it inside the node's network, unless it runs. It outlives this process.
    ///
    /// # Errors
    /// It cannot be executed, or its files cannot be written.
    pub(super) fn start(&self, cluster: &Cluster) -> Result<()> {
        if pid(self.name).is_some() {
            return Ok(());
        }
        let log_path = log(self.name);
        let folder = log_path.parent().context("the log has no folder")?;
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let log =
            File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
        let child = cluster
            .command(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            // Ctrl-C in the terminal is not meant for it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {} ({})", self.name, self.program.display()))?;
        let file = pid_file(self.name);
        let pid = child.id().try_into().context("process id")?;
        let began = began(pid).with_context(|| format!("{} has ended at once", self.name))?;
        fs::write(&file, format!("{pid} {began}"))
            .with_context(|| format!("write {}", file.display()))
    }

    /// Fails with the end of its log if it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn check(&self) -> Result<()> {
        if pid(self.name).is_some() {
            return Ok(());
        }
        let path = log(self.name);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(10)..].join("\n");
        bail!("{} has ended ({}):\n{tail}", self.name, path.display())
    }
}

/// The log of the program of that name.
pub(super) fn log(name: &str) -> PathBuf {
    Path::new(STATE).join("logs").join(format!("{name}.log"))
}

/// Its process id, if it runs: whoever else has the id by now is not it.
pub(super) fn pid(name: &str) -> Option<i32> {
    let text = fs::read_to_string(pid_file(name)).ok()?;
    let (pid, written) = text.split_once(' ')?;
    let pid = pid.parse().ok()?;
    (runs(pid) && began(pid)? == written).then_some(pid)
}

/// When the process began, in the kernel's ticks since the machine did (proc(5): field 22).
fn began(pid: i32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19).map(str::to_owned)
}

/// Asks all of them to end, waits for that, and kills what has not after `grace`.
///
/// # Errors
/// One does not even end when it is killed.
pub(super) fn stop(names: &[&str], grace: Duration) -> Result<()> {
    let running: Vec<i32> = names.iter().filter_map(|name| pid(name)).collect();
    end(&running, Signal::SIGTERM);
    let all_ended = || {
        let left = running.iter().filter(|pid| runs(**pid)).count();
        ensure!(left == 0, "{left} of {names:?} still run");
        Ok(())
    };
    if eventually(grace, all_ended).is_err() {
        end(&running, Signal::SIGKILL);
        eventually(Duration::from_secs(10), all_ended)?;
    }
    for name in names {
        // It may never have been started.
        let _ = fs::remove_file(pid_file(name));
    }
    Ok(())
}

/// Sends a signal to processes of ours; one that has ended meanwhile is no error.
pub(super) fn end(pids: &[i32], signal: Signal) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// Whether the process is there and has not ended.
pub(super) fn runs(pid: i32) -> bool {
    reap(pid);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Takes the status of a child that has ended. It need not be a child of this process.
fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

fn pid_file(name: &str) -> PathBuf {
    Path::new(STATE).join(format!("{name}.pid"))
}
