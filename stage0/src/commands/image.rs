//! `rkt image`, but for its list.

use std::error::Error;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use pod::abi::EXIT_ERROR;
use pod::types::ImageId;

use super::Outcome;
use super::status::indented;
use crate::cli::{Globals, TreeFlags};
use crate::output;
use crate::pods::Pods;
use crate::store::{self, Image, Store, Verdict};

/// Does something to each image, and goes on after one that fails.
fn each(images: &[String], mut action: impl FnMut(&str) -> Result<(), Box<dyn Error>>) -> Outcome {
    let mut failed = false;
    for image in images {
        if let Err(error) = action(image) {
            failed = true;
            eprint!("{}", crate::render("image", error.as_ref()));
        }
    }
    Ok(if failed { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS })
}

/// Removes images.
pub fn rm(globals: &Globals, images: &[String]) -> Outcome {
    let store = Store::new(&globals.directory);
    let _alone = store.hold_alone()?;
    let used = Pods::new(&globals.directory).images_in_use()?;
    let mut removed = 0;
    let code = each(images, |image| {
        let id = store.choose(image)?;
        store.remove(&id, &used)?;
        removed += 1;
        tell_removed(&id)
    })?;
    eprintln!("image: {removed} image(s) successfully removed");
    Ok(code)
}

/// Removes images that nobody uses.
pub fn gc(globals: &Globals, grace: Duration) -> Outcome {
    let store = Store::new(&globals.directory);
    let Some(_alone) = store.hold_alone()? else { return Ok(ExitCode::SUCCESS) };
    let used = Pods::new(&globals.directory).images_in_use()?;
    store.collect(grace, &used)?.iter().try_for_each(tell_removed)?;
    Ok(ExitCode::SUCCESS)
}

fn tell_removed(id: &ImageId) -> Result<(), Box<dyn Error>> {
    Ok(writeln!(std::io::stdout(), "successfully removed aci for image: \"{id}\"")?)
}

/// Compares images with what they were.
pub fn verify(globals: &Globals, images: &[String]) -> Outcome {
    let store = Store::new(&globals.directory);
    let _alone = store.hold_alone()?;
    let used = Pods::new(&globals.directory).images_in_use()?;
    each(images, |image| {
        let id = store.choose(image)?;
        if let Verdict::Rebuilt(files) = store.verify(&id, &used)? {
            eprintln!("image: {id} was damaged ({}), and has been made again", files.join(", "));
        }
        Ok(writeln!(std::io::stdout(), "successfully verified checksum for image: \"{id}\"")?)
    })
}

/// Writes an image to a file.
pub fn export(globals: &Globals, image: &str, path: &Path, overwrite: bool) -> Outcome {
    let store = Store::new(&globals.directory);
    let _held = store.hold()?;
    let image = store.find(image)?;
    output::file(path, overwrite, |file| -> Result<(), Box<dyn Error>> {
        let output = store.write_aci(&image, BufWriter::with_capacity(1 << 17, file))?;
        output.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Unpacks an image to a directory, as it is.
pub fn extract(globals: &Globals, flags: &TreeFlags) -> Outcome {
    unpack(globals, flags, |_, image| Ok(image))
}

/// The same with everything that it depends on.
pub fn render(globals: &Globals, flags: &TreeFlags) -> Outcome {
    unpack(globals, flags, Store::rendered)
}

fn unpack(
    globals: &Globals,
    flags: &TreeFlags,
    form: fn(&Store, Image) -> Result<Image, store::Error>,
) -> Outcome {
    let store = Store::new(&globals.directory);
    let _held = store.hold()?;
    let image = form(&store, store.find(&flags.image)?)?;
    output::directory(&flags.output, flags.overwrite, |directory| -> Result<(), Box<dyn Error>> {
        if flags.rootfs_only {
            return Ok(store.extract(&image, File::open(directory)?.as_fd())?);
        }
        let rootfs = directory.join("rootfs");
        DirBuilder::new().mode(0o755).create(&rootfs)?;
        fs::copy(image.manifest_path(), directory.join("manifest"))?;
        fs::set_permissions(directory.join("manifest"), Permissions::from_mode(0o644))?;
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
        Ok(store.extract(&image, File::open(&rootfs)?.as_fd())?)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints an image's manifest.
pub fn cat_manifest(globals: &Globals, image: &str, pretty: bool) -> Outcome {
    let store = Store::new(&globals.directory);
    let _held = store.hold()?;
    let image = store.find(image)?;
    // As it is, with what this version does not know.
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(image.manifest_path())?)?;
    let json = if pretty { indented(&manifest)? } else { serde_json::to_string(&manifest)? };
    writeln!(std::io::stdout(), "{json}")?;
    Ok(ExitCode::SUCCESS)
}
