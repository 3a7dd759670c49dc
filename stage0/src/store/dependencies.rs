//! The images that an image's root is made of: itself, above all that it depends on (appc spec, "Dependency Matching";
//! upstream's order is that of pkg/acirenderer).

use std::collections::HashSet;

use pod::image_manifest::{Dependency, ImageManifest};
use pod::types::ImageId;

use super::{Error, Image, Store};
use crate::image_name::ImageName;

/// The longest way down from an image; one that depends on itself is found first.
const MAX_DEPTH: usize = 64;
/// The most images that a root is made of. One that is reached on several ways counts as often.
const MAX_PARTS: usize = 512;

/// The paths that are kept of an image's root, without their first slash; none is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whitelist(HashSet<Vec<u8>>);

impl Whitelist {
    fn of(manifest: &ImageManifest) -> Self {
        let paths = manifest.path_whitelist.iter().map(|path| path.trim_matches('/').as_bytes().to_vec());
        Self(paths.collect())
    }

    /// Whether it has nothing against a path.
    pub fn has(&self, path: &[u8]) -> bool {
        self.0.is_empty() || self.0.contains(path)
    }

    fn is_all(&self) -> bool {
        self.0.is_empty()
    }
}

/// An image as a part of another one's root.
#[derive(Clone, Debug)]
pub struct Part {
    /// The image.
    pub image: Image,
    /// What it says itself that is kept of its files. Its directories all are.
    pub own: Whitelist,
    /// What the uppermost image that depends on it and says anything says of all of it.
    pub above: Whitelist,
}

impl Store {
    /// What an image's root is made of, the lowest first and the image itself last. Where an image is reached on two ways it is
    /// there twice, since different lists may be above it.
    pub fn parts(&self, image: &Image) -> Result<Vec<Part>, Error> {
        let mut parts = Vec::new();
        self.collect_parts(image, &Whitelist::default(), &mut Vec::new(), &mut parts)?;
        Ok(parts)
    }

    fn collect_parts(
        &self,
        image: &Image,
        above: &Whitelist,
        way: &mut Vec<ImageId>,
        parts: &mut Vec<Part>,
    ) -> Result<(), Error> {
        let refused = |what| Error::Dependencies { id: image.id.clone(), what };
        if way.contains(&image.id) {
            return Err(refused("it depends on itself".into()));
        }
        if way.len() >= MAX_DEPTH || parts.len() >= MAX_PARTS {
            return Err(refused(format!(
                "more than {MAX_PARTS} images, or more than {MAX_DEPTH} of them in a row"
            )));
        }
        let own = Whitelist::of(&image.manifest);
        let of_lower = if above.is_all() { &own } else { above };
        way.push(image.id.clone());
        for dependency in &image.manifest.dependencies {
            let lower = self.matching(dependency)?.ok_or_else(|| Error::NoDependency {
                image: image.manifest.name.to_string(),
                dependency: text(dependency),
            })?;
            self.collect_parts(&lower, of_lower, way, parts)?;
        }
        way.pop();
        parts.push(Part { image: image.clone(), own, above: above.clone() });
        Ok(())
    }

    /// The image of the store that a dependency means: of several the one imported last.
    fn matching(&self, dependency: &Dependency) -> Result<Option<Image>, Error> {
        let wanted = wanted(dependency);
        match &dependency.image_id {
            None => self.by_name(&wanted),
            Some(id) => match self.by_id(id) {
                Err(Error::NoSuchId(_)) => Ok(None),
                found => Ok(Some(found?).filter(|image| wanted.fits(&image.manifest))),
            },
        }
    }
}

fn wanted(dependency: &Dependency) -> ImageName {
    ImageName { name: dependency.image_name.clone(), labels: dependency.labels.clone() }
}

/// A dependency as people write it.
fn text(dependency: &Dependency) -> String {
    let id = dependency.image_id.as_ref().map(|id| format!(" ({id})"));
    format!("{}{}", wanted(dependency), id.unwrap_or_default())
}
