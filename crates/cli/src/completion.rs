//! `outrider completion`

use clap::CommandFactory as _;
use clap_complete::{Shell, generate};

use crate::flags::Cli;
use crate::output::{self, OutputError};

/// Print what makes a shell complete this command
#[derive(Debug, clap::Args)]
#[command(after_long_help = "bash:  source <(outrider completion bash)
zsh:   outrider completion zsh > \"${fpath[1]}/_outrider\"
fish:  outrider completion fish > ~/.config/fish/completions/outrider.fish")]
pub(crate) struct Arguments {
    /// For which shell.
    #[arg(value_parser = shell, value_name = "bash|zsh|fish")]
    shell: Shell,
}

/// The shells that we have tried.
fn shell(name: &str) -> Result<Shell, String> {
    match name {
        "bash" => Ok(Shell::Bash),
        "zsh" => Ok(Shell::Zsh),
        "fish" => Ok(Shell::Fish),
        _ => Err("one of bash, zsh, fish".to_owned()),
    }
}

/// Runs the verb.
///
/// # Errors
/// Standard output cannot be written to.
pub(crate) fn run(arguments: &Arguments) -> Result<(), OutputError> {
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut Cli::command(),
        "outrider",
        &mut script,
    );
    output::write(&String::from_utf8_lossy(&script))
}
