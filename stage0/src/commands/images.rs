//! `rkt fetch` and `rkt image`.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use super::{Outcome, table};
use crate::cli::{Globals, ListFlags};
use crate::store::{self, Store};

/// An unsigned image without leave to use one.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is not signed, and signatures cannot be checked yet: if you trust the image, say --insecure-options=image"
)]
pub struct Unsigned(String);

/// Whether images may come into the store unsigned.
pub fn check_signature_policy(globals: &Globals, image: &str) -> Result<(), Unsigned> {
    if globals.insecure.image { Ok(()) } else { Err(Unsigned(image.into())) }
}

/// Imports images and prints their IDs.
pub fn fetch(globals: &Globals, images: &[String]) -> Outcome {
    let store = Store::new(&globals.directory);
    let mut out = std::io::stdout().lock();
    for image in images {
        let path = Path::new(image);
        if !path.exists() {
            return Err(store::Error::NoSuchFile(image.clone()).into());
        }
        check_signature_policy(globals, image)?;
        let imported = store.import(path, &mut |_, _, _| Ok::<(), Box<dyn Error>>(()))?;
        writeln!(out, "{}", imported.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Digits of an ID that a list shows, after `sha512-`.
const SHORT_ID_CHARACTERS: usize = 19;

/// Prints the images of the store.
pub fn list(globals: &Globals, flags: ListFlags) -> Outcome {
    let titles = ["ID", "NAME", "SIZE", "IMPORT TIME"].map(str::to_owned).to_vec();
    let mut rows = if flags.no_legend { Vec::new() } else { vec![titles] };
    for image in Store::new(&globals.directory).list()? {
        let id = image.id.as_str();
        let version =
            image.manifest.label("version").map(|version| format!(":{version}")).unwrap_or_default();
        let imported = image.imported()?;
        rows.push(vec![
            if flags.full { id.into() } else { id.chars().take(SHORT_ID_CHARACTERS).collect() },
            format!("{}{version}", image.manifest.name),
            table::bytes(image.disk_bytes()?),
            table::ago(SystemTime::now().duration_since(imported).unwrap_or_default()),
        ]);
    }
    table::write(&mut std::io::stdout().lock(), &rows)?;
    Ok(ExitCode::SUCCESS)
}
