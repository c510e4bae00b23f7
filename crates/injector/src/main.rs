//! The injector's program.

fn main() {}
