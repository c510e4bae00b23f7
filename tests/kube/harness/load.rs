//! Load from inside a pod, for as long as something happens to the mesh.

use std::io::Read as _;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Place;

/// Requests that flow until [`finish`](Load::finish).
pub struct Load {
    child: Child,
}

impl Load {
    /// Starts load from an app of the place to a URL: at least `requests` in all.
    pub fn start(place: &Place, from: &str, url: &str, requests: u32) -> Result<Self> {
        let requests = requests.to_string();
        let inside = format!("deployment/{from}");
        let mut arguments = vec!["load", url, "--until-eof", "--requests", &requests];
        // A pause, so that it lasts as long as what is tried, and leaves the machine to it.
        arguments.extend(["--connections", "4", "--pause", "4"]);
        let child = place
            .exec_command(&inside, &arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("start load")?;
        Ok(Self { child })
    }

    /// Ends it once it has sent what it must, and returns its report: `requests`, `failures`,
    /// `servers`, `slowest`.
    pub fn finish(mut self) -> Result<Value> {
        drop(self.child.stdin.take());
        let mut text = String::new();
        let mut output = self.child.stdout.take().context("no output")?;
        output
            .read_to_string(&mut text)
            .context("read the report")?;
        self.child.wait().context("wait for the load")?;
        serde_json::from_str(text.trim()).with_context(|| format!("no report: {text:?}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Its pod goes with the test's namespace; this is our end of it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
