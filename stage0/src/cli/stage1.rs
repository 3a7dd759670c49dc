//! Which stage1 a pod gets: one of rkt's own, or an image of anybody's that speaks the interface.

use std::path::PathBuf;

use clap::Args;

use crate::image_name::{ImageName, ImageReference, local_file};

/// The isolation, of rkt's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage1 {
    /// A micro-VM with a kernel of its own.
    Kvm,
    /// Linux namespaces and cgroups.
    #[default]
    Nspawn,
    /// No isolation: one app with a root of its own, and all else of the host.
    Fly,
}

impl Stage1 {
    const ALL: [Self; 3] = [Self::Kvm, Self::Nspawn, Self::Fly];

    /// The one that is called so: `kvm`, or by the name in its manifest, `rkt/stage1-kvm`.
    pub fn named(text: &str) -> Option<Self> {
        let short = |stage1: Self| text == stage1.name();
        let long = |stage1: Self| text.strip_prefix("rkt/") == Some(stage1.binary_name());
        Self::ALL.into_iter().find(|stage1| short(*stage1) || long(*stage1))
    }
}

/// What a user or the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage1Choice {
    /// One of rkt's own.
    Ours(Stage1),
    /// An image.
    Image(Stage1Image),
}

/// Where an image that is a stage1 comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage1Image {
    /// A file of the host.
    File(PathBuf),
    /// The store, by its name.
    Name(ImageName),
    /// The store, by its ID or the beginning of one.
    Id(String),
    /// The directory of stage1 images that is configured, by the file's name.
    Installed(PathBuf),
    /// What is configured: the store, by a name with its version, and if it is not there, the place that it can be had from.
    Configured {
        /// `NAME:VERSION`.
        name: Option<String>,
        /// A path, or a URL.
        location: Option<String>,
    },
}

// Flags of which a pod has one at most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[group(multiple = false)]
pub struct Stage1Flags {
    /// The isolation: kvm (a micro-VM with a kernel of its own), nspawn (Linux namespaces), fly (none but a root of its own), or an
    /// image of a stage1, by its path or its name in the store; what is configured by default, or nspawn
    #[arg(long, value_name = "kvm|nspawn|fly|IMAGE", value_parser = choice)]
    stage1: Option<Stage1Choice>,
    /// An image of a stage1 in the store, by its name: NAME[:VERSION][,LABEL=VALUE...]
    #[arg(long, value_name = "NAME", value_parser = by_name)]
    stage1_name: Option<Stage1Choice>,
    /// An image of a stage1, by its path
    #[arg(long, value_name = "FILE", value_parser = by_path)]
    stage1_path: Option<Stage1Choice>,
    /// An image of a stage1 in the store, by its ID or a unique beginning of it
    #[arg(long, value_name = "ID", value_parser = by_id)]
    stage1_hash: Option<Stage1Choice>,
    /// An image of a stage1 in the directory of such images (/usr/lib/rkt/stage1-images unless configured), by its file's name
    #[arg(long, value_name = "FILE", value_parser = from_directory)]
    stage1_from_dir: Option<Stage1Choice>,
    /// An image of a stage1, by its URL: file:///PATH
    #[arg(long, value_name = "URL", value_parser = by_url)]
    stage1_url: Option<Stage1Choice>,
}

impl Stage1Flags {
    /// The one that is given.
    pub fn choice(&self) -> Option<&Stage1Choice> {
        let Self { stage1, stage1_name, stage1_path, stage1_hash, stage1_from_dir, stage1_url } = self;
        let all = [stage1, stage1_name, stage1_path, stage1_hash, stage1_from_dir, stage1_url];
        all.into_iter().find_map(Option::as_ref)
    }
}

/// One of ours, or what the word means elsewhere.
fn choice(text: &str) -> Result<Stage1Choice, String> {
    if let Some(ours) = Stage1::named(text) {
        return Ok(Stage1Choice::Ours(ours));
    }
    Ok(Stage1Choice::Image(match ImageReference::parse(text).map_err(|error| error.to_string())? {
        ImageReference::Id(id) => Stage1Image::Id(id),
        ImageReference::File(path) => Stage1Image::File(path),
        ImageReference::Name(name) => Stage1Image::Name(name),
    }))
}

fn by_name(text: &str) -> Result<Stage1Choice, String> {
    if let Some(ours) = Stage1::named(text) {
        return Ok(Stage1Choice::Ours(ours));
    }
    let name = ImageName::parse(text).map_err(|error| error.to_string())?;
    Ok(Stage1Choice::Image(Stage1Image::Name(name)))
}

fn by_path(text: &str) -> Result<Stage1Choice, String> {
    if text.is_empty() {
        return Err("it must be the path of an image".into());
    }
    Ok(Stage1Choice::Image(Stage1Image::File(text.into())))
}

fn by_id(text: &str) -> Result<Stage1Choice, String> {
    if !text.starts_with("sha512-") {
        return Err("an image's ID begins with sha512-".into());
    }
    Ok(Stage1Choice::Image(Stage1Image::Id(text.into())))
}

fn from_directory(text: &str) -> Result<Stage1Choice, String> {
    let path = PathBuf::from(text);
    match path.file_name() {
        Some(name) if name == path.as_os_str() => Ok(Stage1Choice::Image(Stage1Image::Installed(path))),
        _ => {
            Err("it must be the name of a file in the directory of stage1 images; --stage1-path takes a path"
                .into())
        }
    }
}

fn by_url(text: &str) -> Result<Stage1Choice, String> {
    let path = local_file(text).map_err(|error| error.to_string())?;
    Ok(Stage1Choice::Image(Stage1Image::File(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_word_means() {
        let image = |image| Ok(Stage1Choice::Image(image));
        let name = |text| image(Stage1Image::Name(ImageName::parse(text).unwrap()));
        let home = tempfile::tempdir().unwrap();
        let there = home.path().join("stub");
        std::fs::write(&there, "").unwrap();
        let there = there.to_str().unwrap();
        for (text, expected) in [
            ("kvm", Ok(Stage1Choice::Ours(Stage1::Kvm))),
            ("rkt/stage1-fly", Ok(Stage1Choice::Ours(Stage1::Fly))),
            ("example.com/stub", name("example.com/stub")),
            ("example.com/stub:1", name("example.com/stub:1")),
            ("./stub", image(Stage1Image::File("./stub".into()))),
            ("stub.aci", image(Stage1Image::File("stub.aci".into()))),
            (there, image(Stage1Image::File(there.into()))),
            ("file:///a/b", image(Stage1Image::File("/a/b".into()))),
            ("sha512-00", image(Stage1Image::Id("sha512-00".into()))),
        ] {
            assert_eq!(choice(text), expected, "{text}");
        }
        assert!(choice("").is_err());
    }

    #[test]
    fn names_and_not_paths() {
        assert_eq!(from_directory("a.aci"), Ok(Stage1Choice::Image(Stage1Image::Installed("a.aci".into()))));
        for bad in ["", "a/b", "/a", "..", "../a", "a/"] {
            assert!(from_directory(bad).is_err(), "{bad}");
        }
        assert!(by_id("00").is_err() && by_name("").is_err() && by_path("").is_err());
    }
}
