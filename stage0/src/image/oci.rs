//! OCI images: an image layout's and a `docker save` archive's are one thing once their layers are found.

mod config;
mod docker_archive;
mod layer;
mod layout;
mod spec;
mod user;

use std::fmt::Write as _;
use std::fs::File;

use erofs::Writer;
use pod::image_manifest::ImageManifest;
use pod::types::ImageId;

use super::bundle::Bundle;
use super::digest::{Digest, image_id, sha512};
use super::error::Error;
use super::reference::Reference;
use crate::progress::Progress;
use spec::Config;

/// The most layers that an image may have; overlay file systems, which images are built on, end at 128 or so.
const MAX_LAYERS: usize = 512;

/// An image whose parts are known, and not yet read but for its configuration.
pub struct Image {
    reference: Reference,
    config: Config,
    config_digest: Digest,
    layers: Vec<Layer>,
}

/// One layer.
struct Layer {
    /// The file's name in the bundle.
    name: String,
    /// What the file must be, if somebody says.
    blob: Option<Blob>,
    /// The digest of the uncompressed archive.
    diff_id: Digest,
}

/// What a descriptor says of a file.
struct Blob {
    digest: Digest,
    size: u64,
}

impl Image {
    /// Finds the image in an image layout or a `docker save` archive; an archive that is both is taken for the layout,
    /// in which every file has a digest. `fallback` is the name of an image that has none.
    pub fn find(bundle: &Bundle, fallback: &str) -> Result<Self, Error> {
        if bundle.has("oci-layout") {
            layout::find(bundle, fallback)
        } else if bundle.has("manifest.json") {
            docker_archive::find(bundle, fallback)
        } else {
            Err(Error::Missing(
                "oci-layout (of an OCI image layout) or manifest.json (of docker save)".into(),
            ))
        }
    }

    fn new(
        reference: Option<&str>,
        fallback: &str,
        config_digest: Digest,
        config: Config,
        files: Vec<(String, Option<Blob>)>,
    ) -> Result<Self, Error> {
        config.check_platform()?;
        let diff_ids = &config.rootfs.diff_ids;
        if files.len() != diff_ids.len() {
            let (files, ids) = (files.len(), diff_ids.len());
            return Err(Error::Invalid(format!(
                "the image has {files} layers, its configuration lists {ids}"
            )));
        }
        if files.len() > MAX_LAYERS {
            return Err(Error::Invalid(format!("the image has more than {MAX_LAYERS} layers")));
        }
        let layers = files.into_iter().zip(diff_ids);
        let layers =
            layers.map(|((name, blob), diff_id)| Layer { name, blob, diff_id: diff_id.clone() }).collect();
        let reference = Reference::parse(reference, fallback)
            .or_else(|| Reference::parse(None, "image"))
            .ok_or_else(|| Error::Invalid("the image has no name".into()))?;
        Ok(Self { reference, config, config_digest, layers })
    }

    /// The image's ID: like an ACI's, the first half of a SHA-512, of this text, each line ended by a newline: `oci
    /// image 1` (the number changes with the conversion), `name NAME`, `version TAG` if there is one, `config DIGEST`, and for each layer from the lowest up
    /// `layer DIGEST` (of the uncompressed archive). So it says all that the manifest and the tree are made of.
    pub fn id(&self) -> Result<ImageId, Error> {
        let text = self.canonical_text();
        image_id(&sha512(text.as_bytes())).ok_or_else(|| Error::Invalid("its digest is no SHA-512".into()))
    }

    fn canonical_text(&self) -> String {
        let mut text = format!("oci image 1\nname {}\n", self.reference.name);
        // Writing to a string does not fail.
        if let Some(version) = &self.reference.version {
            let _ = writeln!(text, "version {version}");
        }
        let _ = writeln!(text, "config {}", self.config_digest);
        for layer in &self.layers {
            let _ = writeln!(text, "layer {}", layer.diff_id);
        }
        text
    }

    /// Writes the tree of all layers, the lowest first, and makes the manifest.
    pub fn render(
        &self,
        bundle: &Bundle,
        image: File,
        progress: &Progress,
    ) -> Result<(ImageManifest, File), Error> {
        // What cannot be opened is told when its turn comes.
        let sizes = self.layers.iter().filter_map(|layer| bundle.open(&layer.name).ok());
        progress.begin(sizes.fold(0, |sum: u64, (_, size)| sum.saturating_add(size)));
        let mut writer = Writer::new(image);
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                writer.next_layer();
            }
            layer::apply(&mut writer, bundle, layer, progress)?;
        }
        let (image, _) = writer.finish()?;
        let accounts = user::Accounts::of_image(&image)?;
        Ok((config::manifest(&self.config, &self.reference, &accounts)?, image))
    }
}
