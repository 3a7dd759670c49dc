//! The guest's initramfs: a cpio archive ("newc" format) of one file, `/init`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// What the archive calls the file.
const NAME: &str = "init";
/// The name that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// A regular file, `rwxr-xr-x`.
const EXECUTABLE: u32 = 0o100_755;
/// Names and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

/// An archive in memory with `init` as its `/init`.
pub fn make(init: &mut File) -> io::Result<File> {
    let archive: OwnedFd = memfd_create(c"initramfs", MFdFlags::MFD_CLOEXEC)?;
    let mut archive = File::from(archive);
    let bytes = init.metadata()?.len();
    let size = u32::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    archive.write_all(&header(NAME, EXECUTABLE, size))?;
    if io::copy(init, &mut archive)? != bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut end = vec![0; padding(bytes as usize)];
    end.extend(header(TRAILER, 0, 0));
    archive.write_all(&end)?;
    Ok(archive)
}

/// An entry's header and name, padded: thirteen hexadecimal fields of eight digits after a magic number.
fn header(name: &str, mode: u32, size: u32) -> Vec<u8> {
    let [inode, uid, gid, links, mtime, device, check] = [0, 0, 0, 1, 0, 0, 0];
    let name_size = name.len() as u32 + 1;
    let fields =
        [inode, mode, uid, gid, links, mtime, size, device, device, device, device, name_size, check];
    let mut header: Vec<u8> = b"070701".to_vec();
    header.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    header.extend(name.as_bytes());
    header.push(0);
    header.resize(header.len() + padding(header.len()), 0);
    header
}

fn padding(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT) - length
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};

    use super::*;

    #[test]
    fn the_archive_holds_the_file() {
        let mut init = tempfile::tempfile().unwrap();
        init.write_all(b"#!/bin/hello").unwrap();
        init.write_all(b"\n").unwrap();
        init.rewind().unwrap();
        let mut archive = make(&mut init).unwrap();
        archive.rewind().unwrap();
        let mut bytes = Vec::new();
        archive.read_to_end(&mut bytes).unwrap();
        // 110 bytes of header, the name with its zero, padding to 116; 13 bytes of contents, padding to 132.
        assert_eq!(&bytes[..14], b"07070100000000");
        assert_eq!(&bytes[14..22], b"000081ed");
        assert_eq!(&bytes[54..62], b"0000000d");
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(&bytes[116..132], b"#!/bin/hello\n\0\0\0");
        assert_eq!(&bytes[132..138], b"070701");
        assert_eq!(&bytes[242..253], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % ALIGNMENT, 0);
    }
}
