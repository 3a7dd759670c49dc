//! Command lines with images among the flags, those of `run` and `prepare`: parsed once as far as the first image, and then
//! word by word.

use std::cell::LazyCell;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory};
use pod::volumes::Mount;

use super::apps::{self, AppArguments};
use super::flags::{AppCommand, AppFlags, PodFlags, RunFlags};
use super::{Action, Cli, Command, Globals, Stop};

/// The arguments of `run`.
#[derive(Debug, Args)]
pub struct RunLine {
    #[command(flatten, next_help_heading = "Pod flags")]
    run: RunFlags,
    #[command(flatten)]
    line: Line,
}

/// The arguments of `prepare`.
#[derive(Debug, Args)]
pub struct PrepareLine {
    /// Print nothing but the pod's UUID
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(default_value = "false", default_missing_value = "true", help_heading = "Pod flags")]
    quiet: bool,
    #[command(flatten)]
    line: Line,
}

/// What both have.
#[derive(Debug, Args)]
struct Line {
    #[command(flatten, next_help_heading = "Pod flags")]
    pod: PodFlags,
    #[command(flatten, next_help_heading = "App flags (after an image)")]
    app: AppFlags,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<String>,
}

/// What a pod is to be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLine {
    /// What concerns the whole pod.
    pub flags: PodFlags,
    /// For all apps.
    pub mounts: Vec<Mount>,
    /// At least one, unless there is a pod manifest.
    pub apps: Vec<AppArguments>,
}

impl Line {
    fn with(self, apps: Vec<AppArguments>) -> PodLine {
        PodLine { flags: self.pod, mounts: self.app.mount, apps }
    }
}

impl Command {
    /// Whether it takes images in this way.
    pub fn has_images(&self) -> bool {
        self.line().is_some()
    }

    fn line(&self) -> Option<&Line> {
        match self {
            Self::Run(run) => Some(&run.line),
            Self::Prepare(prepare) => Some(&prepare.line),
            _ => None,
        }
    }

    /// What to do, once its apps are known.
    pub fn with(self, apps: Vec<AppArguments>) -> Result<Action, Stop> {
        Ok(match self {
            Self::Run(line) => Action::Run { flags: line.run, line: line.line.with(apps) },
            Self::Prepare(line) => Action::Prepare { quiet: line.quiet, line: line.line.with(apps) },
            other => return super::action(other),
        })
    }
}

/// Parses the whole of a command line that has been parsed as far as the first image.
pub fn parse(
    arguments: &[String],
    matches: &ArgMatches,
    globals: Globals,
    command: Command,
) -> Result<(Globals, Action), Stop> {
    let Some((name, matches)) = matches.subcommand() else { return Ok((globals, super::action(command)?)) };
    if let Some(flag) = first_app_flag(matches) {
        return Err(Stop::usage(name, &format!("--{flag} must follow an image")));
    }
    let words = command.line().map(|line| line.rest.as_slice()).unwrap_or_default();
    let table = LazyCell::new(|| FlagTable::of(name));
    let split = apps::split(words, &|flag| table.kind_of(flag));
    let apps::Split { apps, pod_flags } = split.map_err(|error| Stop::usage(name, &error.to_string()))?;
    let apps = apps.into_iter().map(AppArguments::parse).collect::<Result<Vec<_>, _>>();
    let apps = apps.map_err(|error| Stop::of_clap(name, &error))?;
    // Flags of the pod and global ones stand between images, too: once more, with all of them in one place.
    let (globals, command) = match pod_flags.as_slice() {
        [] => (globals, command),
        flags => {
            let before = arguments.get(..arguments.len() - words.len()).unwrap_or_default();
            super::typed(&super::matches(&[before, flags].concat())?)?
        }
    };
    let has_manifest = command.line().is_some_and(|line| line.pod.pod_manifest.is_some());
    match (has_manifest, apps.as_slice()) {
        (false, []) => return Err(Stop::usage(name, "must provide at least one image")),
        (true, [app, ..]) => {
            let message =
                format!("--pod-manifest cannot be used with the image {}: it names its own", app.image);
            return Err(Stop::usage(name, &message));
        }
        _ => {}
    }
    Ok((globals, command.with(apps)?))
}

/// An app's flag before the first image; `--mount` may stand there.
fn first_app_flag(command: &ArgMatches) -> Option<String> {
    let flags = AppCommand::command();
    let mut given = flags
        .get_arguments()
        .filter(|flag| flag.get_long() != Some("mount"))
        .filter(|flag| command.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine));
    given.find_map(|flag| flag.get_long().map(str::to_owned))
}

/// The flags of a command by name.
struct FlagTable {
    of_app: clap::Command,
    cli: clap::Command,
    command: String,
}

impl FlagTable {
    fn of(command: &str) -> Self {
        Self { of_app: AppCommand::command(), cli: Cli::command(), command: command.to_owned() }
    }

    fn kind_of(&self, name: &str) -> Option<apps::FlagKind> {
        let find = |command: &clap::Command, of_app| {
            let flag = command.get_arguments().find(|flag| flag.get_long() == Some(name))?;
            // A flag that may stand alone takes its value only after an equals sign.
            let takes_value = flag.get_action().takes_values() && !flag.is_require_equals_set();
            Some(apps::FlagKind { of_app, takes_value })
        };
        let of_command = || find(self.cli.find_subcommand(&self.command)?, false);
        let help = (name == "help").then_some(apps::FlagKind { of_app: false, takes_value: false });
        find(&self.of_app, true).or_else(of_command).or_else(|| find(&self.cli, false)).or(help)
    }
}
