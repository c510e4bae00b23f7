//! `cargo xtask VERB`: every step of development and CI, one file a verb.

mod codegen;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Every step of Outrider's development and CI"
)]
enum Verb {
    Codegen(codegen::Codegen),
}

fn main() -> Result<()> {
    match Verb::parse() {
        Verb::Codegen(verb) => verb.run(),
    }
}
