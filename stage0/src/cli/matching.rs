//! By which definitions a command line is parsed.
//!
//! To define all commands, and to copy the global flags to each, takes longer than anything else that a start does. So what is right is
//! parsed by the definition of its own command, and only what is not by those of all, for the sake of what is said of it.

use clap::{ArgMatches, Args, CommandFactory, Subcommand};

use super::{Cli, Command, GlobalFlags, InsecureOptions, Stop};

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
    let names: Vec<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
    let mut meant = names.iter().filter(|name| name.starts_with(word));
    match (names.contains(&word), meant.next(), meant.next()) {
        (true, ..) => word,
        (false, Some(only), None) => only,
        // It is none, or may be several.
        _ => "rkt",
    }
    .to_owned()
}

/// What the flags before the command switch off: clap forgets them where there are such flags after it, too.
pub fn insecure_before(arguments: &[String]) -> InsecureOptions {
    let globals = GlobalFlags::augment_args(clap::Command::new("rkt"));
    let before = first_position(&globals, arguments).and_then(|position| arguments.get(..position));
    let before = before.filter(|words| words.iter().any(|word| word.starts_with("--insecure-options")));
    let matches = before.and_then(|words| globals.try_get_matches_from(words).ok());
    let options = matches.and_then(|mut matches| matches.remove_many("insecure_options"));
    options.into_iter().flatten().fold(InsecureOptions::default(), InsecureOptions::or)
}

/// The first word that is neither a global flag nor its value.
fn first_word<'a>(globals: &clap::Command, arguments: &'a [String]) -> Option<&'a str> {
    arguments.get(first_position(globals, arguments)?).map(String::as_str)
}

/// Where it is.
fn first_position(globals: &clap::Command, arguments: &[String]) -> Option<usize> {
    let mut words = arguments.iter().map(String::as_str).enumerate().skip(1);
    while let Some((position, word)) = words.next() {
        let flag = word
            .strip_prefix("--")
            .and_then(|name| globals.get_arguments().find(|f| f.get_long() == Some(name)));
        if flag.is_some_and(|flag| !flag.is_require_equals_set() && flag.get_action().takes_values()) {
            words.next();
        } else if !word.starts_with('-') {
            return Some(position);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_begin_with_the_command_that_is_meant() {
        let name = |text: &str| command_name(&text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        for (text, expected) in [
            ("rkt run --frob", "run"),
            ("rkt lis --frob", "list"),
            ("rkt --debug prepared", "rkt"),
            ("rkt st x", "rkt"),
            ("rkt frob", "rkt"),
            ("rkt --frob", "rkt"),
        ] {
            assert_eq!(name(text), expected, "{text}");
        }
    }

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
