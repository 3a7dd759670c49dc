//! The store of images, `<dir>/cas`:
//!
//! | path | content |
//! |---|---|
//! | `images/<image ID>/manifest` | the appc image manifest |
//! | `images/<image ID>/image.erofs` | the tree |
//! | `sources/<key>` | which image a file of the host was when it was imported ([`source::Key`]) |
//! | `trees/<image ID>/` | the tree once more, unpacked, on hosts that cannot mount EROFS |
//! | `tmp/<name>/` | an import under way, locked by the process that makes it ([`workspace::Workspace`]) |
//!
//! What has its final name is complete: it was made in `tmp`, synced, and renamed.

mod import;
mod source;
mod trees;
mod workspace;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pod::image_manifest::ImageManifest;
use pod::types::ImageId;

/// Why the store cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the store, or an image on its way there, cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A file is no image, or not a good one.
    #[error("cannot import {}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::image::Error,
    },
    /// A stored image cannot be used.
    #[error("the image {id} in the store is damaged; remove {} and fetch it again", path.display())]
    Damaged {
        /// Which.
        id: ImageId,
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: pod::Error,
    },
    /// A stored image cannot be unpacked.
    #[error("cannot unpack image {id}")]
    Unpack {
        /// Which.
        id: ImageId,
        /// Why.
        #[source]
        source: erofs::Error,
    },
    /// An ID that the store does not have.
    #[error("no image in the store has the ID {0}; rkt image list shows them")]
    NoSuchId(String),
    /// The beginning of several IDs.
    #[error("{0} images in the store have IDs that begin with {1}")]
    Ambiguous(usize, String),
    /// No such file.
    #[error("there is no file or directory {0}")]
    NoSuchFile(String),
    /// Neither a file nor a stored image.
    #[error(
        "\"{0}\" matches nothing: there is no such file or directory, and no image in the store has this name; \
         rkt image list shows them"
    )]
    NoMatch(String),
}

impl Error {
    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.into(), source }
    }
}

/// The store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// Removes what imports into a data directory's store have left that were killed.
pub fn remove_abandoned(data: &Path) -> Result<(), Error> {
    let path = Store::new(data).root.join("tmp");
    workspace::remove_abandoned(&path).map_err(Error::io("clean", &path))
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its ID.
    pub id: ImageId,
    /// Its manifest.
    pub manifest: ImageManifest,
    directory: PathBuf,
}

impl Image {
    /// The file with its manifest.
    pub fn manifest_path(&self) -> PathBuf {
        self.directory.join("manifest")
    }

    /// The file with its tree.
    pub fn erofs_path(&self) -> PathBuf {
        self.directory.join("image.erofs")
    }

    /// Bytes that its tree takes on disk.
    pub fn disk_bytes(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(fs::metadata(self.erofs_path())?.blocks() * 512)
    }

    /// When it was imported.
    pub fn imported(&self) -> io::Result<SystemTime> {
        fs::metadata(self.manifest_path())?.modified()
    }
}

impl Store {
    /// The store of a data directory; nothing is made yet.
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("cas") }
    }

    fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    fn image_directory(&self, id: &ImageId) -> PathBuf {
        self.images().join(id.as_str())
    }

    /// The image with an ID, if the store has it.
    pub fn get(&self, id: &ImageId) -> Result<Option<Image>, Error> {
        let directory = self.image_directory(id);
        let path = directory.join("manifest");
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let manifest = ImageManifest::parse(&json).map_err(|source| Error::Damaged {
            id: id.clone(),
            path: directory.clone(),
            source,
        })?;
        Ok(Some(Image { id: id.clone(), manifest, directory }))
    }

    /// Every image, in the order of their IDs.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        for id in self.ids()? {
            images.extend(self.get(&id)?);
        }
        Ok(images)
    }

    /// The image whose ID begins with `prefix`.
    pub fn by_id(&self, prefix: &str) -> Result<Image, Error> {
        if let Ok(id) = prefix.parse() {
            return self.get(&id)?.ok_or_else(|| Error::NoSuchId(prefix.into()));
        }
        let matching: Vec<ImageId> =
            self.ids()?.into_iter().filter(|id| id.as_str().starts_with(prefix)).collect();
        match matching.as_slice() {
            [id] => self.get(id)?.ok_or_else(|| Error::NoSuchId(prefix.into())),
            [] => Err(Error::NoSuchId(prefix.into())),
            several => Err(Error::Ambiguous(several.len(), prefix.into())),
        }
    }

    /// The image of a name, `NAME[:VERSION]`; of several the one imported last.
    pub fn by_name(&self, text: &str) -> Result<Image, Error> {
        let (name, version) = match text.split_once(':') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let matches = |image: &Image| {
            let manifest = &image.manifest;
            manifest.name.as_str() == name && version.is_none_or(|v| manifest.label("version") == Some(v))
        };
        let mut images: Vec<Image> = self.list()?.into_iter().filter(matches).collect();
        images.sort_by_key(|image| image.imported().unwrap_or(SystemTime::UNIX_EPOCH));
        images.pop().ok_or_else(|| Error::NoMatch(text.into()))
    }

    fn ids(&self) -> Result<Vec<ImageId>, Error> {
        let path = self.images();
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("read", &path))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort();
        Ok(ids)
    }
}
