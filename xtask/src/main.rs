//! `cargo xtask VERB`: every step of development and CI, one file a verb.

mod bench;
mod cluster;
mod codegen;
mod conform;
mod conformance;
mod demo;
mod fuzz;
mod images;
mod lint;
mod machine;
mod shell;
mod test;
mod tidy;

use anyhow::Result;
use clap::Parser;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    about = "Every step of Outrider's development and CI"
)]
enum Verb {
    Bench(bench::Bench),
    Cluster(cluster::Cluster),
    Codegen(codegen::Codegen),
    Conform(conform::Conform),
    Conformance(conformance::Conformance),
    Demo(demo::Demo),
    Fuzz(fuzz::Fuzz),
    Images(images::Images),
    Lint(lint::Lint),
    Test(test::Test),
    Tidy(tidy::Tidy),
}

fn main() -> Result<()> {
    if fuzz::is_compiler() {
        return fuzz::compile();
    }
    match Verb::parse() {
        Verb::Bench(verb) => verb.run(),
        Verb::Cluster(verb) => verb.run(),
        Verb::Codegen(verb) => verb.run(),
        Verb::Conform(verb) => verb.run(),
        Verb::Conformance(verb) => verb.run(),
        Verb::Demo(verb) => verb.run(),
        Verb::Fuzz(verb) => verb.run(),
        Verb::Images(verb) => verb.run(),
        Verb::Lint(verb) => verb.run(),
        Verb::Test(verb) => verb.run(),
        Verb::Tidy(verb) => verb.run(),
    }
}
