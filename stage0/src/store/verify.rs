//! Finds what has changed of an image since it was imported, and makes it again from the file that it came from.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use pod::types::ImageId;

use super::workspace::Workspace;
use super::{Error, SOURCE_FILE, Store, sums};
use crate::image::Opened;
use crate::image::digest::HashingSink;
use crate::progress::Progress;

/// What an image is.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was imported.
    Good,
    /// As it was imported again: these files were not what they were.
    Rebuilt(Vec<String>),
}

impl Store {
    /// Compares an image with what it was, and makes it again if that is not the same. Pods that have a hard link of what is
    /// damaged keep it.
    ///
    /// Its unpacked tree is compared with it, too. One that is not its tree any more is removed, since it is made again when it
    /// is wanted; while pods use it, that is an error. Whoever calls this has the store [alone](Store::hold_alone).
    pub fn verify(&self, id: &ImageId, used: &HashSet<ImageId>) -> Result<Verdict, Error> {
        let directory = self.image_directory(id);
        let changed = sums::changed(&directory).map_err(Error::io("read", &directory))?;
        let mut changed = changed.ok_or_else(|| Error::NoSums(id.clone()))?;
        if !changed.is_empty() {
            self.rebuild(id, &directory, &changed)?;
        }
        let tree = self.tree_directory(id);
        if tree.exists() && !self.is_tree_of(id, &tree)? {
            if used.contains(id) {
                return Err(Error::DamagedTree(tree));
            }
            self.remove_tree(id, used)?;
            changed.push("its unpacked tree".into());
        }
        if self.forget_damaged_renderings(id)? {
            changed.push("its tree with its dependencies'".into());
        }
        Ok(if changed.is_empty() { Verdict::Good } else { Verdict::Rebuilt(changed) })
    }

    /// Whether a tree, packed again, is the same archive as the image.
    fn is_tree_of(&self, id: &ImageId, tree: &Path) -> Result<bool, Error> {
        let Some(image) = self.get(id)? else { return Ok(false) };
        let of_image = self.write_aci(&image, HashingSink::new())?;
        let manifest = image.manifest_path();
        let manifest = fs::read(&manifest).map_err(Error::io("read", &manifest))?;
        let failed = |source| Error::Pack { id: id.clone(), source };
        let of_tree = pack::pack_tree(tree, None, &manifest, HashingSink::new()).map_err(failed)?;
        Ok(of_image.finish() == of_tree.finish())
    }

    fn rebuild(&self, id: &ImageId, directory: &Path, changed: &[String]) -> Result<(), Error> {
        let lost = |reason: String| Error::Lost { id: id.clone(), files: changed.join(", "), reason };
        let source = fs::read_to_string(directory.join(SOURCE_FILE))
            .map_err(|_| lost("where it came from is not known".into()))?;
        let source = Path::new(&source);
        self.make_directories()?;
        let path = self.root.join("tmp").join(format!("rebuild-{id}"));
        let workspace = Workspace::acquire(path.clone()).map_err(Error::io("lock", &path))?;
        let progress = Progress::hidden();
        let opened = Opened::open(source, workspace.path(), &progress).map_err(|source| source.to_string());
        let rendered = opened.and_then(|opened| {
            let rendered = self.render_into(&workspace, source, opened, &progress);
            rendered.map_err(|error| error.to_string())
        });
        match rendered {
            Ok(rendered) if rendered.id == *id => {}
            Ok(_) => return Err(lost(format!("{} is another image now", source.display()))),
            Err(reason) => return Err(lost(format!("{}: {reason}", source.display()))),
        }
        let replaced = workspace.open_to_group().and_then(|()| workspace.replace(directory));
        replaced.map_err(Error::io("replace", directory))
    }
}
