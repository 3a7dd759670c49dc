//! Images as plain trees, for hosts whose kernel cannot mount EROFS.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::workspace::Workspace;
use super::{Error, Image, Store};

impl Store {
    /// The directory with an image's tree, unpacked the first time it is wanted.
    pub fn tree(&self, image: &Image) -> Result<PathBuf, Error> {
        let trees = self.root.join("trees");
        let tree = trees.join(image.id.as_str());
        if tree.is_dir() {
            return Ok(tree);
        }
        for path in [&trees, &self.root.join("tmp")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(path);
            made.map_err(Error::io("create", path))?;
        }
        let path = self.root.join("tmp").join(format!("tree-{}", image.id));
        let workspace = Workspace::acquire(path.clone()).map_err(Error::io("lock", &path))?;
        if tree.is_dir() {
            return Ok(tree);
        }
        self.unpack(image, &workspace)?;
        match workspace.rename(&tree) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("create", &tree)(error))
            }
            _ => Ok(tree),
        }
    }

    fn unpack(&self, image: &Image, workspace: &Workspace) -> Result<(), Error> {
        let source = image.erofs_path();
        let erofs = File::open(&source).map_err(Error::io("open", &source))?;
        let target = File::open(workspace.path()).map_err(Error::io("open", workspace.path()))?;
        let unpacked = erofs::Reader::open(erofs).and_then(|reader| erofs::extract(&reader, target.as_fd()));
        unpacked.map_err(|source| Error::Unpack { id: image.id.clone(), source })?;
        nix::unistd::syncfs(target).map_err(|error| Error::io("sync", workspace.path())(error.into()))
    }
}
