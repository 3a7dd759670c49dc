//! Command lines with images among the flags, those of `run`, `prepare` and `fetch`: parsed once as far as the first image, and then
//! word by word.

use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use pod::volumes::Mount;

use super::apps::{self, AppArguments, FlagKind};
use super::flags::{AppFlags, PodFlags, RunFlags};
use super::{Action, Command, Globals, Stop, values};

/// What an app's flags stand under in the help, and are known by.
const OF_APP: &str = "App flags (after an image)";
/// The same where there are images and no apps.
pub const OF_IMAGE: &str = "Image flags (after an image)";

// The arguments of `run`.
#[derive(Debug, Args)]
pub struct RunLine {
    #[command(flatten, next_help_heading = "Pod flags")]
    run: RunFlags,
    #[command(flatten)]
    line: Line,
}

// The arguments of `prepare`.
#[derive(Debug, Args)]
pub struct PrepareLine {
    /// Print nothing but the pod's UUID
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", help_heading = "Pod flags")]
    quiet: bool,
    #[command(flatten)]
    line: Line,
}

// What both have.
#[derive(Debug, Args)]
struct Line {
    #[command(flatten, next_help_heading = "Pod flags")]
    pod: PodFlags,
    #[command(flatten, next_help_heading = OF_APP)]
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
        self.words().is_some()
    }

    /// Whether nothing but its outcome is to be told.
    pub fn is_quiet(&self) -> bool {
        matches!(self, Self::Prepare(prepare) if prepare.quiet)
    }

    fn line(&self) -> Option<&Line> {
        match self {
            Self::Run(run) => Some(&run.line),
            Self::Prepare(prepare) => Some(&prepare.line),
            _ => None,
        }
    }

    /// The words from the first image on.
    fn words(&self) -> Option<&[String]> {
        match self {
            Self::Fetch(fetch) => Some(&fetch.rest),
            other => other.line().map(|line| line.rest.as_slice()),
        }
    }

    /// What to do, once its apps are known.
    pub fn with(self, apps: Vec<AppArguments>) -> Result<Action, Stop> {
        Ok(match self {
            Self::Run(line) => Action::Run { flags: Box::new(line.run), line: line.line.with(apps) },
            Self::Prepare(line) => Action::Prepare(line.line.with(apps)),
            Self::Fetch(line) => Action::Fetch(line.with(apps)?),
            other => return super::action(other),
        })
    }
}

/// Parses the whole of a command line that has been parsed as far as the first image.
pub fn parse(
    arguments: &[String],
    (definition, matches): (&clap::Command, &ArgMatches),
    globals: Globals,
    command: Command,
) -> Result<(Globals, Action), Stop> {
    let Some((name, matches)) = matches.subcommand() else { return Ok((globals, super::action(command)?)) };
    let Some(table) = definition.find_subcommand(name).map(FlagTable) else {
        return Ok((globals, super::action(command)?));
    };
    if let Some(flag) = table.first_of_app(matches) {
        return Err(Stop::usage(name, &format!("--{flag} must follow an image")));
    }
    let words = command.words().unwrap_or_default();
    let before = arguments.get(..arguments.len() - words.len()).unwrap_or_default();
    // clap takes it for the end of the flags, and leaves it out.
    if before.last().is_some_and(|word| word == "--") {
        return Err(Stop::usage(name, &apps::Error::ArgumentsWithoutImage.to_string()));
    }
    let split = apps::split(words, &|flag| table.kind_of(flag));
    let apps::Split { apps, pod_flags } = split.map_err(|error| Stop::usage(name, &error.to_string()))?;
    let apps = apps.into_iter().map(AppArguments::parse).collect::<Result<Vec<_>, _>>();
    let apps = apps.map_err(|error| Stop::of_clap(name, &error))?;
    // Flags of the pod and global ones stand between images, too: once more, with all of them in one place.
    let (globals, command) = match pod_flags.as_slice() {
        [] => (globals, command),
        flags => super::typed(arguments, &super::matches(&[before, flags].concat())?.1)?,
    };
    let has_manifest = command.line().is_some_and(|line| line.pod.pod_manifest.is_some());
    match (has_manifest, apps.as_slice()) {
        (false, []) => {
            let usage = "must provide at least one image: rkt COMMAND IMAGE; see --help";
            return Err(Stop::usage(name, &usage.replace("COMMAND", name)));
        }
        (true, [app, ..]) => {
            let message =
                format!("--pod-manifest cannot be used with the image {}: it names its own", app.image);
            return Err(Stop::usage(name, &message));
        }
        _ => {}
    }
    Ok((globals, command.with(apps)?))
}

/// The flags of a command by name: global ones are among them once it has been used.
struct FlagTable<'a>(&'a clap::Command);

impl FlagTable<'_> {
    fn is_of_app(&self, flag: &clap::Arg) -> bool {
        matches!(flag.get_help_heading(), Some(OF_APP | OF_IMAGE))
    }

    /// An app's flag before the first image; `--mount` may stand there.
    fn first_of_app(&self, given: &ArgMatches) -> Option<String> {
        let is_given = |flag: &&clap::Arg| {
            let source = given.try_contains_id(flag.get_id().as_str()).is_ok()
                && given.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
            source && flag.get_long() != Some("mount")
        };
        let mut given = self.0.get_arguments().filter(is_given).filter(|flag| self.is_of_app(flag));
        given.find_map(|flag| flag.get_long().map(str::to_owned))
    }

    fn kind_of(&self, name: &str) -> Option<FlagKind> {
        let help = (name == "help").then_some(FlagKind { of_app: false, takes_value: false });
        let flag = self.0.get_arguments().find(|flag| apps::is_called(flag, name));
        flag.map(|flag| FlagKind::of(flag, self.is_of_app(flag))).or(help)
    }
}
