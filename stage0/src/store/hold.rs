//! Who uses images, and who removes them: a lock (flock) on the store's directory. It is shared by those who are about to give a
//! pod images, from before they look for them until the pod has them, and by those who bring images in; it is exclusive while
//! images are removed.

use std::fs::File;
use std::io;

use super::{Error, Store};

/// As long as this is there, the store's images are (shared), or nobody else is about to use any (exclusive).
#[derive(Debug)]
pub struct Held {
    _lock: File,
}

impl Store {
    /// Keeps all images where they are; waits while some are removed. `None` if there is no store yet.
    pub fn hold(&self) -> Result<Option<Held>, Error> {
        self.lock(File::lock_shared)
    }

    /// Goes on with what is held. If that is nothing, there was no store, and an import may have made it since.
    pub fn keep_holding(&self, held: Option<Held>) -> Result<Option<Held>, Error> {
        held.map_or_else(|| self.hold(), |held| Ok(Some(held)))
    }

    /// Keeps others from using images that no pod has yet; waits while some do. `None` if there is no store.
    pub fn hold_alone(&self) -> Result<Option<Held>, Error> {
        self.lock(File::lock)
    }

    fn lock(&self, lock: fn(&File) -> io::Result<()>) -> Result<Option<Held>, Error> {
        let file = match File::open(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(Error::io("open", &self.root))?,
        };
        lock(&file).map_err(Error::io("lock", &self.root))?;
        Ok(Some(Held { _lock: file }))
    }
}
