//! `cargo xtask demo`: plain programs talk mutual TLS on this machine, and prove it.

mod interrupt;
mod proof;
mod split;
mod stage;
mod wire;

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use outrider_testkit::mesh::Sidecar;

use crate::{machine, shell};
use interrupt::Interrupt;
use stage::Stage;

/// Show the mesh at work on this machine: three plain programs in three network namespaces, with
/// real redirects and a sidecar each, talk mutual TLS without knowing it
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Demo {
    /// Leave it running, with what to try by hand, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Install what the machine lacks
    #[arg(long)]
    install: bool,
    /// Whose sidecars: ours, or real Envoys that our control plane drives
    #[arg(long, value_enum, default_value = "outrider")]
    sidecar: Kind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[default]
    Outrider,
    Envoy,
}

impl Demo {
    /// Runs the verb.
    ///
    /// # Errors
    /// When this is not root, something is missing or does not start, or a proof fails.
    pub(crate) fn run(&self) -> Result<()> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the demo makes network namespaces and redirects in them, which need root \
             (nothing of the machine's own network is touched); run it again with:\n  {} demo{}{}",
            shell::AS_ROOT,
            if self.keep { " --keep" } else { "" },
            if self.install { " --install" } else { "" },
        );
        let mut needed = vec![machine::NAMESPACES];
        if self.sidecar == Kind::Envoy {
            needed.push(machine::ENVOY);
        }
        machine::require(&needed, self.install)?;
        let packages = [
            "build",
            "--package=outrider-control",
            "--package=outrider-init",
            "--package=outrider-sidecar",
            "--package=outrider-testkit",
            "--bins",
        ];
        shell::step("build the programs", shell::cargo(&packages)?)?;

        let interrupt = Interrupt::watch()?;
        let began = Instant::now();
        if let Err(error) = self.show(&interrupt) {
            // What failed may have failed because its programs were interrupted too.
            interrupt.check()?;
            return Err(error);
        }
        println!(
            "\nAll of it is removed again. That took {:.0} s.",
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn show(&self, interrupt: &Interrupt) -> Result<()> {
        let sidecar = match self.sidecar {
            Kind::Outrider => Sidecar::Outrider,
            Kind::Envoy => Sidecar::Envoy,
        };
        heading("Three plain programs, each in a network namespace with redirects and a sidecar");
        let stage = Stage::set(sidecar, interrupt)?;
        let wires = proof::Wires::record(&stage)?;
        heading("Who spoke to whom, as the programs themselves were told");
        proof::identities(&stage)?;
        heading("What was on the wire meanwhile");
        wires.show(&stage)?;
        drop(wires);
        heading("Plaintext from outside of the mesh");
        proof::refusal(&stage)?;
        heading("An HTTPRoute splits the calls to `reviews`, and is edited while they flow");
        split::show(&stage, interrupt)?;
        if self.keep {
            heading("It keeps running");
            stage.print_hints()?;
            interrupt.wait();
            println!("\nstopping");
        }
        Ok(())
    }
}

fn heading(text: &str) {
    println!("\n==> {text}");
}
