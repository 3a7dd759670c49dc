//! What people read and shells complete, made from the command line's own definition.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, Command};
use clap_complete::Shell;

use super::Outcome;
use super::status::indented;
use crate::cli::{self, Globals};
use crate::config;

/// `rkt completion`: prints a script for a shell.
pub fn completion(shell: Shell) -> Outcome {
    // The generator panics if it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut offered(&cli::definition(true)), "rkt", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// A command without what it does not tell of: the generator offers that, too.
fn offered(command: &Command) -> Command {
    let flags = command.get_arguments().filter(|flag| is_offered(flag)).map(|flag| {
        let others = command.get_arg_conflicts_with(flag).into_iter().filter(|other| is_offered(other));
        flag.clone()
            // What is of all commands is among each one's already.
            .global(false)
            .conflicts_with(Resettable::Reset)
            .conflicts_with_all(others.map(|other| other.get_id().clone()))
    });
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set()).map(offered);
    // clap keeps names that last as long as the process, which ends soon.
    let lasting = |name: &str| -> &'static str { name.to_owned().leak() };
    Command::new(lasting(command.get_name()))
        .visible_aliases(command.get_visible_aliases().map(lasting))
        .about(command.get_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"))
        // What there is of both is among the others: the definition is built.
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .args(flags)
        .subcommands(commands)
}

fn is_offered(flag: &Arg) -> bool {
    flag.is_positional() || !flag.is_hide_set()
}

/// `rkt manual`: writes a manual page for each command to a directory.
pub fn manual(directory: &Path) -> Outcome {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(cli::definition(false), directory)?;
    Ok(ExitCode::SUCCESS)
}

/// `rkt config`: prints the configuration, and where each part of it is from.
pub fn config(globals: &Globals, pretty: bool) -> Outcome {
    let json = config::load(globals)?.to_json();
    let json = if pretty { indented(&json)? } else { json.to_string() };
    writeln!(std::io::stdout(), "{json}")?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(shell: Shell, definition: &Command) -> String {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut definition.clone(), "rkt", &mut script);
        String::from_utf8(script).unwrap()
    }

    /// Of the same definition but for what is hidden, the same is offered.
    #[test]
    fn what_is_hidden_is_not_offered() {
        let all = cli::definition(true);
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let (before, after) = (completion(shell, &all), completion(shell, &offered(&all)));
            for hidden in ["no-overlay", "insecure-allow-http"] {
                assert!(before.contains(hidden) && !after.contains(hidden), "{shell}: {hidden}");
            }
            for shown in ["port-forward", "run-prepared", "--stage1", "--help", "help"] {
                let shown = if shell == Shell::Fish { shown.trim_start_matches('-') } else { shown };
                assert!(after.contains(shown), "{shell}: {shown}");
            }
        }
    }
}
