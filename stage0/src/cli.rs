//! The command line: parsed here, once, into types that cannot be wrong.
//!
//! Sets of flags have plain comments: clap would print a doc comment of theirs in place of the command's own.

mod app;
mod apps;
mod flags;
mod image;
mod insecure;
mod isolators;
mod matching;
mod names;
mod notes;
mod pod_line;
mod pods;
mod sandbox;
mod stage1;
mod trust;
mod upstream;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pod::abi::EXIT_ERROR;
use pod::session::Action as ChangeOfApp;

pub use app::AppChoice;
use app::AppSubcommand;
pub use apps::AppArguments;
pub use flags::{AppFlags, PodFlags, RunFlags};
pub use image::{ImageCommand, ImageField, ImageListFlags, Order, TreeFlags};
pub use insecure::InsecureOptions;
use insecure::parse_option;
use matching::matches;
pub use names::Names;
pub use notes::NoteFlags;
pub use pod_line::PodLine;
use pod_line::{PrepareLine, RunLine};
pub use pods::{
    AttachFlags, EnterFlags, ExportFlags, LogsFlags, PodChoice, PortForwardFlags, StatusFlags, StatusFormat,
    Wait,
};
use pods::{OnePod, SomePods};
pub use stage1::{Stage1, Stage1Choice, Stage1Image};
use trust::FetchLine;
pub use trust::{FetchFlags, PullPolicy, TrustFlags};

use crate::pods::gc::Collection;

/// Where images and pods are unless `--dir` or the configuration says otherwise.
const DEFAULT_DIRECTORY: &str = "/var/lib/rkt";
/// Where the vendor's configuration is unless `--system-config` says otherwise.
const SYSTEM_CONFIG: &str = "/usr/lib/rkt";
/// Where the administrator's configuration is unless `--local-config` says otherwise.
const LOCAL_CONFIG: &str = "/etc/rkt";

#[derive(Debug, Parser)]
#[command(name = "rkt", version, about = "Runs pods of container images, in micro-VMs or in namespaces")]
#[command(infer_subcommands = true)]
struct Cli {
    #[command(flatten)]
    globals: GlobalFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Args)]
struct GlobalFlags {
    /// Directory with images and pods; what is configured by default, or /var/lib/rkt
    #[arg(long, global = true, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Directory with the vendor's configuration
    #[arg(long, global = true, value_name = "DIR", default_value = SYSTEM_CONFIG)]
    system_config: PathBuf,
    /// Directory with the administrator's configuration, networks in net.d among it; it wins over the vendor's
    #[arg(long, global = true, value_name = "DIR", default_value = LOCAL_CONFIG)]
    local_config: PathBuf,
    /// Directory with the user's configuration, which wins over both
    #[arg(long, global = true, value_name = "DIR")]
    user_config: Option<PathBuf>,
    /// Upstream's, for keys from the network
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(value_parser = trust::not_fetched, default_missing_value = "true")]
    trust_keys_from_https: Option<bool>,
    /// Upstream's, of its implementation
    #[arg(long, global = true, hide = true, value_name = "FILE", value_parser = upstream::no_profile)]
    cpuprofile: Option<String>,
    /// Upstream's, of its implementation
    #[arg(long, global = true, hide = true, value_name = "FILE", value_parser = upstream::no_profile)]
    memprofile: Option<String>,
    /// Say more
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    debug: bool,
    /// Security features to do without, comma-separated: none, image (signatures), capabilities, paths, seccomp, all-fetch, all-run, all
    #[arg(long, global = true, value_name = "LIST", value_delimiter = ',', value_parser = parse_option)]
    insecure_options: Vec<InsecureOptions>,
}

#[derive(Debug, Subcommand)]
// Only the flags of the one that is used are defined.
#[command(defer = true)]
enum Command {
    /// Run a pod
    ///
    /// IMAGE is an ACI file, an OCI image layout (directory or tar), a docker save archive, or an ID or a name of an image
    /// in the store. Flags of an app follow its image; -- begins the app's arguments, --- ends them.
    #[command(override_usage = "rkt run [FLAGS] IMAGE [APP FLAGS] [-- ARGS...] [--- IMAGE2 ...]")]
    Run(Box<RunLine>),
    /// Make a pod for run-prepared, and print its UUID
    ///
    /// Images, apps, volumes, ports, variables and the isolation are settled now, in the way of rkt run; the network, the host name
    /// and the terminal when it is run.
    #[command(override_usage = "rkt prepare [FLAGS] IMAGE [APP FLAGS] [-- ARGS...] [--- IMAGE2 ...]")]
    Prepare(Box<PrepareLine>),
    /// Run a pod that prepare has made
    ///
    /// That can be done once.
    RunPrepared {
        #[command(flatten)]
        flags: RunFlags,
        #[command(flatten)]
        pod: OnePod,
    },
    /// Import images and print their IDs
    ///
    /// IMAGE is an ACI file, an OCI image layout (directory or tar) or a docker save archive. An ACI is to be signed by a key that
    /// is trusted for its name: IMAGE.asc holds the signature, or the file that --signature names.
    #[command(override_usage = "rkt fetch [FLAGS] IMAGE [--signature=FILE] [IMAGE2 ...]")]
    Fetch(FetchLine),
    /// Trust keys to sign images
    ///
    /// For all images, or for those whose names begin with a prefix. The fingerprints are shown first, and have to be confirmed.
    #[command(override_usage = "rkt trust --prefix=PREFIX|--root [--skip-fingerprint-review] PUBKEY_FILE...")]
    Trust(TrustFlags),
    /// Remove pods that have ended
    ///
    /// Ended pods are marked first, and removed by a later gc, once the grace period has passed since.
    Gc {
        /// How long pods stay after they were marked: 90s, 30m, 1h30m
        #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = values::duration)]
        grace_period: Duration,
        /// How long prepared pods stay that nobody runs
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
        expire_prepared: Duration,
        /// Mark only
        #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
        #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
        mark_only: bool,
    },
    /// Remove ended pods at once
    Rm {
        #[command(flatten)]
        pods: SomePods,
    },
    /// Run a command in an app of a running pod
    ///
    /// It has everything that confines the app, and its exit status is that of rkt. Without a command it is the app's
    /// shell.
    #[command(override_usage = "rkt enter [--app=NAME] UUID [COMMAND [ARGS...]]")]
    Enter(EnterFlags),
    /// Work with single apps of a pod
    #[command(infer_subcommands = true)]
    App {
        #[command(subcommand)]
        command: AppSubcommand,
    },
    /// Connect to the streams of an app of a running pod
    ///
    /// Of one that was run with --stdin=tty, or with --stdin=stream, --stdout=stream, --stderr=stream. The app goes on when
    /// the client goes; on a terminal, press Ctrl-] three times.
    Attach {
        #[command(flatten)]
        flags: AttachFlags,
        #[command(flatten)]
        pod: OnePod,
    },
    /// Forward ports of the host into a running pod
    ///
    /// To what listens on the pod's own 127.0.0.1 or ::1, whatever its network; until it is ended by a signal, or the pod
    /// ends. A port 0 of the host is any that is free.
    #[command(override_usage = "rkt port-forward UUID [ADDRESS:]LOCAL:REMOTE...")]
    PortForward(PortForwardFlags),
    /// End running pods
    ///
    /// Each app gets its kill signal and its kill timeout, as after a signal to rkt itself.
    Stop {
        /// Kill the pod at once
        #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
        #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
        force: bool,
        #[command(flatten)]
        pods: SomePods,
    },
    /// Tell what a pod is doing, or how it has ended
    Status {
        #[command(flatten)]
        flags: StatusFlags,
        #[command(flatten)]
        pod: OnePod,
    },
    /// Print what the apps of a pod have written to their logs
    ///
    /// Of apps that were run with --stdout=log or --stderr=log; of running pods and of those that have ended.
    Logs {
        #[command(flatten)]
        flags: LogsFlags,
        #[command(flatten)]
        pod: OnePod,
    },
    /// Write what an app of an ended pod sees as an image
    Export(ExportFlags),
    /// Print a pod's manifest
    CatManifest {
        #[command(flatten)]
        form: PrettyPrint,
        #[command(flatten)]
        pod: OnePod,
    },
    /// List pods
    List(ListFlags),
    /// Work with the images in the store
    #[command(infer_subcommands = true)]
    Image {
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Run the metadata service, which tells apps of their pods
    ///
    /// In the foreground, as root. It knows pods that were run with --mds-register, and them only; they reach it at the port.
    MetadataService {
        /// The port that pods reach it at; 0 is any that is free
        #[arg(long, value_name = "PORT", default_value_t = pod::metadata::PORT)]
        listen_port: u16,
    },
    /// Upstream's
    #[command(hide = true)]
    ApiService {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _words: Vec<String>,
    },
    /// Tell what this host can run, and how to get what is missing
    Doctor {
        /// How to print it
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
    /// Print the configuration, and which file says what
    Config(PrettyPrint),
    /// Print a script by which a shell completes rkt's command lines
    Completion {
        /// Which shell
        #[arg(value_parser = shell())]
        shell: Shell,
    },
    /// Write the manual pages of all commands to a directory
    Manual {
        /// Where to
        directory: PathBuf,
    },
    /// Print versions
    Version,
}

/// The shells that there are scripts for, which know that from here.
fn shell() -> impl TypedValueParser<Value = Shell> {
    PossibleValuesParser::new(["bash", "zsh", "fish"]).try_map(|name| Shell::from_str(&name, false))
}

// How to print JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct PrettyPrint {
    /// Indent it
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pretty_print: bool,
}

// How to print a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ListFlags {
    /// Leave the titles out
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub no_legend: bool,
    /// Print IDs, times and sizes in full
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true")]
    pub full: bool,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    pub format: StatusFormat,
}

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What holds for every command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Absolute.
    pub directory: PathBuf,
    /// Nobody has said so on the command line.
    pub is_directory_default: bool,
    /// Absolute.
    pub system_config: PathBuf,
    /// Absolute.
    pub local_config: PathBuf,
    /// Absolute.
    pub user_config: Option<PathBuf>,
    /// Say more.
    pub debug: bool,
    /// Tell nothing but the outcome.
    pub quiet: bool,
    /// What is switched off.
    pub insecure: InsecureOptions,
}

/// What to do.
#[derive(Debug)]
pub enum Action {
    /// `run`.
    Run { flags: Box<RunFlags>, line: PodLine },
    /// `prepare`.
    Prepare(PodLine),
    /// `run-prepared`.
    RunPrepared { pod: PodChoice, flags: RunFlags },
    /// `fetch`.
    Fetch(FetchFlags),
    /// `trust`.
    Trust(TrustFlags),
    /// `gc`.
    Gc(Collection),
    /// `rm`.
    Rm { pods: Vec<PodChoice> },
    /// `enter`.
    Enter(EnterFlags),
    /// `app add`.
    AppAdd { pod: PodChoice, app: Box<AppArguments> },
    /// `app rm`.
    AppRemove(AppChoice),
    /// `app list`.
    AppList { pod: PodChoice, no_legend: bool },
    /// `app status`.
    AppStatus { app: AppChoice, format: StatusFormat },
    /// `app start` and the like.
    AppChange { app: AppChoice, action: ChangeOfApp },
    /// `attach`.
    Attach { pod: PodChoice, flags: AttachFlags },
    /// `port-forward`.
    PortForward(PortForwardFlags),
    /// `stop`.
    Stop { pods: Vec<PodChoice>, force: bool },
    /// `status`.
    Status { pod: PodChoice, flags: StatusFlags },
    /// `logs`.
    Logs { pod: PodChoice, flags: LogsFlags },
    /// `export`.
    Export(ExportFlags),
    /// `cat-manifest`.
    CatManifest { pod: PodChoice, pretty: bool },
    /// `list`.
    List(ListFlags),
    /// `image`.
    Image(ImageCommand),
    /// `metadata-service`.
    MetadataService { port: u16 },
    /// `doctor`.
    Doctor(Format),
    /// `config`.
    Config { pretty: bool },
    /// `completion`.
    Completion(Shell),
    /// `manual`.
    Manual(PathBuf),
    /// `version`.
    Version,
}

impl Action {
    /// The subcommand, which messages begin with.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Run { line, .. } if line.flags.mutable => "app",
            Self::Run { .. } => "run",
            Self::Prepare(_) => "prepare",
            Self::RunPrepared { .. } => "run-prepared",
            Self::Fetch(_) => "fetch",
            Self::Trust(_) => "trust",
            Self::Gc(_) => "gc",
            Self::Rm { .. } => "rm",
            Self::Enter(_) => "enter",
            Self::AppAdd { .. } | Self::AppRemove(_) => "app",
            Self::AppList { .. } | Self::AppStatus { .. } | Self::AppChange { .. } => "app",
            Self::Attach { .. } => "attach",
            Self::PortForward(_) => "port-forward",
            Self::Stop { .. } => "stop",
            Self::Status { .. } => "status",
            Self::Logs { .. } => "logs",
            Self::Export(_) => "export",
            Self::CatManifest { .. } => "cat-manifest",
            Self::List(_) => "list",
            Self::Image(_) => "image",
            Self::MetadataService { .. } => "metadata-service",
            Self::Doctor(_) => "doctor",
            Self::Config { .. } => "config",
            Self::Completion(_) => "completion",
            Self::Manual(_) => "manual",
            Self::Version => "version",
        }
    }
}

impl Action {
    /// Whether every error of it exits with 1, as it does upstream; others exit with 254.
    pub fn fails_with_one(&self) -> bool {
        match self {
            Self::Run { line, .. } => line.flags.mutable,
            Self::AppList { .. } | Self::AppStatus { .. } => true,
            _ => false,
        }
    }
}

/// Why there is nothing to do: what to print, where, and with what status to exit.
#[derive(Debug, PartialEq, Eq)]
pub struct Stop {
    /// With its newline.
    pub text: String,
    /// Standard output for what was asked for, standard error for what was not.
    pub to_stdout: bool,
    /// The exit status.
    pub code: u8,
}

impl Stop {
    fn usage(command: &str, message: &str) -> Self {
        Self { text: format!("{command}: {message}\n"), to_stdout: false, code: EXIT_ERROR }
    }

    fn of_clap(command: &str, error: &clap::Error) -> Self {
        let text = error.render().to_string();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self { text, to_stdout: true, code: 0 },
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Self { text, to_stdout: false, code: EXIT_ERROR }
            }
            _ => Self::usage(command, text.trim_start_matches("error: ").trim_end()),
        }
    }
}

/// Parses a command line, the program's name first.
pub fn parse(arguments: &[String]) -> Result<(Globals, Action), Stop> {
    let (definition, matches) = matches(arguments)?;
    let (globals, command) = typed(arguments, &matches)?;
    match command.has_images() {
        true => pod_line::parse(arguments, (&definition, &matches), globals, command),
        false => Ok((globals, action(command)?)),
    }
}

/// All commands and their flags, with `help` and what that takes or without.
pub fn definition(help: bool) -> clap::Command {
    let mut definition = Cli::command().disable_help_subcommand(!help);
    definition.build();
    definition
}

fn typed(arguments: &[String], matches: &ArgMatches) -> Result<(Globals, Command), Stop> {
    let cli = Cli::from_arg_matches(matches).map_err(|error| Stop::of_clap("rkt", &error))?;
    let GlobalFlags { dir, system_config, local_config, user_config, debug, insecure_options, .. } =
        cli.globals;
    let is_directory_default = dir.is_none();
    let directory = absolute("dir", dir.as_deref().unwrap_or(Path::new(DEFAULT_DIRECTORY)))?;
    let system_config = absolute("system-config", &system_config)?;
    let local_config = absolute("local-config", &local_config)?;
    let user_config = user_config.map(|path| absolute("user-config", &path)).transpose()?;
    let insecure =
        insecure_options.into_iter().fold(matching::insecure_before(arguments), InsecureOptions::or);
    match cli.command {
        Some(command) => Ok((
            Globals {
                directory,
                is_directory_default,
                system_config,
                local_config,
                user_config,
                debug,
                quiet: command.is_quiet(),
                insecure,
            },
            command,
        )),
        None => {
            let text = format!("rkt: missing command\n{}", Cli::command().render_help());
            Err(Stop { text, to_stdout: false, code: 2 })
        }
    }
}

fn absolute(flag: &str, path: &Path) -> Result<PathBuf, Stop> {
    std::path::absolute(path)
        .map_err(|error| Stop::usage("rkt", &format!("--{flag}={}: {error}", path.display())))
}

fn action(command: Command) -> Result<Action, Stop> {
    Ok(match command {
        Command::Run(_) | Command::Prepare(_) | Command::Fetch(_) => return command.with(Vec::new()),
        Command::RunPrepared { flags, pod } => Action::RunPrepared { pod: pod.into(), flags },
        Command::Trust(flags) => {
            flags.check().map_err(|what| Stop::usage("trust", what))?;
            Action::Trust(flags)
        }
        Command::Gc { grace_period, expire_prepared, mark_only } => {
            Action::Gc(Collection { grace: grace_period, expire_prepared, mark_only })
        }
        Command::Rm { pods } => Action::Rm { pods: pods.into() },
        Command::Enter(flags) => Action::Enter(flags),
        Command::App { command } => return app_action(command),
        Command::Attach { flags, pod } => Action::Attach { pod: pod.into(), flags },
        Command::PortForward(flags) => Action::PortForward(flags),
        Command::Stop { force, pods } => Action::Stop { pods: pods.into(), force },
        Command::Status { flags, pod } => Action::Status { pod: pod.into(), flags },
        Command::Logs { flags, pod } => Action::Logs { pod: pod.into(), flags },
        Command::Export(flags) => Action::Export(flags),
        Command::CatManifest { form, pod } => {
            Action::CatManifest { pod: pod.into(), pretty: form.pretty_print }
        }
        Command::List(flags) => Action::List(flags),
        Command::Image { command } => Action::Image(command),
        Command::MetadataService { listen_port } => Action::MetadataService { port: listen_port },
        Command::ApiService { .. } => return Err(Stop::usage("api-service", upstream::NO_API_SERVICE)),
        Command::Doctor { format } => Action::Doctor(format),
        Command::Config(form) => Action::Config { pretty: form.pretty_print },
        Command::Completion { shell } => Action::Completion(shell),
        Command::Manual { directory } => Action::Manual(directory),
        Command::Version => Action::Version,
    })
}

fn app_action(command: AppSubcommand) -> Result<Action, Stop> {
    let change = |app: app::OneApp, action| Action::AppChange { app: app.into(), action };
    Ok(match command {
        AppSubcommand::Sandbox(flags) => {
            let (flags, line) = flags.split();
            Action::Run { flags: Box::new(flags), line }
        }
        AppSubcommand::Add(words) => {
            let (pod, app) = words.parse()?;
            Action::AppAdd { pod: PodChoice::Uuid(pod), app: Box::new(app) }
        }
        AppSubcommand::Rm(app) => Action::AppRemove(app.into()),
        AppSubcommand::List { no_legend, pod } => Action::AppList { pod: pod.into(), no_legend },
        AppSubcommand::Status { format, app } => Action::AppStatus { app: app.into(), format },
        AppSubcommand::Start(app) => change(app, ChangeOfApp::Start),
        AppSubcommand::Stop(app) => change(app, ChangeOfApp::Stop),
        AppSubcommand::Exec(flags) => Action::Enter(flags),
    })
}

#[cfg(test)]
mod tests;
