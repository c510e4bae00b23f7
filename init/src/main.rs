//! The init program.
fn main() {}
