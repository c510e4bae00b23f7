//! A supervised child process.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::poll::eventually;

/// How many lines of a child's output a failing test shows.
const TAIL: usize = 60;

/// A running program: what it writes goes to a file, and it is killed on drop. When a test fails,
/// the end of what it wrote is shown.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Keeps the file that `log` is the path of.
    _folder: tempfile::TempDir,
    status: Option<ExitStatus>,
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// User and system time of all of its threads, in steps of 10 ms.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub resident: u64,
    /// The most that was ever resident (VmHWM), in bytes.
    pub peak_resident: u64,
}

impl Process {
    /// Starts `command`. `name` is what messages call it.
    ///
    /// # Errors
    /// When the program cannot be executed, or its log cannot be made.
    pub fn start(name: &str, mut command: Command) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for the log")?;
        let log = folder.path().join("log");
        // Both streams append through one open file, so that their order is kept.
        let output = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share the log")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {name} ({})", command.get_program().display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            _folder: folder,
            status: None,
        })
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that it has written to standard output and error so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The file that it writes to.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The status that it ended with, if it has.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self
                .child
                .try_wait()
                .context("ask for the child's status")?;
        }
        Ok(self.status)
    }

    /// Waits until `condition` holds, for at most `within`; ends early when the process has ended.
    ///
    /// # Errors
    /// When the deadline passes or the process ends first; the error has the end of its output.
    #[track_caller]
    pub fn wait_for(
        &mut self,
        what: &str,
        within: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + within;
        while !condition(self) {
            if let Some(status) = self.exited()? {
                bail!(
                    "{} ended ({status}) before {what}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "{}: {what} not within {within:?}:\n{}",
                    self.name,
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until its output contains `text`.
    ///
    /// # Errors
    /// As [`wait_for`](Self::wait_for).
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str, within: Duration) -> Result<()> {
        self.wait_for(&format!("{text:?} in its output"), within, |process| {
            process.output().contains(text)
        })
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When it still runs at the deadline.
    #[track_caller]
    pub fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        eventually(within, || {
            self.exited()?
                .with_context(|| format!("{} still runs", self.name))
        })
    }

    /// Sends a signal. A process that has ended and been waited for gets none, whoever has its id
    /// now.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.exited()?.is_none(), "{} has ended", self.name);
        let pid = i32::try_from(self.pid()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("signal {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for that.
    ///
    /// # Errors
    /// When it had ended already, or does not end in time.
    pub fn terminate(&mut self, within: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(within)
    }

    /// Kills it (SIGKILL) and waits for that.
    ///
    /// # Errors
    /// When it had ended already.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        let status = self.child.wait().context("wait for the child")?;
        self.status = Some(status);
        Ok(status)
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage> {
        usage(self.pid()).with_context(|| format!("{} has ended", self.name))
    }

    /// How many threads it has.
    ///
    /// # Errors
    /// When it has ended.
    pub fn threads(&self) -> Result<usize> {
        let path = format!("/proc/{}/task", self.pid());
        Ok(std::fs::read_dir(&path)
            .with_context(|| format!("read {path}"))?
            .count())
    }

    fn tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            // An error means that it has just ended by itself; the wait takes its status.
            let _ = self.child.kill();
            self.status = self.child.wait().ok();
        }
        if std::thread::panicking() {
            let signal = self.status.and_then(|status| status.signal());
            let note = format!("--- {} (signal {signal:?})\n{}\n", self.name, self.tail());
            let _ = std::io::stderr().write_all(note.as_bytes());
        }
    }
}

/// What the process `pid` has used so far.
///
/// # Errors
/// When there is none of that id, or it has ended.
pub fn usage(pid: u32) -> Result<Usage> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
    };
    let status = read("status")?;
    let kibibytes = |key: &str| -> Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number
            .with_context(|| format!("no {key} in its status"))?
            .parse::<u64>()?
            * 1024)
    };
    Ok(Usage {
        cpu: cpu(&read("stat")?)?,
        resident: kibibytes("VmRSS:")?,
        peak_resident: kibibytes("VmHWM:")?,
    })
}

/// User and system time from the text of `/proc/PID/stat` (proc(5): fields 14 and 15, counted
/// from behind the program's name, which may contain anything).
fn cpu(stat: &str) -> Result<Duration> {
    let (_, fields) = stat.rsplit_once(") ").context("unexpected text of stat")?;
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<u64, _>>()
        .context("unexpected text of stat")?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the clock's ticks are unknown")?;
    let per_second = u64::try_from(per_second).context("the clock's ticks")?;
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_behind_a_name_with_spaces_and_brackets() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 120 30 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu(stat).unwrap(), Duration::from_millis(1500));
    }

    #[test]
    fn captures_both_streams_and_ends_on_request() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exec sleep 600"]);
        let mut process = Process::start("shell", command).unwrap();
        process
            .wait_for_output("out\nerr\n", Duration::from_secs(10))
            .unwrap();
        assert!(process.usage().unwrap().peak_resident > 0);
        let status = process.terminate(Duration::from_secs(10)).unwrap();
        assert_eq!(status.signal(), Some(Signal::SIGTERM as i32));
        assert!(process.signal(Signal::SIGTERM).is_err());
    }

    #[test]
    fn a_process_that_ends_first_fails_the_wait_with_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken; exit 3"]);
        let mut process = Process::start("shell", command).unwrap();
        let error = process
            .wait_for_output("ready", Duration::from_secs(10))
            .unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
