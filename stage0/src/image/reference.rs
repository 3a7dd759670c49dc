//! Names and tags of images, as OCI and Docker write them, in appc's words.

use pod::types::AcIdentifier;

/// An image's name and, if it has one, its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name.
    pub name: AcIdentifier,
    /// The tag.
    pub version: Option<String>,
}

impl Reference {
    /// From `[REGISTRY[:PORT]/]NAME[:TAG][@DIGEST]`. A single word is a tag, as image layouts have it; the name is then
    /// made from `fallback`, the name of the layout's file.
    pub fn parse(text: Option<&str>, fallback: &str) -> Option<Self> {
        let text = text.map(|text| text.split('@').next().unwrap_or(text)).filter(|text| !text.is_empty());
        let (name, version) = match text {
            None => (fallback, None),
            Some(tag) if !tag.contains(['/', ':']) => (fallback, Some(tag)),
            Some(text) => match text.rsplit_once(':') {
                // A colon before the last slash separates a port.
                Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
                _ => (text, None),
            },
        };
        Some(Self { name: identifier(name)?, version: version.map(str::to_owned) })
    }
}

/// The nearest AC Identifier: lower case, everything that it cannot hold a hyphen, no two joints in a row.
fn identifier(text: &str) -> Option<AcIdentifier> {
    let mut result = String::new();
    for c in text.chars().map(|c| c.to_ascii_lowercase()) {
        let joint = match c {
            'a'..='z' | '0'..='9' => {
                result.push(c);
                continue;
            }
            '.' | '_' | '~' | '/' => c,
            _ => '-',
        };
        if !result.is_empty() && result.ends_with(|c: char| c.is_ascii_alphanumeric()) {
            result.push(joint);
        }
    }
    result.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).parse().ok()
}

/// A name for an image from the name of its file: without what says how it is packed.
pub fn stem(file_name: &str) -> &str {
    const SUFFIXES: [&str; 9] = [".gz", ".bz2", ".xz", ".zst", ".tgz", ".tar", ".oci", ".docker", ".aci"];
    let mut stem = file_name;
    while let Some(shorter) = SUFFIXES.iter().find_map(|suffix| stem.strip_suffix(suffix)) {
        stem = shorter;
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let cases = [
            (Some("busybox:1.36"), "busybox", Some("1.36")),
            (Some("docker.io/library/Busybox:latest"), "docker.io/library/busybox", Some("latest")),
            (Some("localhost:5000/team/app"), "localhost-5000/team/app", None),
            (Some("localhost:5000/app:v1@sha256:00"), "localhost-5000/app", Some("v1")),
            (Some("v1"), "file", Some("v1")),
            (Some(""), "file", None),
            (None, "file", None),
            (Some("a__b//c-:x"), "a_b/c", Some("x")),
        ];
        for (text, name, version) in cases {
            let reference = Reference::parse(text, "file").unwrap();
            assert_eq!((reference.name.as_str(), reference.version.as_deref()), (name, version), "{text:?}");
        }
        assert_eq!(Reference::parse(None, "--"), None);
    }

    #[test]
    fn stems() {
        assert_eq!(stem("debian.oci.tar.gz"), "debian");
        assert_eq!(stem("my.app"), "my.app");
        assert_eq!(stem(".tar"), "");
    }
}
