//! Images as plain trees, for hosts whose kernel cannot mount EROFS.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use pod::types::ImageId;

use super::workspace::Workspace;
use super::{Error, Image, Store};

impl Store {
    pub(super) fn tree_directory(&self, tree: &ImageId) -> PathBuf {
        self.root.join("trees").join(tree.as_str())
    }

    /// The directory with an image's tree, unpacked the first time it is wanted.
    pub fn tree(&self, image: &Image) -> Result<PathBuf, Error> {
        let trees = self.root.join("trees");
        let tree = self.tree_directory(&image.tree);
        if tree.is_dir() {
            return Ok(tree);
        }
        // Programs in them may be set-user-ID, and are nobody's but root's to execute.
        for path in [&trees, &self.root.join("tmp")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(Error::io("create", path))?;
        }
        let path = self.root.join("tmp").join(format!("tree-{}", image.tree));
        let workspace = Workspace::acquire(path.clone()).map_err(Error::io("lock", &path))?;
        if tree.is_dir() {
            return Ok(tree);
        }
        self.unpack(image, &workspace)?;
        workspace.settle(&tree).map_err(Error::io("create", &tree))?;
        Ok(tree)
    }

    fn unpack(&self, image: &Image, workspace: &Workspace) -> Result<(), Error> {
        let target = File::open(workspace.path()).map_err(Error::io("open", workspace.path()))?;
        self.extract(image, target.as_fd())?;
        nix::unistd::syncfs(target).map_err(|error| Error::io("sync", workspace.path())(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    const MANIFEST: &str = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/a",
        "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]}"#;

    #[test]
    fn an_image_is_unpacked_once() {
        if !nix::unistd::geteuid().is_root() {
            return; // owners are set
        }
        let data = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in [("manifest", MANIFEST), ("rootfs/etc/motd", "hi")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let path = data.path().join("a.aci");
        fs::write(&path, builder.into_inner().unwrap()).unwrap();
        let store = Store::new(data.path());
        let image =
            store.import(&path, None, &mut |_, _, _| Ok::<(), Error>(()), &Progress::hidden()).unwrap();
        let tree = store.tree(&image).unwrap();
        assert_eq!(fs::read_to_string(tree.join("etc/motd")).unwrap(), "hi");
        fs::write(tree.join("mark"), "").unwrap();
        assert_eq!(store.tree(&image).unwrap(), tree);
        assert!(tree.join("mark").exists(), "unpacked again");
        assert!(fs::read_dir(data.path().join("cas/tmp")).unwrap().next().is_none());
    }
}
