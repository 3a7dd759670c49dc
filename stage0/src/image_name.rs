//! What a user means by an image (upstream's rkt/image/common.go, `DistFromImageString`): an ID, a file, or a name with labels.

use std::fmt;
use std::path::{Path, PathBuf};

use pod::image_manifest::{ImageManifest, NameValue};
use pod::types::AcIdentifier;

/// Why a text means no image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It would have to be fetched.
    #[error(
        "{0} is in the network, and fetching from there is not there yet: download it, and give its path"
    )]
    Remote(String),
    /// Another scheme, or a URL of a file that is no path.
    #[error("{0} is not the URL of a file of this host, file:///PATH")]
    NotAFile(String),
    /// Upstream's internal form.
    #[error("{0} is how CoreOS rkt writes images inside: give the path, the name or the ID of the image")]
    Internal(String),
    /// Not a name with labels.
    #[error("\"{text}\" is neither a file nor the name of an image, NAME[:VERSION][,LABEL=VALUE...]: {what}")]
    Name {
        /// All of it.
        text: String,
        /// What is wrong.
        what: String,
    },
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageReference {
    /// `sha512-...`, or the beginning of one.
    Id(String),
    /// A file or directory of this host.
    File(PathBuf),
    /// Of the store.
    Name(ImageName),
}

/// A name, and the labels that the image must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The name.
    pub name: AcIdentifier,
    /// `version` among them, if one is wanted.
    pub labels: Vec<NameValue>,
}

impl ImageReference {
    /// What `text` means. What could be a path or a name is a file if there is one.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.starts_with("sha512-") {
            return Ok(Self::Id(text.into()));
        }
        if text.starts_with("cimd:") {
            return Err(Error::Internal(text.into()));
        }
        if text.contains("://") || text.starts_with("docker:") {
            return Ok(Self::File(local_file(text)?));
        }
        let path = Path::new(text);
        let looks_like_a_path = text.contains("./") || text.ends_with(".aci");
        if path.is_absolute() || path.exists() || !text.contains(':') && looks_like_a_path {
            return Ok(Self::File(path.into()));
        }
        ImageName::parse(text).map(Self::Name)
    }
}

/// The path that a URL of this host means. Nothing in it is quoted, as it is with upstream.
pub fn local_file(url: &str) -> Result<PathBuf, Error> {
    match url.split_once(':') {
        Some(("file", path)) if path.starts_with("///") => Ok(path.trim_start_matches("//").into()),
        Some(("http" | "https" | "docker", _)) => Err(Error::Remote(url.into())),
        _ => Err(Error::NotAFile(url.into())),
    }
}

impl ImageName {
    /// `NAME[:VERSION][,LABEL=VALUE...]` (appc spec, discovery).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let error = |what: String| Error::Name { text: text.into(), what };
        let mut words = text.split(',');
        let first = words.next().unwrap_or_default();
        let (name, version) = first.split_once(':').map_or((first, None), |(name, v)| (name, Some(v)));
        let identifier = |text: &str| text.parse().map_err(|source: pod::Error| error(source.to_string()));
        let name = identifier(name)?;
        let version = version.map(|value| Ok(("version", value)));
        let labels = words
            .map(|word| word.split_once('=').ok_or_else(|| error(format!("\"{word}\" is not LABEL=VALUE"))));
        let mut all: Vec<NameValue> = Vec::new();
        for label in version.into_iter().chain(labels) {
            let (label, value) = label?;
            let label = NameValue { name: identifier(label)?, value: value.into() };
            if all.iter().any(|known| known.name == label.name) {
                return Err(error(format!("the label \"{}\" stands twice", label.name)));
            }
            all.push(label);
        }
        Ok(Self { name, labels: all })
    }

    /// Whether an image has the name and the labels.
    pub fn fits(&self, image: &ImageManifest) -> bool {
        image.name == self.name && self.labels.iter().all(|label| image.labels.contains(label))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        for (index, NameValue { name, value }) in self.labels.iter().enumerate() {
            match (index, name.as_str()) {
                (0, "version") => write!(f, ":{value}")?,
                _ => write!(f, ",{name}={value}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels() {
        for text in ["a", "example.com/a:1.2", "example.com/a,arch=amd64", "a:latest,os=linux,x=y"] {
            assert_eq!(ImageName::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(ImageName::parse("a,version=1").unwrap(), ImageName::parse("a:1").unwrap());
        for (text, word) in [
            ("", "AC Identifier"),
            ("A", "AC Identifier"),
            ("a,b", "LABEL=VALUE"),
            ("a,B=c", "AC Identifier"),
            ("a:1,version=2", "twice"),
            ("a,b=c,b=d", "twice"),
        ] {
            let error = ImageName::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn what_a_text_means() {
        let home = tempfile::tempdir().unwrap();
        let there = home.path().join("a:b");
        std::fs::write(&there, "").unwrap();
        let there = there.to_str().unwrap();
        let file = |path: &str| Ok(ImageReference::File(path.into()));
        let name = |text: &str| Ok(ImageReference::Name(ImageName::parse(text).unwrap()));
        for (text, expected) in [
            ("sha512-00", Ok(ImageReference::Id("sha512-00".into()))),
            ("/no/such", file("/no/such")),
            (there, file(there)),
            ("./a", file("./a")),
            ("a.aci", file("a.aci")),
            ("file:///a/b", file("/a/b")),
            ("example.com/a", name("example.com/a")),
            ("example.com/./a:1", Err(())),
            ("my-app:v1", name("my-app:v1")),
        ] {
            assert_eq!(ImageReference::parse(text).map_err(drop), expected, "{text}");
        }
    }

    #[test]
    fn urls_of_this_host_only() {
        for (url, word) in [
            ("https://example.com/a.aci", "not there yet"),
            ("docker://busybox", "not there yet"),
            ("docker:busybox", "not there yet"),
            ("file://host/a.aci", "file:///PATH"),
            ("ftp://a", "file:///PATH"),
            ("cimd:appc:v=0:a", "inside"),
        ] {
            let error = ImageReference::parse(url).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains(url), "{error}");
        }
    }
}
