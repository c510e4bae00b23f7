//! How the program is linked.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A program that is linked statically is moved as a whole when it starts, and every page with an
    // address in it is written to. Packed, the list of these addresses is a tenth as long, which is
    // so much less to be read into memory.
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
