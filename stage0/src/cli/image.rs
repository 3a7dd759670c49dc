//! The arguments of `rkt image`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::values;
use super::{ListFlags, PrettyPrint};

// What to do with the images of the store. IMAGE is an ID, the beginning of one, or a name, NAME[:VERSION][,LABEL=VALUE...].
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ImageCommand {
    /// List images
    List(ImageListFlags),
    /// Remove images
    ///
    /// Pods that have them keep them.
    Rm {
        /// IDs, unique beginnings of them, or names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Remove images that no pod has and that nobody has used for a time
    Gc {
        /// How long images stay after they were last used or imported: 90s, 30m, 24h
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = values::duration)]
        grace_period: Duration,
    },
    /// Find out whether images are still what they were, and make them again if they are not
    ///
    /// They are made from the files that they were imported from.
    Verify {
        /// IDs, unique beginnings of them, or names
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Write an image to a file, as an uncompressed ACI
    Export {
        /// Replace the file if it is there
        #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
        #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
        overwrite: bool,
        /// An ID, a unique beginning of one, or a name
        image: String,
        /// The file
        output: PathBuf,
    },
    /// Unpack an image to a directory: manifest and rootfs
    Extract(TreeFlags),
    /// Unpack an image to a directory with everything that it depends on: manifest and rootfs
    Render(TreeFlags),
    /// Upstream's
    #[command(hide = true)]
    Fetch {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _words: Vec<String>,
    },
    /// Print an image's manifest
    CatManifest {
        #[command(flatten)]
        form: PrettyPrint,
        /// An ID, a unique beginning of one, or a name
        image: String,
    },
}

// What of the images to print, and in which order.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ImageListFlags {
    #[command(flatten)]
    pub list: ListFlags,
    /// The columns
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FIELD,...")]
    #[arg(default_value = "id,name,size,importtime,lastused")]
    pub fields: Vec<ImageField>,
    /// The column to sort by; not the ID
    #[arg(long, value_parser = sort_field, value_name = "FIELD", default_value = "importtime")]
    pub sort: ImageField,
    /// The direction
    #[arg(long, value_enum, default_value = "asc")]
    pub order: Order,
}

/// What is known of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageField {
    Id,
    Name,
    Size,
    /// When it came into the store.
    #[value(name = "importtime")]
    ImportTime,
    /// When a pod last got it.
    #[value(name = "lastused")]
    LastUsed,
}

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    Asc,
    Desc,
}

fn sort_field(text: &str) -> Result<ImageField, String> {
    match ImageField::from_str(text, false) {
        Ok(field) if field != ImageField::Id => Ok(field),
        _ => Err("images are sorted by importtime, lastused, name or size".into()),
    }
}

// Where to unpack an image.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct TreeFlags {
    /// Only what is in the root file system, without the manifest
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub rootfs_only: bool,
    /// Replace the directory if it is there
    #[arg(long, num_args = 0..=1, require_equals = true, value_name = "BOOL", value_parser = values::boolean())]
    #[arg(default_value = "false", default_missing_value = "true", action = clap::ArgAction::Set)]
    pub overwrite: bool,
    /// An ID, a unique beginning of one, or a name
    pub image: String,
    /// The directory, which is made
    #[arg(value_name = "DIR")]
    pub output: PathBuf,
}
