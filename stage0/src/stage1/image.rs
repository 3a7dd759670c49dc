//! Finds the image that is to be a pod's stage1, and brings it into the store.

use std::error::Error;
use std::path::{Path, PathBuf};

use pod::abi::Interface;
use pod::image_manifest::ImageManifest;

use crate::cli::{Globals, Stage1Image};
use crate::image_name::{ImageName, local_file};
use crate::store::{Image, Store};
use crate::{commands, config};

/// Where stage1 images are unless the configuration says otherwise. What is there needs no signature: it is installed as rkt is.
const DEFAULT_DIRECTORY: &str = "/usr/lib/rkt/stage1-images";

/// Why there is no such stage1.
#[derive(Debug, thiserror::Error)]
enum NotFound {
    #[error(
        "there is no stage1 \"{0}\": neither is it kvm, nspawn or fly, nor has an image in the store this name (rkt image list shows them), \
        and finding images by name in the network is not there yet"
    )]
    Name(String),
    #[error("the configured stage1 {0} is not in the store, and its location cannot be used: {1}")]
    Location(String, String),
    #[error("the configured stage1 is {configured}, but the image at its location {location} is {found}")]
    Other { configured: String, location: String, found: String },
    #[error("the configured stage1 {0} is not in the store, and no location is configured for it")]
    NoLocation(String),
}

/// Finds the image, importing it if need be, and what it says of itself.
pub fn find(
    globals: &Globals,
    store: &Store,
    wanted: &Stage1Image,
) -> Result<(Image, Interface), Box<dyn Error>> {
    let image = match wanted {
        Stage1Image::Id(id) => store.by_id(id)?,
        Stage1Image::Name(name) => store.by_name(name)?.ok_or_else(|| NotFound::Name(name.to_string()))?,
        Stage1Image::File(path) => import(globals, store, path)?,
        Stage1Image::Installed(file) => installed(globals, store, file)?,
        Stage1Image::Configured { name, location } => {
            configured(globals, store, name.as_deref(), location.as_deref())?
        }
    };
    let interface = Interface::of(&image.manifest)?;
    Ok((store.rendered(image)?, interface))
}

fn installed(globals: &Globals, store: &Store, file: &Path) -> Result<Image, Box<dyn Error>> {
    match config::stage1_images(globals)? {
        Some(directory) => import(globals, store, &directory.join(file)),
        None => import_trusted(globals, store, &Path::new(DEFAULT_DIRECTORY).join(file)),
    }
}

fn configured(
    globals: &Globals,
    store: &Store,
    name: Option<&str>,
    location: Option<&str>,
) -> Result<Image, Box<dyn Error>> {
    if let Some(name) = name
        && let Some(image) = store.by_name(&ImageName::parse(name)?)?
    {
        return Ok(image);
    }
    let shown = name.or(location).unwrap_or_default();
    let location = location.ok_or_else(|| NotFound::NoLocation(shown.into()))?;
    let path = match location.starts_with('/') {
        true => PathBuf::from(location),
        false => local_file(location).map_err(|why| NotFound::Location(shown.into(), why.to_string()))?,
    };
    let image = import(globals, store, &path)?;
    let version = image.manifest.label("version").unwrap_or_default();
    let found = format!("{}:{version}", image.manifest.name);
    match name {
        Some(name) if name != found => {
            let (configured, location) = (name.to_owned(), location.to_owned());
            Err(NotFound::Other { configured, location, found }.into())
        }
        _ => Ok(image),
    }
}

fn import(globals: &Globals, store: &Store, path: &Path) -> Result<Image, Box<dyn Error>> {
    commands::import::import(globals, store, path, None, &mut |_, manifest, _| check(manifest))
}

fn import_trusted(globals: &Globals, store: &Store, path: &Path) -> Result<Image, Box<dyn Error>> {
    let progress = commands::import::progress(globals, path);
    store.import(path, None, &mut |_, manifest, _| check(manifest), &progress)
}

/// An image that is no stage1 is not stored.
fn check(manifest: &ImageManifest) -> Result<(), Box<dyn Error>> {
    Ok(Interface::of(manifest).map(drop)?)
}
