//! The command of the mesh for its users.

fn main() {}
