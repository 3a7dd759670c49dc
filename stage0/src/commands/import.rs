//! What comes into the store: images that somebody has signed who is trusted for them, or that the user trusts as they are.

use std::error::Error;
use std::path::{Path, PathBuf};

use pod::image_manifest::ImageManifest;

use crate::cli::{Globals, PullPolicy};
use crate::image::digest::Digest;
use crate::progress::Progress;
use crate::store::{Accept, Image, Store};
use crate::trust::Signatures;
use crate::trust::keystore::KeyStore;

/// Why an image's signature cannot be verified, or is not to be.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(
        "{} is not signed: there is no {}, and --signature=FILE names no other; if you trust the image, say --insecure-options=image",
        image.display(), signature.display()
    )]
    Unsigned { image: PathBuf, signature: PathBuf },
    #[error(
        "{} is a directory, of which there are no signatures: if you trust the image, say --insecure-options=image", .0.display()
    )]
    Directory(PathBuf),
    #[error(
        "--signature is of no use with --insecure-options=image, by which no signature is verified: leave one of them out"
    )]
    Contradiction,
    #[error("{0} is in the store, where images need no signature: --signature is for files")]
    Stored(String),
    #[error(
        "--pull-policy=update asks for {0} in the network, and fetching from there is not there yet: --pull-policy=new takes it from the store"
    )]
    Update(String),
}

/// Whether the flags of an image fit one that the user means by a name or an ID, not by a file.
pub fn check_stored(image: &str, signature: Option<&Path>, pull: PullPolicy) -> Result<(), Box<dyn Error>> {
    match (signature, pull) {
        (Some(_), _) => Err(Refused::Stored(image.into()).into()),
        (None, PullPolicy::Update) if !image.starts_with("sha512-") => {
            Err(Refused::Update(image.into()).into())
        }
        _ => Ok(()),
    }
}

/// The image that a file is, imported unless the store has it. What comes into the store has been signed by somebody who is trusted
/// for it, unless the user says that this does not matter. A file that was verified, and has not changed since, is not looked at again.
pub fn import(
    globals: &Globals,
    store: &Store,
    path: &Path,
    signature: Option<&Path>,
    accept: Accept<'_, Box<dyn Error>>,
) -> Result<Image, Box<dyn Error>> {
    let progress = progress(globals, path);
    if globals.insecure.image {
        return match signature {
            Some(_) => Err(Refused::Contradiction.into()),
            None => store.import(path, None, accept, &progress),
        };
    }
    if signature.is_none()
        && let Some(image) = store.verified(path)?
    {
        return Ok(image);
    }
    if path.is_dir() {
        return Err(Refused::Directory(path.into()).into());
    }
    let beside = signature_beside(path);
    let signature = signature.unwrap_or(&beside);
    if signature == beside && !beside.exists() {
        return Err(Refused::Unsigned { image: path.into(), signature: beside }.into());
    }
    let signatures = Signatures::read(signature)?;
    let keys = KeyStore::of(globals);
    let mut verify = |manifest: &ImageManifest, archive: &Digest| -> Result<(), Box<dyn Error>> {
        let name = manifest.name.as_str();
        Ok(signatures.verify(path, name, archive, &keys.keys_for(name)?)?)
    };
    store.import(path, Some(&mut verify), accept, &progress)
}

/// What is shown of an import that begins now.
pub fn progress(globals: &Globals, path: &Path) -> Progress {
    if globals.quiet { Progress::hidden() } else { Progress::of(path) }
}

/// Where the signatures of `x.aci` are: in `x.aci.asc`.
fn signature_beside(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".asc");
    name.into()
}
