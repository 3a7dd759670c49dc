//! What users note about pods and apps for tools of their own; rkt only keeps it, and tells it in JSON.

use clap::Args;

use super::values;

// A user's notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct NoteFlags {
    /// A note for tools of the user's own, which rkt list and rkt status tell
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair)]
    pub user_annotation: Vec<(String, String)>,
    /// A label for the user's own tools to select by
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair)]
    pub user_label: Vec<(String, String)>,
}
