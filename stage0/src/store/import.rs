//! Brings an image into the store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use pod::image_manifest::ImageManifest;
use pod::types::ImageId;

use super::workspace::Workspace;
use super::{EROFS_FILE, Error, Image, MANIFEST_FILE, SOURCE_FILE, Store, huge_pages, source, sums};
use crate::image::digest::Digest;
use crate::image::{Opened, Rendered};
use crate::progress::Progress;

/// Whether an archive may be imported at all: what it calls itself, and the SHA-256 of its bytes as they were read.
pub type Verify<'a, E> = &'a mut dyn FnMut(&ImageManifest, &Digest) -> Result<(), E>;
/// A last word before an image is stored: its ID, its manifest and its EROFS file.
pub type Accept<'a, E> = &'a mut dyn FnMut(&ImageId, &ImageManifest, &Path) -> Result<(), E>;

impl Store {
    /// The image that a file was when it was imported and verified, unless it has changed since.
    pub fn verified(&self, path: &Path) -> Result<Option<Image>, Error> {
        match source::lookup(&self.root.join("sources"), &key_of(path)?) {
            Some(source::Note { id, verified: true }) => self.get(&id),
            _ => Ok(None),
        }
    }

    /// The image that a file is, imported unless the store has it. `accept` is asked about an image that is new; an
    /// error keeps the image out. With `verify` the file is read whatever the store knows of it, and it is asked first. The progress
    /// is that of this import.
    pub fn import<E: From<Error>>(
        &self,
        path: &Path,
        verify: Option<Verify<'_, E>>,
        accept: Accept<'_, E>,
        progress: &Progress,
    ) -> Result<Image, E> {
        let key = key_of(path)?;
        if verify.is_none()
            && let Some(image) = self.known(&key)?
        {
            return Ok(image);
        }
        self.make_directories()?;
        let _held = self.hold()?;
        let workspace = self.root.join("tmp").join(key.as_str());
        let workspace = Workspace::acquire(workspace.clone()).map_err(Error::io("lock", &workspace))?;
        // Another process may have imported it while we waited.
        if verify.is_none()
            && let Some(image) = self.known(&key)?
        {
            return Ok(image);
        }
        let verified = verify.is_some();
        let image = self.import_into(&workspace, path, verify, accept, progress)?;
        let note = source::Note { id: image.id.clone(), verified };
        source::record(&self.root.join("sources"), path, &key, &note).map_err(Error::io("remember", path))?;
        Ok(image)
    }

    /// What an earlier import found a file to be.
    fn known(&self, key: &source::Key) -> Result<Option<Image>, Error> {
        match source::lookup(&self.root.join("sources"), key) {
            Some(note) => self.get(&note.id),
            None => Ok(None),
        }
    }

    fn import_into<E: From<Error>>(
        &self,
        workspace: &Workspace,
        path: &Path,
        verify: Option<Verify<'_, E>>,
        accept: Accept<'_, E>,
        progress: &Progress,
    ) -> Result<Image, E> {
        let failed = |source| Error::Import { path: path.into(), source };
        let mut opened = Opened::open(path, workspace.path(), progress).map_err(failed)?;
        if verify.is_some() {
            opened = opened.witnessed().map_err(failed)?;
        }
        if let Some(id) = opened.known_id().map_err(failed)?
            && let Some(image) = self.get(&id)?
        {
            return Ok(image);
        }
        let rendered = self.render_into(workspace, path, opened, progress)?;
        if let (Some(verify), Some(archive)) = (verify, &rendered.archive) {
            verify(&rendered.manifest, archive)?;
        }
        if let Some(image) = self.get(&rendered.id)? {
            return Ok(image);
        }
        accept(&rendered.id, &rendered.manifest, &workspace.path().join(EROFS_FILE))?;
        Ok(self.commit(workspace, rendered)?)
    }

    /// Makes all files of an image in a workspace, on disk and with their digests.
    pub(super) fn render_into(
        &self,
        workspace: &Workspace,
        path: &Path,
        opened: Opened,
        progress: &Progress,
    ) -> Result<Rendered, Error> {
        let file = |name| workspace.path().join(name);
        let (erofs_path, manifest_path) = (file(EROFS_FILE), file(MANIFEST_FILE));
        let output = create(&erofs_path).map_err(Error::io("create", &erofs_path))?;
        let (rendered, erofs) =
            opened.render(output, progress).map_err(|source| Error::Import { path: path.into(), source })?;
        progress.end_of_input();
        write_durably(&manifest_path, &rendered.manifest_json).map_err(Error::io("write", &manifest_path))?;
        let source = std::path::absolute(path).map_err(Error::io("find", path))?;
        let source_bytes = source.as_os_str().as_bytes();
        write_durably(&file(SOURCE_FILE), source_bytes).map_err(Error::io("write", &file(SOURCE_FILE)))?;
        // The disk writes while the processor computes.
        let digest = std::thread::scope(|scope| {
            let digest = scope.spawn(|| sums::of_file(&erofs_path));
            erofs.sync_all()?;
            digest.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
        });
        let digest = digest.map_err(Error::io("sync", &erofs_path))?;
        drop(erofs);
        let _refusal_costs_speed = File::open(&erofs_path).and_then(|erofs| huge_pages::gather(&erofs));
        let sums = sums::lines(&[
            (EROFS_FILE, digest),
            (MANIFEST_FILE, Digest::sha256(&rendered.manifest_json)),
            (SOURCE_FILE, Digest::sha256(source_bytes)),
        ]);
        write_durably(&file(sums::FILE), sums.as_bytes()).map_err(Error::io("write", &file(sums::FILE)))?;
        Ok(rendered)
    }

    /// Gives a rendered image its place; whoever was first wins, with the same content.
    fn commit(&self, workspace: &Workspace, rendered: Rendered) -> Result<Image, Error> {
        let directory = self.image_directory(&rendered.id);
        self.note_name(&rendered.id, &rendered.manifest.name)?;
        let settled = workspace.open_to_group().and_then(|()| workspace.settle(&directory));
        settled.map_err(Error::io("create", &directory))?;
        Ok(Image { id: rendered.id.clone(), tree: rendered.id, manifest: rendered.manifest, directory })
    }

    /// The store's directories. Root alone reads them, and the images their group, too: they may hold secrets.
    pub fn make_directories(&self) -> Result<(), Error> {
        for (name, mode) in [("images", 0o750), ("sources", 0o700), ("tmp", 0o700)] {
            let path = self.root.join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(&path);
            made.map_err(Error::io("create", &path))?;
        }
        Ok(())
    }
}

fn key_of(path: &Path) -> Result<source::Key, Error> {
    source::Key::of(path).map_err(|source| Error::Import {
        path: path.into(),
        source: crate::image::Error::Read { what: "it".into(), source },
    })
}

pub(super) fn create(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o640).open(path)
}

pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
