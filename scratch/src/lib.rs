//! Makes an empty ext4 file system in a sparse file: the writable layer of a pod that runs in a micro-VM.
//!
//! The file system is temporary and nobody else's, so it has what makes it small and quick to make, and to mount, and
//! leaves out what serves repair and growth:
//!
//! - no journal: after a crash nobody writes to it again, and who reads it takes what is there;
//! - `uninit_bg`: block and inode bitmaps of untouched groups need not be there; the first and the last group have them;
//! - no `flex_bg`, with which those of other groups' metadata would have to be written;
//! - `sparse_super2` without a backup: no copies of superblock and descriptors;
//! - inode tables count as zeroed, which they are: the file is sparse. The guest has nothing to do later.
//!
//! What is written is the head of the first group (for 64 GiB: ten blocks) and one bitmap. Kernels since 3.16 mount it.

mod geometry;
mod group;
mod inode;
mod superblock;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use thiserror::Error;

pub use geometry::{MAX_BYTES, MIN_BYTES};

use geometry::{BLOCK, Geometry};

/// Why there is no file system.
#[derive(Debug, Error)]
pub enum Error {
    /// The size is out of range.
    #[error(
        "a scratch disk of {0} bytes is not possible; ask for {MIN_BYTES} (64 MiB) to {MAX_BYTES} (1 TiB)"
    )]
    Size(u64),
    /// The file could not be set to its size.
    #[error("cannot make a sparse file of {bytes} bytes for the scratch disk")]
    Resize {
        /// The size.
        bytes: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file could not be written.
    #[error("cannot write the scratch disk at byte {offset}")]
    Write {
        /// Where.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes an empty file system of at most `size_bytes` (a remainder below a block is left over, as is a last part that is
/// too small for its own metadata). What the file held is lost. The same arguments give the same bytes; the UUID has to
/// be random, as it also seeds the hashes of file names. Its root directory has mode 0755 and belongs to root.
pub fn format(file: &File, size_bytes: u64, uuid: [u8; 16]) -> Result<(), Error> {
    let geometry = Geometry::of(size_bytes).ok_or(Error::Size(size_bytes))?;
    for bytes in [0, size_bytes] {
        file.set_len(bytes).map_err(|source| Error::Resize { bytes, source })?;
    }
    for (offset, data) in contents(&geometry, uuid) {
        file.write_all_at(&data, offset).map_err(|source| Error::Write { offset, source })?;
    }
    Ok(())
}

/// All that is not zero, by its offset.
fn contents(geometry: &Geometry, uuid: [u8; 16]) -> Vec<(u64, Vec<u8>)> {
    let mut head = superblock::encode(geometry, uuid);
    head.extend(padded(group::descriptors(geometry, uuid), geometry.descriptor_blocks()));
    head.extend(group::block_bitmap(geometry, 0));
    head.extend(group::inode_bitmap(geometry));
    head.extend(inode::root_block());
    head.extend(inode::lost_found_block());
    head.extend(padded(inode::table(geometry), 1));
    let mut contents = vec![(0, head)];
    let last = geometry.groups - 1;
    if last > 0 {
        contents.push((u64::from(geometry.block_bitmap(last)) * BLOCK, group::block_bitmap(geometry, last)));
    }
    contents
}

fn padded(mut bytes: Vec<u8>, blocks: u32) -> Vec<u8> {
    bytes.resize(blocks as usize * BLOCK as usize, 0);
    bytes
}
