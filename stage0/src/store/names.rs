//! Which images have a name: for each name a directory, `names/<SHA-256 of the name>`, with an empty file for each image ID.
//!
//! An image's entry is on disk before the image is in its place, and goes after it. So every image has one, and an entry
//! without an image means nothing; whoever looks a name up asks the images themselves.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pod::types::{AcIdentifier, ImageId};

use super::workspace::Workspace;
use super::{Error, Image, Store};
use crate::image::digest::Digest;
use crate::image_name::ImageName;

impl Store {
    /// The image of a name and labels; of several the one imported last.
    pub fn by_name(&self, wanted: &ImageName) -> Result<Option<Image>, Error> {
        let mut newest: Option<(SystemTime, Image)> = None;
        for id in self.ids_in(&self.index()?.join(key(&wanted.name)))? {
            // One that is damaged has no name any more.
            let Ok(Some(image)) = self.get(&id) else { continue };
            let imported = image.imported().unwrap_or(SystemTime::UNIX_EPOCH);
            if wanted.fits(&image.manifest) && newest.as_ref().is_none_or(|(time, _)| *time <= imported) {
                newest = Some((imported, image));
            }
        }
        Ok(newest.map(|(_, image)| image))
    }

    /// Notes that there is an image of a name, or is about to be.
    pub(super) fn note_name(&self, id: &ImageId, name: &AcIdentifier) -> Result<(), Error> {
        let names = self.index()?.join(key(name));
        note(&names, id).map_err(Error::io("write to", &names))
    }

    /// Takes away what the names say of images that are gone.
    pub(super) fn forget_names(&self) -> Result<(), Error> {
        let index = self.index()?;
        self.forget_names_in(&index).map_err(Error::io("clean", &index))
    }

    fn forget_names_in(&self, index: &Path) -> io::Result<()> {
        for names in entries(index)? {
            for entry in entries(&names)? {
                let image = entry.file_name().map(|id| self.images().join(id));
                if image.is_none_or(|image| !image.exists()) {
                    fs::remove_file(&entry)?;
                }
            }
            match fs::remove_dir(&names) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    /// Where the names are. A store that has none yet, from before there were any, gets those of all its images.
    fn index(&self) -> Result<PathBuf, Error> {
        let index = self.root.join("names");
        if index.is_dir() || !self.images().is_dir() {
            return Ok(index);
        }
        let path = self.root.join("tmp").join("names");
        self.make_directories()?;
        let workspace = Workspace::acquire(path.clone()).map_err(Error::io("lock", &path))?;
        if index.is_dir() {
            return Ok(index); // made by another process, for which we waited
        }
        for image in self.list()? {
            let names = workspace.path().join(key(&image.manifest.name));
            note(&names, &image.id).map_err(Error::io("write to", &names))?;
        }
        let settled = workspace.open_to_group().and_then(|()| workspace.settle(&index));
        settled.map_err(Error::io("create", &index))?;
        Ok(index)
    }
}

fn key(name: &AcIdentifier) -> String {
    Digest::sha256(name.as_str().as_bytes()).hex().to_owned()
}

/// Makes an entry, durably.
fn note(names: &Path, id: &ImageId) -> io::Result<()> {
    let entry = names.join(id.as_str());
    if entry.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o750).create(names)?;
    File::options().write(true).create(true).truncate(false).open(&entry)?;
    File::open(names)?.sync_all()?;
    names.parent().map_or(Ok(()), |index| File::open(index)?.sync_all())
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.map(|entry| Ok(entry?.path())).collect(),
    }
}
