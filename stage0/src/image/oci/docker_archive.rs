//! What `docker save` writes: `manifest.json`, which names a configuration and the layers' archives.

use super::spec::{Config, SavedImage, parse};
use super::{Blob, Image};
use crate::image::bundle::Bundle;
use crate::image::digest::Digest;
use crate::image::error::Error;

/// Finds the archive's one image.
pub fn find(bundle: &Bundle, fallback: &str) -> Result<Image, Error> {
    let images: Vec<SavedImage> = parse("manifest.json", &bundle.read("manifest.json")?)?;
    let count = images.len();
    let [saved] = <[SavedImage; 1]>::try_from(images)
        .map_err(|_| Error::Invalid(format!("manifest.json lists {count} images; save exactly one")))?;
    let json = bundle.read(&saved.config)?;
    let config: Config = parse(&saved.config, &json)?;
    let reference = saved.repo_tags.iter().flatten().next().map(String::as_str);
    // The layers have no digests of their own here; those of the configuration hold for what is in them.
    let layers: Vec<(String, Option<Blob>)> = saved.layers.into_iter().map(|name| (name, None)).collect();
    Image::new(reference, fallback, Digest::sha256(&json), config, layers)
}
