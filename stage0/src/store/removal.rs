//! Takes images out of the store. Whoever calls this has the store [alone](super::Store::hold_alone).

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pod::types::ImageId;

use super::{Error, Store, source};
use crate::remove;

impl Store {
    /// Removes an image. Its tree stays if pods use it: unlike its file, of which they have links, they have it from here.
    pub fn remove(&self, id: &ImageId, used: &HashSet<ImageId>) -> Result<(), Error> {
        self.take_out(id, used)?;
        self.forget_rendered(id)?;
        self.forget_names()
    }

    /// Removes what is an image's own.
    fn take_out(&self, id: &ImageId, used: &HashSet<ImageId>) -> Result<(), Error> {
        self.discard(&self.image_directory(id), "image", id)?;
        self.remove_tree(id, used)
    }

    /// Removes an image's unpacked tree, unless pods use it.
    pub fn remove_tree(&self, id: &ImageId, used: &HashSet<ImageId>) -> Result<(), Error> {
        if used.contains(id) { Ok(()) } else { self.discard(&self.tree_directory(id), "tree", id) }
    }

    /// Removes all images that no pod uses and nobody has used for a time, trees that no pod uses, and notes about files whose
    /// images are gone. Returns the images.
    pub fn collect(&self, grace: Duration, used: &HashSet<ImageId>) -> Result<Vec<ImageId>, Error> {
        let now = SystemTime::now();
        let mut removed = Vec::new();
        for id in self.ids()? {
            let directory = self.image_directory(&id);
            let last = last_used(&directory).map_err(Error::io("read", &directory))?;
            if !used.contains(&id) && now.duration_since(last).unwrap_or_default() >= grace {
                self.take_out(&id, used)?;
                removed.push(id);
            }
        }
        self.collect_rendered(grace)?;
        self.forget_names()?;
        for id in self.ids_in(&self.root.join("trees"))? {
            self.remove_tree(&id, used)?;
        }
        let sources = self.root.join("sources");
        source::forget(&sources, &|id| !self.image_directory(id).exists())
            .map_err(Error::io("clean", &sources))?;
        Ok(removed)
    }

    /// Moves a directory out of the way as a whole, and removes it; what a kill leaves of it, `rkt gc` finds.
    pub(super) fn discard(&self, path: &Path, what: &str, id: &ImageId) -> Result<(), Error> {
        self.make_directories()?;
        let discarded = self.root.join("tmp").join(format!("removed-{what}-{id}"));
        remove::tree(&discarded).map_err(Error::io("remove", &discarded))?;
        match fs::rename(path, &discarded) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => Ok(()),
            Err(error) => Err(Error::io("remove", path)(error)),
            Ok(()) => remove::tree(&discarded).map_err(Error::io("remove", &discarded)),
        }
    }
}

/// When an image was last used, or imported: the time of its directory.
pub fn last_used(directory: &Path) -> io::Result<SystemTime> {
    fs::metadata(directory)?.modified()
}
