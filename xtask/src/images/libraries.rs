//! What a dynamically linked program of this machine needs beside it in an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// The shared libraries and the loader of a program, or of a library that is loaded by name: in an
/// image they lie where they lie here, for that is where the loader looks.
///
/// # Errors
/// When `ldd` fails, or does not find a library.
pub(super) fn needed(program: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new("ldd");
    command.arg(program).env("LC_ALL", "C");
    parse(&shell::output(command)?)
        .with_context(|| format!("the libraries of {}", program.display()))
}

/// Reads lines like `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x0)` and
/// `/lib64/ld-linux-x86-64.so.2 (0x0)`; what the kernel itself provides has no path.
fn parse(listed: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in listed.lines().map(str::trim) {
        let (name, place) = line.split_once(" => ").unwrap_or(("", line));
        if place.starts_with("not found") {
            bail!("{name} is not on this machine");
        }
        if place.starts_with('/') {
            let path = place.split(" (").next().unwrap_or(place);
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_a_missing_one_is_named() {
        let listed = "\tlinux-vdso.so.1 (0x00007ff)\n\
                      \tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x00007f0)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f1)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libmnl.so.0",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(parse(listed).unwrap(), expected.map(PathBuf::from));
        assert_eq!(
            parse("\tstatically linked\n").unwrap(),
            Vec::<PathBuf>::new()
        );
        let error = parse("\tlibx.so.1 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libx.so.1"), "{error}");
    }
}
