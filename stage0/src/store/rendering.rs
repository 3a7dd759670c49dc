//! Images as apps get them: with all that they depend on, and without what their lists of paths leave out. Most are that as
//! they are. For the others there is a second EROFS file, `rendered/<ID>/image.erofs`, made when it is first wanted; its ID is
//! computed from those of its parts, so it is another one once a dependency is.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use erofs::{Kind, Reader, Writer};
use pod::types::ImageId;

use super::dependencies::Part;
use super::import::{create, write_durably};
use super::workspace::Workspace;
use super::{EROFS_FILE, Error, Image, MANIFEST_FILE, Store, huge_pages, removal, sums};
use crate::image::digest::{Digest, image_id, sha512};

/// The IDs of the parts, a line each, the image's own last.
const PARTS_FILE: &str = "parts";

impl Store {
    /// The image as an app gets it. Everything that it is made of counts as used.
    pub fn rendered(&self, image: Image) -> Result<Image, Error> {
        if image.manifest.dependencies.is_empty() && image.manifest.path_whitelist.is_empty() {
            return Ok(image);
        }
        let parts = self.parts(&image)?;
        parts.iter().try_for_each(|part| part.image.touch())?;
        let lines: String = parts.iter().map(|part| format!("{}\n", part.image.id)).collect();
        let tree = image_id(&sha512(format!("rendered 1\n{lines}").as_bytes()))
            .ok_or_else(|| Error::Dependencies { id: image.id.clone(), what: "they have no ID".into() })?;
        let directory = self.rendered_directory(&tree);
        if !directory.is_dir() {
            self.make_rendered(&image, &tree, &parts, &lines)?;
        }
        Ok(Image { tree, directory, ..image })
    }

    fn renderings(&self) -> PathBuf {
        self.root.join("rendered")
    }

    fn rendered_directory(&self, tree: &ImageId) -> PathBuf {
        self.renderings().join(tree.as_str())
    }

    fn make_rendered(&self, image: &Image, tree: &ImageId, parts: &[Part], lines: &str) -> Result<(), Error> {
        self.make_directories()?;
        let (all, directory) = (self.renderings(), self.rendered_directory(tree));
        let made = fs::DirBuilder::new().recursive(true).mode(0o750).create(&all);
        made.map_err(Error::io("create", &all))?;
        let path = self.root.join("tmp").join(format!("render-{tree}"));
        let workspace = Workspace::acquire(path.clone()).map_err(Error::io("lock", &path))?;
        if directory.is_dir() {
            return Ok(()); // by another process, for which we waited
        }
        let file = |name| workspace.path().join(name);
        let erofs = merge(&image.id, parts, &file(EROFS_FILE))?;
        erofs.sync_all().map_err(Error::io("sync", &file(EROFS_FILE)))?;
        let _refusal_costs_speed = huge_pages::gather(&erofs);
        let manifest = whole_manifest(image)?;
        let digest = sums::of_file(&file(EROFS_FILE)).map_err(Error::io("read", &file(EROFS_FILE)))?;
        let sums = sums::lines(&[
            (EROFS_FILE, digest),
            (MANIFEST_FILE, Digest::sha256(&manifest)),
            (PARTS_FILE, Digest::sha256(lines.as_bytes())),
        ]);
        for (name, bytes) in
            [(MANIFEST_FILE, &manifest[..]), (PARTS_FILE, lines.as_bytes()), (sums::FILE, sums.as_bytes())]
        {
            write_durably(&file(name), bytes).map_err(Error::io("write", &file(name)))?;
        }
        workspace.settle(&directory).map_err(Error::io("create", &directory))
    }

    /// Removes what has been rendered of images that are gone, and what nobody has used for a time.
    pub(super) fn collect_rendered(&self, grace: Duration) -> Result<(), Error> {
        let now = SystemTime::now();
        self.discard_rendered(|directory, parts| {
            let last = removal::last_used(directory).map_err(Error::io("read", directory))?;
            let is_old = now.duration_since(last).unwrap_or_default() >= grace;
            Ok(is_old || parts.iter().any(|part| !self.image_directory(part).exists()))
        })
        .map(drop)
    }

    /// Removes what has been rendered of an image, and of those that depend on it.
    pub(super) fn forget_rendered(&self, id: &ImageId) -> Result<(), Error> {
        self.discard_rendered(|_, parts| Ok(parts.contains(id))).map(drop)
    }

    /// Removes what has been rendered of an image and is not what it was; true if there was any.
    pub(super) fn forget_damaged_renderings(&self, id: &ImageId) -> Result<bool, Error> {
        self.discard_rendered(|directory, parts| {
            let changed = sums::changed(directory).map_err(Error::io("read", directory))?;
            Ok(parts.last().is_none_or(|last| last == id)
                && changed.is_none_or(|changed| !changed.is_empty()))
        })
    }

    /// Removes renderings that are `unwanted`, of which it knows the directory and the parts; true if there were any. Pods have
    /// links of the files, so that they keep them.
    fn discard_rendered(
        &self,
        unwanted: impl Fn(&Path, &[ImageId]) -> Result<bool, Error>,
    ) -> Result<bool, Error> {
        let mut any = false;
        for tree in self.ids_in(&self.renderings())? {
            let directory = self.rendered_directory(&tree);
            let parts = fs::read_to_string(directory.join(PARTS_FILE)).unwrap_or_default();
            let parts: Vec<ImageId> = parts.lines().filter_map(|line| line.parse().ok()).collect();
            if unwanted(&directory, &parts)? {
                self.discard(&directory, "rendering", &tree)?;
                any = true;
            }
        }
        Ok(any)
    }
}

/// The image's manifest without what has been done: whoever packs the tree again has an image that depends on nothing.
fn whole_manifest(image: &Image) -> Result<Vec<u8>, Error> {
    let path = image.manifest_path();
    let json = fs::read(&path).map_err(Error::io("read", &path))?;
    let damaged = |source| Error::Damaged {
        id: image.id.clone(),
        source: pod::Error::Json { what: "image manifest", source },
    };
    let mut manifest: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&json).map_err(damaged)?;
    manifest.retain(|field, _| !matches!(field.as_str(), "dependencies" | "pathWhitelist"));
    serde_json::to_vec(&manifest).map_err(damaged)
}

/// Writes the parts' common tree.
fn merge(id: &ImageId, parts: &[Part], path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Render { id: id.clone(), source };
    let mut writer = Writer::new(create(path).map_err(Error::io("create", path))?);
    for Part { image, own, above } in parts {
        let source = image.erofs_path();
        let erofs = File::open(&source).map_err(Error::io("open", &source))?;
        let keep = |path: &[u8], kind| {
            path.is_empty() || above.has(path) && (kind == Kind::Directory || own.has(path))
        };
        Reader::open(erofs).and_then(|reader| writer.merge(&reader, &keep)).map_err(failed)?;
        writer.next_layer();
    }
    Ok(writer.finish().map_err(failed)?.0)
}
