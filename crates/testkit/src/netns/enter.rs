//! Entering a namespace, by a thread of this process or by a child before it executes.
#![allow(unsafe_code)] // `Command::pre_exec` is unsafe: see `Entrance::command`.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Everything that it takes to be inside: the namespace, and which files hide which.
#[derive(Clone)]
pub(crate) struct Entrance {
    namespace: Arc<File>,
    /// Each first path is mounted over the second.
    mounts: Arc<[(PathBuf, PathBuf)]>,
}

impl Entrance {
    pub(crate) fn new(namespace: Arc<File>, mounts: &[(PathBuf, PathBuf)]) -> Self {
        Self {
            namespace,
            mounts: mounts.into(),
        }
    }

    /// Moves the calling thread inside, for good. Makes only system calls and allocates nothing,
    /// for it also runs between a fork and an exec.
    fn enter(&self) -> io::Result<()> {
        setns(&*self.namespace, CloneFlags::CLONE_NEWNET)?;
        if self.mounts.is_empty() {
            return Ok(());
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        const NONE: Option<&Path> = None;
        // Slave, so that what is mounted here never shows on the host.
        mount(
            NONE,
            Path::new("/"),
            NONE,
            MsFlags::MS_REC | MsFlags::MS_SLAVE,
            NONE,
        )?;
        for (source, target) in &*self.mounts {
            mount(
                Some(source.as_path()),
                target.as_path(),
                NONE,
                MsFlags::MS_BIND,
                NONE,
            )?;
        }
        Ok(())
    }

    /// A command whose process is inside, and has dropped to `user` (uid and gid) if one is given.
    pub(crate) fn command(&self, program: &OsStr, user: Option<u32>) -> Command {
        let mut command = Command::new(program);
        let entrance = self.clone();
        let before = move || {
            entrance.enter()?;
            if let Some(id) = user {
                setgroups(&[])?;
                setgid(Gid::from_raw(id))?;
                setuid(Uid::from_raw(id))?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only async-signal-safe calls are sound. `before` makes
        // system calls alone: nix copies short paths to the stack, and `setgroups` of an empty
        // slice allocates nothing.
        unsafe { command.pre_exec(before) };
        command
    }
}

/// Runs `work` on a thread of its own inside. A panic in `work` is passed on.
pub(crate) fn run<T: Send>(entrance: &Entrance, work: impl FnOnce() -> T + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| entrance.enter().map(|()| work()));
        match inside.join() {
            Ok(result) => result.context("enter the network namespace"),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
