//! The store of images, `<dir>/cas`:
//!
//! | path | content |
//! |---|---|
//! | `images/<image ID>/manifest` | the appc image manifest |
//! | `images/<image ID>/image.erofs` | the tree |
//! | `images/<image ID>/source` | the path of the file of the host that it was imported from |
//! | `images/<image ID>/sha256sums` | the digests of these three, in the form of sha256sum(1) |
//! | `names/<key>/<image ID>` | that an image has a name ([`names`]) |
//! | `sources/<key>` | which image a file of the host was when it was imported ([`source::Key`]), and whether it was verified |
//! | `rendered/<ID>/` | an image's tree with those of its dependencies ([`rendering`]), where it has any |
//! | `trees/<image ID>/` | the tree once more, unpacked, on hosts that cannot mount EROFS |
//! | `tmp/<name>/` | an import under way, locked by the process that makes it ([`workspace::Workspace`]) |
//!
//! What has its final name is complete: it was made in `tmp`, synced, and renamed. The time of an image's directory is when it
//! was last used. Who uses images, and who removes them, has the lock on `cas` ([`hold`]).

mod dependencies;
mod export;
mod hold;
mod huge_pages;
mod import;
mod names;
mod removal;
mod rendering;
mod source;
mod sums;
mod trees;
mod verify;
mod workspace;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use pod::image_manifest::ImageManifest;
use pod::types::ImageId;

use crate::image_name::{self, ImageName, ImageReference};

pub use hold::Held;
pub use import::Accept;
pub use verify::Verdict;
pub use workspace::Workspace;

const MANIFEST_FILE: &str = "manifest";
const EROFS_FILE: &str = "image.erofs";
const SOURCE_FILE: &str = "source";
/// What an ID has, `sha512-` among it, and what somebody who means one has to give of it.
const ID_CHARACTERS: usize = 7 + 64;
const MIN_ID_CHARACTERS: usize = 7 + 2;

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
    #[error(
        "the image {id} in the store is damaged; rkt image verify {id} makes it again, rkt image rm {id} removes it"
    )]
    Damaged {
        /// Which.
        id: ImageId,
        /// Why.
        #[source]
        source: pod::Error,
    },
    /// An image of a store that did not note digests yet.
    #[error("nobody has noted what the image {0} was; rkt image rm it, and fetch it again")]
    NoSums(ImageId),
    /// A damaged image that cannot be made again.
    #[error(
        "the image {id} is damaged ({files}) and cannot be made again: {reason}; rkt image rm it, and fetch it again"
    )]
    Lost {
        /// Which.
        id: ImageId,
        /// What of it.
        files: String,
        /// Why not.
        reason: String,
    },
    /// A stored image cannot be packed.
    #[error("cannot write image {id} as an ACI")]
    Pack {
        /// Which.
        id: ImageId,
        /// Why.
        #[source]
        source: pack::Error,
    },
    /// An image whose dependencies make no sense.
    #[error("the image {id} cannot be made of what it depends on: {what}")]
    Dependencies {
        /// Which.
        id: ImageId,
        /// Why not.
        what: String,
    },
    /// A dependency that nobody has fetched.
    #[error(
        "the image {image} depends on {dependency}, which is not in the store: fetch that before it is run"
    )]
    NoDependency {
        /// The upper image's name.
        image: String,
        /// What it wants.
        dependency: String,
    },
    /// An image and what it depends on cannot be put together.
    #[error("cannot put the image {id} together with those that it depends on")]
    Render {
        /// Which.
        id: ImageId,
        /// Why.
        #[source]
        source: erofs::Error,
    },
    /// An image's unpacked tree is not the image's, and pods use it.
    #[error("the tree {} is not that of the image any more; remove the pods that use it first", .0.display())]
    DamagedTree(PathBuf),
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
    /// What could be the beginning of any ID.
    #[error("{0} is too little of an image's ID: give sha512- and two of its digits at least")]
    TooShort(String),
    /// The beginning of several IDs.
    #[error("{0} images in the store have IDs that begin with {1}")]
    Ambiguous(usize, String),
    /// No such file.
    #[error("there is no file or directory {0}")]
    NoSuchFile(String),
    /// A file where an image of the store is wanted.
    #[error("{} is a file, and this is for images in the store: give an ID, which rkt fetch prints, or a name", .0.display())]
    IsFile(PathBuf),
    /// A text that means no image.
    #[error(transparent)]
    Reference(#[from] image_name::Error),
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

/// Where something can be made that is not of the store, and is removed with what killed imports leave.
pub fn spare(data: &Path, name: &str) -> Result<PathBuf, Error> {
    let store = Store::new(data);
    store.make_directories()?;
    Ok(store.root.join("tmp").join(name))
}

/// An image of the store.
#[derive(Clone, Debug)]
pub struct Image {
    /// Its ID.
    pub id: ImageId,
    /// Its manifest.
    pub manifest: ImageManifest,
    /// Which tree it has: its own, or one with its dependencies' ([`Store::rendered`]).
    tree: ImageId,
    directory: PathBuf,
}

impl Image {
    /// The file with its manifest.
    pub fn manifest_path(&self) -> PathBuf {
        self.directory.join(MANIFEST_FILE)
    }

    /// The file with its tree.
    pub fn erofs_path(&self) -> PathBuf {
        self.directory.join(EROFS_FILE)
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

    /// When a pod last got it; when it was imported, if none has.
    pub fn last_used(&self) -> io::Result<SystemTime> {
        removal::last_used(&self.directory)
    }

    /// Notes that a pod gets it.
    pub fn touch(&self) -> Result<(), Error> {
        let (unchanged, now) = (TimeSpec::UTIME_OMIT, TimeSpec::UTIME_NOW);
        utimensat(AT_FDCWD, &self.directory, &unchanged, &now, UtimensatFlags::FollowSymlink)
            .map_err(|error| Error::io("note the use of", &self.directory)(error.into()))
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
        let path = directory.join(MANIFEST_FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("read", &path)(error)),
        };
        let manifest =
            ImageManifest::parse(&json).map_err(|source| Error::Damaged { id: id.clone(), source })?;
        Ok(Some(Image { id: id.clone(), tree: id.clone(), manifest, directory }))
    }

    /// The image that a user means by an ID, its beginning, or a name.
    pub fn find(&self, text: &str) -> Result<Image, Error> {
        self.get(&self.choose(text)?)?.ok_or_else(|| Error::NoSuchId(text.into()))
    }

    /// The image of a name, which has to be there.
    pub fn named(&self, name: &ImageName) -> Result<Image, Error> {
        self.by_name(name)?.ok_or_else(|| Error::NoMatch(name.to_string()))
    }

    /// Every image that is not damaged, in the order of their IDs.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        self.list_all().map(|(images, _)| images)
    }

    /// The same, and what is wrong with the others.
    pub fn list_all(&self) -> Result<(Vec<Image>, Vec<Error>), Error> {
        let (mut images, mut damaged) = (Vec::new(), Vec::new());
        for id in self.ids()? {
            match self.get(&id) {
                Ok(image) => images.extend(image),
                Err(error) => damaged.push(error),
            }
        }
        Ok((images, damaged))
    }

    /// The image whose ID begins with `prefix`.
    pub fn by_id(&self, prefix: &str) -> Result<Image, Error> {
        self.get(&self.whole_id(prefix)?)?.ok_or_else(|| Error::NoSuchId(prefix.into()))
    }

    /// The ID that begins with `prefix`; its image may be damaged.
    fn whole_id(&self, prefix: &str) -> Result<ImageId, Error> {
        // The whole of a SHA-512, of which an ID is half, means the same, as with upstream.
        let prefix = prefix.get(..ID_CHARACTERS).unwrap_or(prefix);
        if let Ok(id) = prefix.parse() {
            return Ok(id);
        }
        if prefix.len() < MIN_ID_CHARACTERS {
            return Err(Error::TooShort(prefix.into()));
        }
        let mut ids = self.ids()?;
        ids.retain(|id| id.as_str().starts_with(prefix));
        match (ids.len(), ids.pop()) {
            (1, Some(id)) => Ok(id),
            (0, _) => Err(Error::NoSuchId(prefix.into())),
            (several, _) => Err(Error::Ambiguous(several, prefix.into())),
        }
    }

    /// The image that a user means by an ID, its beginning, or a name; it may be damaged.
    pub fn choose(&self, text: &str) -> Result<ImageId, Error> {
        let id = match ImageReference::parse(text)? {
            ImageReference::Id(id) => self.whole_id(&id)?,
            ImageReference::Name(name) => return Ok(self.named(&name)?.id),
            // A file that happens to be called as an image is none of the store's.
            ImageReference::File(path) => {
                let image = ImageName::parse(text).ok().and_then(|name| self.by_name(&name).transpose());
                let refused = if path.exists() { Error::IsFile(path) } else { Error::NoMatch(text.into()) };
                return Ok(image.ok_or(refused)??.id);
            }
        };
        if self.image_directory(&id).exists() { Ok(id) } else { Err(Error::NoSuchId(text.into())) }
    }

    fn ids(&self) -> Result<Vec<ImageId>, Error> {
        self.ids_in(&self.images())
    }

    fn ids_in(&self, path: &Path) -> Result<Vec<ImageId>, Error> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("read", path)(error)),
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io("read", path))?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse().ok()));
        }
        ids.sort();
        Ok(ids)
    }
}
