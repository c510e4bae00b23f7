//! `cargo xtask images`: container images without a container engine or a registry, from static
//! programs and what little they need beside them.

mod libraries;
pub(crate) mod oci;
mod programs;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use outrider_testkit::cluster::Cluster;

pub(crate) use self::oci::{Entry, ImageConfig, write};
use self::programs::Program;
use crate::{machine, shell};

/// The most that an image of the product may weigh on a node, in bytes.
const LARGEST: usize = 40_000_000;

/// Write the images as `target/images/NAME.tar`, which `ctr images import` takes
#[derive(clap::Args, Debug)]
pub(crate) struct Images {
    /// How the programs are built
    #[arg(long, value_enum, default_value = "release")]
    profile: Profile,
    /// Only this image; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Also the images of the tests: testapp and tools
    #[arg(long)]
    test_apps: bool,
    /// Also leave each image's files in `target/images/NAME/` (for the Dockerfile)
    #[arg(long)]
    unpacked: bool,
    /// Also give them to the node of the cluster that runs here
    #[arg(long)]
    load: bool,
    /// Install what the machine lacks
    #[arg(long)]
    install: bool,
}

/// How programs are built for images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Profile {
    /// As they are shipped
    Release,
    /// In a fraction of the time, for tests
    Quick,
}

impl Images {
    /// All images, those of the tests too, from programs built quickly, given to the cluster that
    /// runs here.
    pub(crate) fn for_tests(install: bool) -> Self {
        Self {
            profile: Profile::Quick,
            only: Vec::new(),
            test_apps: true,
            unpacked: false,
            load: true,
            install,
        }
    }

    /// Runs the verb.
    ///
    /// # Errors
    /// As [`write`](Self::write); with `--load` also when no cluster runs here.
    pub(crate) fn run(&self) -> Result<()> {
        // Before minutes are spent on a build.
        let cluster = self.load.then(Cluster::running).transpose()?;
        let images = self.write()?;
        if let Some(cluster) = cluster {
            for image in images {
                println!("==> load {}", image.display());
                cluster.load_image(&image)?;
            }
        }
        Ok(())
    }

    /// Builds the programs, writes the images, and returns their files.
    ///
    /// # Errors
    /// When a name is unknown, something of the machine is missing, a program does not build, or an
    /// image is too large.
    fn write(&self) -> Result<Vec<PathBuf>> {
        let programs = self.chosen()?;
        let needed: Vec<_> = programs.iter().map(|program| program.needs()).collect();
        machine::require(&needed, self.install)?;
        let built = self.build(&programs)?;
        let folder = shell::top()?.join("target/images");
        let mut paths = Vec::new();
        for program in programs {
            let stripped = if program.is_ours() {
                strip(&built.join(program.binary))?
            } else {
                PathBuf::new()
            };
            let name = program.name();
            let (entries, config) = program.content(&stripped)?;
            let path = folder.join(format!("{}.tar", program.file));
            let size = write(&name, &entries, &config, &path)?;
            let megabytes = |bytes: usize| bytes as f64 / 1e6;
            println!(
                "==> {}: {} ({:.1} MB, {:.1} MB packed)",
                name,
                path.display(),
                megabytes(size.unpacked),
                megabytes(size.packed)
            );
            ensure!(
                size.unpacked <= LARGEST || self.is_of_tests(program),
                "{} has {:.1} MB, and an image of the product has at most {:.0}",
                name,
                megabytes(size.unpacked),
                megabytes(LARGEST)
            );
            if self.unpacked {
                unpack(&entries, &folder.join(program.file))?;
            }
            paths.push(path);
        }
        Ok(paths)
    }

    fn is_of_tests(&self, program: &Program) -> bool {
        programs::TEST_APPS
            .iter()
            .any(|test| test.file == program.file)
    }

    fn chosen(&self) -> Result<Vec<&'static Program>> {
        let all = || programs::PRODUCT.iter().chain(programs::TEST_APPS);
        if let Some(unknown) = self
            .only
            .iter()
            .find(|name| !all().any(|program| program.file == **name))
        {
            let known: Vec<&str> = all().map(|program| program.file).collect();
            bail!("--only {unknown}: there are {}", known.join(", "));
        }
        if !self.only.is_empty() {
            let is_wanted = |program: &&Program| self.only.iter().any(|name| name == program.file);
            return Ok(all().filter(is_wanted).collect());
        }
        let tests = programs::TEST_APPS.iter().filter(|_| self.test_apps);
        Ok(programs::PRODUCT.iter().chain(tests).collect())
    }

    /// Builds the programs and returns the folder that they are in.
    fn build(&self, programs: &[&Program]) -> Result<PathBuf> {
        let mut packages: Vec<&str> = programs
            .iter()
            .filter(|program| program.is_ours())
            .map(|program| program.package)
            .collect();
        packages.sort_unstable();
        packages.dedup();
        let name = match self.profile {
            Profile::Release => "release",
            Profile::Quick => "quick",
        };
        let folder = shell::static_folder(name)?;
        // What is shipped is built alone, as the bench measures it: together, each would get the
        // features that any other asks of their dependencies.
        let batches: Vec<&[&str]> = match self.profile {
            Profile::Release => packages.chunks(1).collect(),
            Profile::Quick if packages.is_empty() => Vec::new(),
            Profile::Quick => vec![&packages],
        };
        for batch in batches {
            let what = format!("build {} ({name}, static)", batch.join(", "));
            shell::step(&what, shell::build_static(batch, name)?)?;
        }
        Ok(folder)
    }
}

/// A copy of the program without what only a debugger reads, beside it. Function names stay, for
/// backtraces.
fn strip(program: &Path) -> Result<PathBuf> {
    let stripped = program.with_extension("stripped");
    let mut command = Command::new("strip");
    command.args(["--strip-debug", "-o"]).arg(&stripped);
    command.arg(program);
    shell::output(command).context("strip comes with the linker: apt-get install binutils")?;
    Ok(stripped)
}

fn unpack(entries: &[Entry], folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    let archive = oci::layer(entries)?;
    tar::Archive::new(archive.as_slice())
        .unpack(folder)
        .with_context(|| format!("unpack to {}", folder.display()))
}
