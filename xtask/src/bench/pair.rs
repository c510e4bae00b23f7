//! The two sidecars of one make: the client's and the server's.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use outrider_testkit::Process;
use outrider_testkit::clients::http1::Client;
use outrider_testkit::netns::Pod;

use super::USER;
use super::load::Load;
use super::stage::Stage;
use crate::shell;

/// A make of sidecar.
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
    /// What only this make is given, beside the flags that both understand.
    pub(super) arguments: &'static [&'static str],
}

/// Two running sidecars.
pub(super) struct Pair {
    name: &'static str,
    client: Process,
    server: Process,
    ready: Instant,
}

impl Pair {
    /// Starts both and waits until they are ready.
    pub(super) fn start(stage: &Stage, proxy: &Proxy) -> Result<Self> {
        let client = start(&stage.client, stage, proxy, "client")?;
        let server = start(&stage.server, stage, proxy, "server")?;
        let mut pair = Self {
            name: proxy.name,
            client,
            server,
            ready: Instant::now(),
        };
        for (pod, process) in [
            (&stage.client, &mut pair.client),
            (&stage.server, &mut pair.server),
        ] {
            process.wait_for("ready", Duration::from_secs(20), |_| is_ready(pod))?;
        }
        pair.ready = Instant::now();
        Ok(pair)
    }

    /// The greater peak of the two two seconds after they were ready, in bytes.
    pub(super) fn idle_memory(&self) -> Result<u64> {
        // The figure is defined by this time: there is no condition to wait for.
        std::thread::sleep(Duration::from_secs(2).saturating_sub(self.ready.elapsed()));
        self.memory()
    }

    /// The greater peak of the two so far, in bytes.
    pub(super) fn memory(&self) -> Result<u64> {
        Ok(self
            .client
            .usage()?
            .peak_resident
            .max(self.server.usage()?.peak_resident))
    }

    /// The processor time of both so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        Ok(self.client.usage()?.cpu + self.server.usage()?.cpu)
    }

    /// Records both with perf until it is dropped.
    pub(super) fn profile(&self, load: Load) -> Result<Profiler> {
        let name = format!("perf-{}-{}.data", self.name, load.name());
        let file = shell::top()?.join("target").join(name);
        let mut command = Command::new("perf");
        command
            .args(["record", "--quiet", "-F", "997", "-g", "--output"])
            .arg(&file);
        command
            .arg("--pid")
            .arg(format!("{},{}", self.client.pid(), self.server.pid()));
        let process = Process::start("perf", command)
            .context("perf is needed for --profile: apt-get install linux-perf")?;
        Ok(Profiler { process, file })
    }

    /// Ends both as a pod does. A sidecar that crashed under load fails here.
    pub(super) fn end(mut self) -> Result<()> {
        for process in [&mut self.client, &mut self.server] {
            // Draining is not measured here, and would take its whole deadline.
            let name = process.name().to_owned();
            ensure!(
                process.exited()?.is_none(),
                "{name} ended under load: {}",
                process.output()
            );
            process.kill()?;
        }
        Ok(())
    }
}

/// perf at work.
pub(super) struct Profiler {
    process: Process,
    file: PathBuf,
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // perf writes its file when it is interrupted.
        let ended = self
            .process
            .signal(Signal::SIGINT)
            .and_then(|()| self.process.wait(Duration::from_secs(30)));
        match ended {
            Ok(_) => println!("    perf report --no-children -i {}", self.file.display()),
            Err(error) => eprintln!("perf: {error:#}: {}", self.process.output()),
        }
    }
}

fn start(pod: &Pod, stage: &Stage, proxy: &Proxy, side: &str) -> Result<Process> {
    let mut command = pod.command_as(USER, &proxy.program)?;
    command.arg("-c").arg(stage.file(&format!("{side}.yaml")));
    command
        .args(["--concurrency", "1", "--log-level", "warn"])
        .args(proxy.arguments);
    let name = format!("the {side}'s {}", proxy.name);
    Process::start(&name, command)
}

/// What the admin interface says on its port.
fn is_ready(pod: &Pod) -> bool {
    let answer = || -> Result<u16> {
        let mut client = Client::connect_from(pod, ("127.0.0.1", 15000))?;
        client.get("admin", "/ready")?.status()
    };
    answer().is_ok_and(|status| status == 200)
}
