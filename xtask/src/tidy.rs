//! `cargo xtask tidy`: the rules of this tree that no other tool knows.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{codegen, shell};

/// The most lines that a hand-written source file has.
const LONGEST: usize = 600;
/// What the top folder holds beside files whose names begin with a dot.
const TOP: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "charts",
    "crates",
    "init",
    "tests",
    "xtask",
];
/// Marks of unfinished work. In two parts, so that this file has none of them.
const MARKS: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

/// Check the rules of this tree: lengths, unfinished work, lints, machine-bound text, generated files
#[derive(clap::Args, Debug)]
pub(crate) struct Tidy {}

impl Tidy {
    /// Runs the verb.
    ///
    /// # Errors
    /// When a rule is broken; every place is named.
    pub(crate) fn run(&self) -> Result<()> {
        check()
    }
}

/// Checks all rules.
///
/// # Errors
/// When a rule is broken; every place is named.
pub(crate) fn check() -> Result<()> {
    println!("==> tidy");
    let top = shell::top()?;
    let mut list = Command::new("git");
    list.args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(&top);
    let files = shell::output(list).context("list the files of the tree")?;
    let mut complaints = Vec::new();
    let mut unsafe_modules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let machine = machine_texts(&top);
    for name in files.lines() {
        let first = name.split('/').next().unwrap_or(name);
        if !first.starts_with('.') && !TOP.contains(&first) {
            complaints.push(format!(
                "{name}: the top folder holds only {}",
                TOP.join(" ")
            ));
        }
        // What is not text, or was deleted and not yet committed, has no lines to check.
        let Ok(text) = std::fs::read_to_string(top.join(name)) else {
            continue;
        };
        complaints.extend(check_file(name, &text, &machine));
        if name.ends_with(".rs") && text.contains(concat!("allow(", "unsafe_code)")) {
            let package = name.split("/src/").next().unwrap_or(name);
            unsafe_modules
                .entry(package.to_owned())
                .or_default()
                .push(name.to_owned());
        }
    }
    for (package, modules) in unsafe_modules
        .into_iter()
        .filter(|(_, modules)| modules.len() > 1)
    {
        complaints.push(format!(
            "{package}: unsafe code in more than one module: {modules:?}"
        ));
    }
    if !complaints.is_empty() {
        bail!(
            "{} complaints:\n  {}",
            complaints.len(),
            complaints.join("\n  ")
        );
    }
    codegen::check()?;
    println!("==> tidy: done");
    Ok(())
}

fn check_file(name: &str, text: &str, machine: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    // The lock file's checksums, generated code and licences are not ours to word.
    let generated = name.contains("/generated/") || matches!(name, "Cargo.lock" | "LICENSE");
    if generated {
        return complaints;
    }
    let lines = text.lines().count();
    if name.ends_with(".rs") && lines > LONGEST {
        complaints.push(format!("{name}: {lines} lines, split it at {LONGEST}"));
    }
    if name.ends_with("Cargo.toml") && name != "Cargo.toml" && !has_lints(text) {
        complaints.push(format!("{name}: lacks [lints] workspace = true"));
    }
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        for (first, second) in MARKS {
            let mark = format!("{first}{second}");
            let is_word = line
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(|w| w == mark);
            if is_word {
                complaints.push(format!(
                    "{name}:{number}: {mark}: finish it, or file an issue"
                ));
            }
        }
        if let Some(found) = machine.iter().find(|text| line.contains(text.as_str())) {
            complaints.push(format!(
                "{name}:{number}: {found:?} is of this machine alone"
            ));
        }
    }
    complaints
}

fn has_lints(manifest: &str) -> bool {
    let after = manifest.split("[lints]").nth(1).unwrap_or("");
    after.trim_start().starts_with("workspace = true")
}

/// What nobody else's machine has: this checkout's path, the home folder, and the hosts that
/// package managers were told to use here.
fn machine_texts(top: &Path) -> Vec<String> {
    let mut texts = vec![top.display().to_string()];
    // `/root` is every machine's.
    texts.extend(std::env::var("HOME").ok().filter(|home| home.len() > 6));
    for variable in [
        "PIP_INDEX_URL",
        "CARGO_REGISTRIES_CRATES_IO_INDEX",
        "GOPROXY",
    ] {
        let host = std::env::var(variable).ok().and_then(|value| {
            Some(
                value
                    .split("//")
                    .nth(1)?
                    .split(['/', ':', ','])
                    .next()?
                    .to_owned(),
            )
        });
        let public = ["pypi.org", "index.crates.io", "proxy.golang.org"];
        texts.extend(host.filter(|host| !host.is_empty() && !public.contains(&host.as_str())));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_broken_rule_and_its_line() {
        let machine = ["/home/someone/outrider".to_owned()];
        let long = "x\n".repeat(LONGEST + 1);
        let mark = format!("// {}: later", ["TO", "DO"].concat());
        let cases = [
            ("a.rs", "fn main() {}\n", None),
            ("a.rs", long.as_str(), Some("a.rs: 601 lines")),
            ("crates/x/src/generated/tables.rs", long.as_str(), None),
            ("a.rs", mark.as_str(), Some("a.rs:1: ")),
            ("a.md", "\nsee /home/someone/outrider/x\n", Some("a.md:2: ")),
            ("crates/x/Cargo.toml", "[package]\n", Some("lacks [lints]")),
            ("crates/x/Cargo.toml", "[lints]\nworkspace = true\n", None),
        ];
        for (name, text, expected) in cases {
            let complaints = check_file(name, text, &machine);
            match expected {
                None => assert!(complaints.is_empty(), "{complaints:?}"),
                Some(part) => assert!(complaints[0].contains(part), "{complaints:?}"),
            }
        }
    }
}
