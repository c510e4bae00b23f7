//! One program for all targets: `OUTRIDER_FUZZ` names the one, libFuzzer gives it its bytes, and a
//! panic ends it. `cargo xtask fuzz` builds and runs it.

#![no_main]
// The entry that libFuzzer calls.
#![allow(unsafe_code)]

use std::sync::OnceLock;

use outrider_sidecar::fuzzing::{TARGETS, Target};

libfuzzer_sys::fuzz_target!(init: prepare(), |bytes: &[u8]| {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    (TARGET.get_or_init(chosen).run)(bytes);
});

/// The target that the environment names.
fn chosen() -> &'static Target {
    let name = std::env::var("OUTRIDER_FUZZ").unwrap_or_default();
    match TARGETS.iter().find(|target| target.name == name) {
        Some(target) => target,
        None => panic!("OUTRIDER_FUZZ names no target: `{name}`"),
    }
}

/// Before libFuzzer begins: answers what `cargo xtask fuzz` asks.
fn prepare() {
    if let Some(folder) = std::env::var_os("OUTRIDER_FUZZ_SEEDS") {
        for (index, seed) in chosen().seeds.iter().enumerate() {
            let file = std::path::Path::new(&folder).join(format!("seed-{index}"));
            if let Err(error) = std::fs::write(&file, seed) {
                panic!("{}: {error}", file.display());
            }
        }
        std::process::exit(0);
    }
    if std::env::var_os("OUTRIDER_FUZZ_LIST").is_some() {
        for target in TARGETS {
            println!("{}", target.name);
        }
        std::process::exit(0);
    }
}
