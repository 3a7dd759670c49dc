//! What an app of an ended VM pod has left, as the pod's stage1 has a guest read it. The archive that comes is a stranger's: the guest
//! read a disk that another guest wrote, and may be that one's by now. So it is imported as every image is, within what image and
//! disk can hold, and only the tree of it is used.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pod::abi::PodDirectory;
use pod::types::AcName;
use uuid::Uuid;

use super::Error;
use crate::image::{self, render_archive};
use crate::stage1::Exporter;

/// What names and attributes of many small files take in an archive, beyond what they take on the disk.
const SPARE_BYTES: u64 = 1 << 30;

/// The tree of an app of the ended pod at `pod`, as an image in `file`, which is empty.
pub fn import(
    pod: &Path,
    uuid: Uuid,
    app: &AcName,
    file: File,
) -> Result<erofs::Reader<File>, Box<dyn std::error::Error>> {
    let most = most_bytes(&PodDirectory::new(pod), app)?;
    let mut exporter = Exporter::start(pod, uuid, app)?;
    let imported = render_archive(Bounded { input: exporter.archive(), left: most, most }, file);
    // Why an archive ends too early is what the stage1 says.
    exporter.finish(imported.is_ok())?;
    let (_, file) = imported.map_err(|source| Error::GuestTree { app: app.to_string(), source })?;
    erofs::Reader::open(file).map_err(|error| image::Error::from(error).into())
}

/// The most that an archive of the app may be: files are no longer than what they are on, unless they are sparse.
fn most_bytes(directory: &PodDirectory, app: &AcName) -> Result<u64, Error> {
    let length = |path: &Path| match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        metadata => metadata.map(|file| file.len()).map_err(Error::io("look at", path)),
    };
    let held = length(&directory.app_image(app))?.saturating_add(length(&directory.scratch())?);
    Ok(held.saturating_mul(2).saturating_add(SPARE_BYTES))
}

/// A stream that is an error when it is too long.
struct Bounded<R> {
    input: R,
    left: u64,
    most: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it has more than {} bytes, which image and disk cannot hold",
                self.most
            ))
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_an_end() {
        let read = |most| {
            let mut all = Vec::new();
            Bounded { input: io::repeat(7).take(100), left: most, most }
                .read_to_end(&mut all)
                .map(|_| all.len())
        };
        assert_eq!(read(100).unwrap(), 100);
        assert!(read(99).unwrap_err().to_string().contains("more than 99 bytes"));
    }

    #[test]
    fn it_is_bounded_by_what_there_is() {
        let home = tempfile::tempdir().unwrap();
        let (directory, app) = (PodDirectory::new(home.path()), "a".parse().unwrap());
        assert_eq!(most_bytes(&directory, &app).unwrap(), SPARE_BYTES);
        File::create(directory.scratch()).unwrap().set_len(8 << 30).unwrap();
        assert_eq!(most_bytes(&directory, &app).unwrap(), SPARE_BYTES + (16 << 30));
    }
}
