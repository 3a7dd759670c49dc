//! Which stage1 a pod gets: one of rkt's own, or an image of anybody's that speaks the interface.

use std::path::{Path, PathBuf};

use clap::Args;

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
    /// The store, by its name, `NAME[:VERSION]`.
    Name(String),
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
    /// An image of a stage1 in the store, by its name: NAME[:VERSION]
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

/// One of ours, or upstream's guess at what a word without a scheme is (rkt/image/common.go, `guessAppcOrPath`).
fn choice(text: &str) -> Result<Stage1Choice, String> {
    if let Some(ours) = Stage1::named(text) {
        return Ok(Stage1Choice::Ours(ours));
    }
    if text.starts_with("sha512-") {
        return by_id(text);
    }
    if text.contains("://") {
        return by_url(text);
    }
    let path = Path::new(text);
    let is_file = path.is_absolute() || path.is_file();
    let is_name = text.contains(':');
    if is_file || !is_name && (text.contains("./") || text.ends_with(".aci")) {
        by_path(text)
    } else {
        by_name(text)
    }
}

fn by_name(text: &str) -> Result<Stage1Choice, String> {
    match Stage1::named(text) {
        _ if text.is_empty() => Err("it must be the name of an image".into()),
        Some(ours) => Ok(Stage1Choice::Ours(ours)),
        None => Ok(Stage1Choice::Image(Stage1Image::Name(text.into()))),
    }
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
    Ok(Stage1Choice::Image(Stage1Image::File(local_file(text)?)))
}

/// The path that a URL of this host means. Nothing in it is quoted, as it is with upstream.
pub fn local_file(url: &str) -> Result<PathBuf, String> {
    match url.split_once("://") {
        Some(("file", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("file", _)) => Err(format!("{url} is not the URL of a file of this host, file:///PATH")),
        Some(("http" | "https" | "docker", _)) => Err(format!(
            "{url} is in the network, and fetching from there is not there yet: download it, and give its path"
        )),
        _ => Err(format!("{url} is not a URL of the form file:///PATH")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_word_means() {
        let image = |image| Ok(Stage1Choice::Image(image));
        let home = tempfile::tempdir().unwrap();
        let there = home.path().join("stub");
        std::fs::write(&there, "").unwrap();
        let there = there.to_str().unwrap();
        for (text, expected) in [
            ("kvm", Ok(Stage1Choice::Ours(Stage1::Kvm))),
            ("rkt/stage1-fly", Ok(Stage1Choice::Ours(Stage1::Fly))),
            ("example.com/stub", image(Stage1Image::Name("example.com/stub".into()))),
            ("example.com/stub:1", image(Stage1Image::Name("example.com/stub:1".into()))),
            ("example.com/./stub:1", image(Stage1Image::Name("example.com/./stub:1".into()))),
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
    fn urls_of_this_host_only() {
        for (url, word) in [
            ("https://example.com/a.aci", "not there yet"),
            ("docker://busybox", "not there yet"),
            ("file://host/a.aci", "file:///PATH"),
            ("ftp://a", "file:///PATH"),
            ("/a", "file:///PATH"),
        ] {
            let error = by_url(url).unwrap_err();
            assert!(error.contains(word) && error.contains(url), "{error}");
        }
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
