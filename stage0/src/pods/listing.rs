//! What a list of many pods shows of their apps: a small part of their manifests, and only that is parsed.

use pod::pod_manifest::RuntimeImage;
use pod::types::AcName;
use serde::Deserialize;

/// An app, as lists show it.
#[derive(Debug, PartialEq, Deserialize)]
pub struct ListedApp {
    /// Its name.
    pub name: AcName,
    /// Its image.
    pub image: RuntimeImage,
}

#[derive(Deserialize)]
struct ListedPod {
    apps: Vec<ListedApp>,
}

/// The apps of a pod by its manifest; `None` if that is none.
pub fn apps(manifest: &[u8]) -> Option<Vec<ListedApp>> {
    // Of text, and not of bytes, no string is checked once more by itself.
    let pod: ListedPod = serde_json::from_str(std::str::from_utf8(manifest).ok()?).ok()?;
    Some(pod.apps)
}

#[cfg(test)]
mod tests {
    use pod::pod_manifest::PodManifest;

    use super::*;

    #[test]
    fn what_is_listed_is_what_the_manifest_says() {
        let json = br#"{"acKind":"PodManifest","acVersion":"0.8.11","volumes":[],"apps":[{"name":"a","mounts":[],"image":
            {"id":"sha512-0000000000000000000000000000000000000000000000000000000000000000","name":"example.com/a",
            "labels":[{"name":"version","value":"1"}]},"app":{"exec":["/x"],"user":"0","group":"0"}}]}"#;
        let manifest = PodManifest::parse(json).unwrap();
        let listed = apps(json).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!((&listed[0].name, &listed[0].image), (&manifest.apps[0].name, &manifest.apps[0].image));
        for bad in [&b""[..], b"{}", b"\xff", br#"{"apps":[{"name":"A b","image":{}}]}"#] {
            assert_eq!(apps(bad), None);
        }
    }
}
