//! The outrider-sidecar program.
fn main() {}
