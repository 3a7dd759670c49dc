//! The arguments of `rkt app`.

use clap::{Args, Subcommand};
use pod::types::AcName;

use super::pods::{EnterFlags, OnePod, PodChoice, StatusFormat};
use super::sandbox::{AddArgs, SandboxFlags};
use super::values;

// What to do with apps of a pod.
#[derive(Debug, Subcommand)]
pub enum AppSubcommand {
    /// Run a pod without apps, for apps that come and go
    ///
    /// It runs until it is stopped, whatever becomes of its apps.
    Sandbox(Box<SandboxFlags>),
    /// Take an app into a running pod of rkt app sandbox; rkt app start starts it
    ///
    /// IMAGE is what it is for rkt run.
    #[command(override_usage = "rkt app add UUID IMAGE [APP FLAGS] [-- ARGS...]")]
    Add(Box<AddArgs>),
    /// End an app of a pod of rkt app sandbox, and take it out of the pod with all that it has written
    Rm(OneApp),
    /// List a pod's apps and their states
    List {
        /// Leave the titles out
        #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
        #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
        no_legend: bool,
        #[command(flatten)]
        pod: OnePod,
    },
    /// Tell what an app is doing, or how it has ended
    Status {
        /// How to print it
        #[arg(long, value_enum, default_value = "text")]
        format: StatusFormat,
        #[command(flatten)]
        app: OneApp,
    },
    /// Start an app of a running pod that has ended
    Start(OneApp),
    /// End an app of a running pod
    ///
    /// It gets its kill signal, and SIGKILL when its kill timeout is over; it is not started again, and has not failed.
    Stop(OneApp),
    /// Run a command in an app, as rkt enter does
    #[command(override_usage = "rkt app exec [--app=NAME] UUID [COMMAND [ARGS...]]")]
    Exec(EnterFlags),
}

// An app of a pod.
#[derive(Debug, Args)]
pub struct OneApp {
    /// The app; needed if the pod has several
    #[arg(long, value_parser = values::name, value_name = "NAME")]
    app: Option<AcName>,
    #[command(flatten)]
    pod: OnePod,
}

/// Which app of which pod is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppChoice {
    /// The pod.
    pub pod: PodChoice,
    /// The app; the only one, if it is not named.
    pub app: Option<AcName>,
}

impl From<OneApp> for AppChoice {
    fn from(app: OneApp) -> Self {
        Self { pod: app.pod.into(), app: app.app }
    }
}
