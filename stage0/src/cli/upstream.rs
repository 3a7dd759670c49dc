//! Flags and commands of upstream's that there are not, and why.

use clap::Args;

// Of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct NotHere {
    /// Upstream's, for a pod whose apps have copies of their images
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, value_name = "BOOL")]
    #[arg(value_parser = no_overlay, default_missing_value = "true")]
    no_overlay: Option<bool>,
}

fn no_overlay(text: &str) -> Result<bool, String> {
    match pod::boolean::parse(text) {
        Some(false) => Ok(false),
        _ => Err(
            "no app has a copy of its image here: its root is an overlay over the one image in the store, \
            in user namespaces, too; rkt doctor tells whether this host can do that"
                .into(),
        ),
    }
}

/// `--cpuprofile` and `--memprofile`.
pub fn no_profile(_: &str) -> Result<String, String> {
    Err("there is no profiler in rkt; --timeline tells where the time of a start goes".into())
}

/// `rkt api-service`.
pub const NO_API_SERVICE: &str = "there is no such service: rkt list, rkt status and rkt image list tell programs everything with --format=json";
