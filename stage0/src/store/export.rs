//! Gives images out again: as ACIs, and as plain trees.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::BorrowedFd;

use pack::AciWriter;

use super::{Error, Image, Store};

impl Store {
    /// Writes an image as an ACI. Its ID is that of the archive's bytes, so it is that of the image only if the image came from
    /// such an archive.
    pub fn write_aci<W: Write>(&self, image: &Image, output: W) -> Result<W, Error> {
        let failed = |source| Error::Pack { id: image.id.clone(), source };
        let manifest = image.manifest_path();
        let manifest = fs::read(&manifest).map_err(Error::io("read", &manifest))?;
        let erofs = image.erofs_path();
        let erofs = File::open(&erofs).map_err(Error::io("open", &erofs))?;
        let reader = erofs::Reader::open(erofs).map_err(|error| failed(error.into()))?;
        let mut writer = AciWriter::new(output, &manifest).map_err(failed)?;
        writer.add_image(&reader).map_err(failed)?;
        writer.finish().map_err(failed)
    }

    /// Makes an image's tree in an empty directory.
    pub fn extract(&self, image: &Image, target: BorrowedFd<'_>) -> Result<(), Error> {
        let source = image.erofs_path();
        let erofs = File::open(&source).map_err(Error::io("open", &source))?;
        let extracted = erofs::Reader::open(erofs).and_then(|reader| erofs::extract(&reader, target));
        extracted.map_err(|source| Error::Unpack { id: image.id.clone(), source })
    }
}
