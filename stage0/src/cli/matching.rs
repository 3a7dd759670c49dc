//! By which definitions a command line is parsed.
//!
//! To define all commands, and to copy the global flags to each, takes longer than anything else that a start does. So what is right is
//! parsed by the definition of its own command, and only what is not by those of all, for the sake of what is said of it.

use clap::{ArgMatches, Args, CommandFactory, Subcommand};

use super::{Cli, Command, GlobalFlags, Stop};

/// What a command line has of all that there is.
pub fn matches(arguments: &[String]) -> Result<(clap::Command, ArgMatches), Stop> {
    if let Some(mut definition) = own_definition(arguments)
        && let Ok(matches) = definition.try_get_matches_from_mut(arguments)
    {
        return Ok((definition, matches));
    }
    let mut definition = Cli::command();
    match definition.try_get_matches_from_mut(arguments) {
        Ok(matches) => Ok((definition, matches)),
        Err(error) => Err(Stop::of_clap(&command_name(arguments), &error)),
    }
}

/// The definition of the command that a command line names in full, and of no other.
fn own_definition(arguments: &[String]) -> Option<clap::Command> {
    let globals = GlobalFlags::augment_args(clap::Command::new("rkt"));
    let name = first_word(&globals, arguments)?;
    let commands = Command::augment_subcommands(clap::Command::new("rkt"));
    let own = commands.get_subcommands().find(|command| command.get_name() == name).cloned();
    // The process is too short to make up for what it takes to free them.
    std::mem::forget(commands);
    Some(globals.subcommand(own?))
}

/// The subcommand of a command line that does not parse.
fn command_name(arguments: &[String]) -> String {
    let cli = Cli::command();
    let Some(word) = first_word(&cli, arguments) else { return "rkt".to_owned() };
    let mut commands = cli.get_subcommands().map(clap::Command::get_name);
    commands.find(|name| name.starts_with(word)).unwrap_or("rkt").to_owned()
}

/// The first word that is neither a global flag nor its value.
fn first_word<'a>(globals: &clap::Command, arguments: &'a [String]) -> Option<&'a str> {
    let mut words = arguments.iter().skip(1).map(String::as_str);
    while let Some(word) = words.next() {
        let flag = word
            .strip_prefix("--")
            .and_then(|name| globals.get_arguments().find(|f| f.get_long() == Some(name)));
        if flag.is_some_and(|flag| !flag.is_require_equals_set() && flag.get_action().takes_values()) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_is_named_in_full_is_defined_alone() {
        let own = |text: &str| {
            let definition = own_definition(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())?;
            Some(
                definition.get_subcommands().map(|command| command.get_name().to_owned()).collect::<Vec<_>>(),
            )
        };
        let cases = [
            ("rkt run x", Some("run")),
            ("rkt --dir run list", Some("list")),
            ("rkt --dir=run --debug image list", Some("image")),
            ("rkt ru x", None),
            ("rkt runx", None),
            ("rkt", None),
            ("rkt --help", None),
        ];
        for (text, name) in cases {
            assert_eq!(own(text), name.map(|name| vec![name.to_owned()]), "{text}");
        }
    }
}
