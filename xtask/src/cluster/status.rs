//! What of the cluster runs.

use anyhow::Result;
use outrider_testkit::cluster::Cluster;
use outrider_testkit::process;

use super::{daemon, node};

/// Prints each program with its process and memory, then the nodes and pods.
///
/// # Errors
/// The cluster does not answer.
pub(super) fn print() -> Result<()> {
    let Ok(cluster) = Cluster::running() else {
        println!("no cluster: cargo xtask cluster up");
        return Ok(());
    };
    println!("{:<26}{:>8}{:>10}  log", "program", "pid", "MiB");
    for name in node::DAEMONS {
        let log = daemon::log(name);
        let log = log.display();
        match daemon::pid(name) {
            None => println!("{name:<26}{:>8}{:>10}  {log}", "ended", "-"),
            Some(pid) => {
                let usage = process::usage(pid.try_into()?)?;
                println!("{name:<26}{pid:>8}{:>10}  {log}", usage.resident >> 20);
            }
        }
    }
    println!("\n{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?);
    println!("{}", cluster.kubectl(&["get", "pods", "-A", "-o", "wide"])?);
    Ok(())
}
