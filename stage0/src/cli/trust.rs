//! The arguments of `rkt trust`, and those by which images come into the store.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pod::types::AcIdentifier;

use super::pod_line::OF_IMAGE;
use super::{AppArguments, Stop, values};

// Which keys to trust, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct TrustFlags {
    /// Trust them for images of this name, and of names that begin with it and a slash
    #[arg(long, value_name = "PREFIX", value_parser = prefix, conflicts_with = "root")]
    pub prefix: Option<AcIdentifier>,
    /// Trust them for all images
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub root: bool,
    /// Do not ask whether the fingerprints are the right ones
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub skip_fingerprint_review: bool,
    /// Upstream's, for keys from the network
    #[arg(long, hide = true, value_parser = not_fetched, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    insecure_allow_http: Option<bool>,
    /// Files with OpenPGP public keys, armored or binary
    #[arg(value_name = "PUBKEY_FILE", value_parser = key_file)]
    pub keys: Vec<PathBuf>,
}

impl TrustFlags {
    /// What is missing.
    pub fn check(&self) -> Result<(), &'static str> {
        if !self.root && self.prefix.is_none() {
            return Err(
                "say for which images: --prefix=PREFIX for those whose names begin so, or --root for all",
            );
        }
        if self.keys.is_empty() {
            return Err("name the files with the keys: finding keys by discovery is not there yet");
        }
        Ok(())
    }
}

/// A flag that concerns keys from the network.
pub fn not_fetched(text: &str) -> Result<bool, String> {
    match pod::boolean::parse(text) {
        Some(false) => Ok(false),
        _ => Err(
            "keys are not fetched from the network yet: download them, and trust the files with rkt trust"
                .into(),
        ),
    }
}

fn prefix(text: &str) -> Result<AcIdentifier, String> {
    if text.contains("://") {
        return Err("it is the beginning of an image's name, without a scheme".into());
    }
    values::parsed(text)
}

fn key_file(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return not_fetched(text).map(|_| PathBuf::new());
    }
    Ok(text.into())
}

/// When the network is asked for an image. Files are read whenever they have changed, whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Never: what is not in the store is an error.
    Never,
    /// If it is not in the store.
    #[default]
    New,
    /// Always.
    Update,
}

// The policy, and upstream's old words for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
#[group(multiple = false)]
pub struct PullFlags {
    /// When the network is asked for an image: never, new (if it is not in the store), or update (always)
    #[arg(long, value_enum, value_name = "POLICY")]
    pull_policy: Option<PullPolicy>,
    /// The same as --pull-policy=never
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set, hide = true)]
    store_only: bool,
    /// The same as --pull-policy=update
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set, hide = true)]
    no_store: bool,
}

impl PullFlags {
    /// What is said, or to ask for what is not in the store.
    pub fn policy(self) -> PullPolicy {
        match self {
            Self { store_only: true, .. } => PullPolicy::Never,
            Self { no_store: true, .. } => PullPolicy::Update,
            Self { pull_policy, .. } => pull_policy.unwrap_or_default(),
        }
    }
}

/// What to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFlags {
    /// Files, and the files with their signatures where those are not beside them.
    pub images: Vec<(String, Option<PathBuf>)>,
    /// Print whole IDs.
    pub full: bool,
}

// The arguments of `fetch`.
#[derive(Debug, Args)]
pub struct FetchLine {
    /// Print whole IDs; false prints 32 digits of them, as upstream does without this flag
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "true", default_missing_value = "true", action = clap::ArgAction::Set)]
    full: bool,
    /// What of the network is asked for; files are read in any case
    #[command(flatten)]
    pull: PullFlags,
    /// The file with the image's signature, instead of IMAGE.asc
    #[arg(long, value_name = "FILE", help_heading = OF_IMAGE)]
    signature: Option<PathBuf>,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(super) rest: Vec<String>,
}

impl FetchLine {
    /// What to import, once the images are known.
    pub fn with(self, images: Vec<AppArguments>) -> Result<FetchFlags, Stop> {
        if let Some(AppArguments { image, .. }) = images.iter().find(|image| !image.arguments.is_empty()) {
            let message = format!("the image {image} is only fetched, and takes no arguments: leave -- out");
            return Err(Stop::usage("fetch", &message));
        }
        let images = images.into_iter().map(|one| (one.image, one.flags.signature)).collect();
        Ok(FetchFlags { images, full: self.full })
    }
}
