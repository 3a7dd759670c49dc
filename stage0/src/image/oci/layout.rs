//! The OCI image layout: `oci-layout`, `index.json` and blobs by digest (OCI image spec, "Image Layout").

use super::spec::{Config, Descriptor, Index, LayoutVersion, Manifest, Platform, parse};
use super::{Blob, Image};
use crate::image::bundle::Bundle;
use crate::image::digest::{Digest, Hashed};
use crate::image::error::Error;

/// How deep indexes may stand in one another.
const MAX_DEPTH: u32 = 4;
/// Annotations that name an image, the fullest name first.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYER_TYPES: [&str; 3] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
];

/// Finds the image for this machine.
pub fn find(bundle: &Bundle, fallback: &str) -> Result<Image, Error> {
    let version: LayoutVersion = parse("oci-layout", &bundle.read("oci-layout")?)?;
    if !version.image_layout_version.starts_with("1.") {
        let version = version.image_layout_version;
        return Err(Error::Unsupported(format!("version {version:?} of the image layout is")));
    }
    let index: Index = parse("index.json", &bundle.read("index.json")?)?;
    let (mut descriptor, reference) = choose_image(&index)?;
    for _ in 0..MAX_DEPTH {
        let json = read_blob(bundle, &descriptor)?;
        let name = descriptor.digest.blob_path();
        if INDEX_TYPES.contains(&descriptor.media_type.as_str()) {
            let index: Index = parse(&name, &json)?;
            descriptor = choose_platform(&index)
                .cloned()
                .ok_or_else(|| Error::Invalid(format!("{name} lists no image for linux/amd64")))?;
        } else {
            return image(bundle, &parse(&name, &json)?, reference.as_deref(), fallback);
        }
    }
    Err(Error::Invalid(format!("index.json leads to more than {MAX_DEPTH} indexes in one another")))
}

/// The one image of the layout; of several the user would have to say which.
fn choose_image(index: &Index) -> Result<(Descriptor, Option<String>), Error> {
    let mut candidates: Vec<&Descriptor> = index.manifests.iter().filter(|one| may_run(one)).collect();
    let names: Vec<String> = candidates.iter().filter_map(|one| name(one)).collect();
    candidates.dedup_by(|one, other| one.digest == other.digest);
    match candidates.as_slice() {
        [one] => Ok(((*one).clone(), names.into_iter().next())),
        [] => Err(Error::Invalid("index.json lists no image for linux/amd64".into())),
        _ => Err(Error::Invalid(format!(
            "index.json lists {} images ({}); make a layout with one of them",
            candidates.len(),
            names.join(", ")
        ))),
    }
}

/// The first match is the one to take (OCI image spec, "Image Index").
fn choose_platform(index: &Index) -> Option<&Descriptor> {
    let ours = |one: &&Descriptor| one.platform.as_ref().is_some_and(is_ours);
    index.manifests.iter().find(ours).or_else(|| index.manifests.iter().find(|one| one.platform.is_none()))
}

/// Whether a descriptor is for this machine, or leaves it to the image's configuration.
fn may_run(descriptor: &Descriptor) -> bool {
    descriptor.platform.as_ref().is_none_or(is_ours)
}

fn is_ours(platform: &Platform) -> bool {
    platform.os == "linux" && platform.architecture == "amd64"
}

fn name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    NAME_ANNOTATIONS.iter().find_map(|key| annotations.get(*key)).cloned()
}

fn image(
    bundle: &Bundle,
    manifest: &Manifest,
    reference: Option<&str>,
    fallback: &str,
) -> Result<Image, Error> {
    let media_type = &manifest.config.media_type;
    if !CONFIG_TYPES.contains(&media_type.as_str()) {
        return Err(Error::Invalid(format!("it holds {media_type:?}, not a container image")));
    }
    let name = manifest.config.digest.blob_path();
    let config: Config = parse(&name, &read_blob(bundle, &manifest.config)?)?;
    let layers = manifest.layers.iter().map(layer).collect::<Result<_, _>>()?;
    Image::new(reference, fallback, manifest.config.digest.clone(), config, layers)
}

fn layer(descriptor: &Descriptor) -> Result<(String, Option<Blob>), Error> {
    let media_type = &descriptor.media_type;
    let suffix = LAYER_TYPES.iter().find_map(|prefix| media_type.strip_prefix(prefix));
    if !matches!(suffix, Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd")) {
        return Err(Error::Unsupported(format!("a layer of the type {media_type:?} is")));
    }
    let blob = Blob { digest: descriptor.digest.clone(), size: descriptor.size };
    Ok((descriptor.digest.blob_path(), Some(blob)))
}

/// A small blob, checked.
fn read_blob(bundle: &Bundle, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
    let name = descriptor.digest.blob_path();
    let data = bundle.read(&name)?;
    let hashed = Hashed::new(&data[..], descriptor.digest.hasher());
    let (actual, size) = hashed.finish().map_err(Error::read(&name))?;
    check_blob(&name, &Blob { digest: descriptor.digest.clone(), size: descriptor.size }, &actual, size)?;
    Ok(data)
}

/// Whether a blob is what its descriptor says.
pub fn check_blob(name: &str, blob: &Blob, actual: &Digest, size: u64) -> Result<(), Error> {
    if size != blob.size {
        return Err(Error::Size { what: name.into(), expected: blob.size, actual: size });
    }
    if *actual != blob.digest {
        let expected = blob.digest.clone();
        return Err(Error::Digest { what: name.into(), expected, actual: actual.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[Option<(&str, &str)>]) -> Index {
        let descriptor = |(number, platform): (usize, &Option<(&str, &str)>)| Descriptor {
            media_type: String::new(),
            digest: Digest::sha256(&[number as u8]),
            size: number as u64,
            platform: platform
                .map(|(os, architecture)| Platform { os: os.into(), architecture: architecture.into() }),
            annotations: Some([(NAME_ANNOTATIONS[1].to_owned(), format!("t{number}"))].into()),
        };
        Index { manifests: platforms.iter().enumerate().map(descriptor).collect() }
    }

    const AMD64: Option<(&str, &str)> = Some(("linux", "amd64"));
    const ARM64: Option<(&str, &str)> = Some(("linux", "arm64"));
    const ATTESTATION: Option<(&str, &str)> = Some(("unknown", "unknown"));

    #[test]
    fn the_platform_decides() {
        let size = |platforms: &[_]| choose_platform(&index(platforms)).map(|one| one.size);
        assert_eq!(size(&[ARM64, AMD64, ATTESTATION, AMD64]), Some(1));
        assert_eq!(size(&[ARM64, None]), Some(1));
        assert_eq!(size(&[ARM64, ATTESTATION]), None);
    }

    #[test]
    fn one_image_of_a_layout() {
        let chosen = choose_image(&index(&[ARM64, AMD64, ATTESTATION])).unwrap();
        assert_eq!((chosen.0.size, chosen.1.as_deref()), (1, Some("t1")));
        assert!(choose_image(&index(&[ARM64])).unwrap_err().to_string().contains("linux/amd64"));
        let error = choose_image(&index(&[None, None])).unwrap_err().to_string();
        assert!(error.contains("t0, t1"), "{error}");
    }

    #[test]
    fn layer_types() {
        let layer_of = |media_type: &str| {
            let mut descriptor = index(&[None]).manifests.remove(0);
            descriptor.media_type = media_type.into();
            layer(&descriptor)
        };
        for good in [
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            assert!(layer_of(good).is_ok(), "{good}");
        }
        for bad in ["", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "text/plain"] {
            assert!(layer_of(bad).is_err(), "{bad}");
        }
    }
}
