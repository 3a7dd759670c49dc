//! Which interpreter a program asks for: the kernel says "no such file" of the program when it is the interpreter that
//! is missing.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The longest path and the longest `#!` line that are read.
const MAX_BYTES: usize = 4096;
/// ELF64 (System V gABI): sizes, and the type of the segment with the interpreter's path.
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_INTERP: u32 = 3;

/// The interpreter in the first line of a script or in an ELF64 program; `None` if there is none, or it cannot be read.
pub fn of(program: &Path) -> Option<PathBuf> {
    let mut file = File::open(program).ok()?;
    let start = read_up_to(&mut file, MAX_BYTES)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return script_interpreter(line);
    }
    let (offset, length) = elf_interpreter(&start)?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut path = read_up_to(&mut file, length.min(MAX_BYTES))?;
    path.truncate(path.iter().position(|byte| *byte == 0)?);
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

fn read_up_to(file: &mut File, bytes: usize) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    file.take(u64::try_from(bytes).ok()?).read_to_end(&mut content).ok()?;
    Some(content)
}

fn script_interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let path = line.split(|byte| byte.is_ascii_whitespace()).next().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())))
}

/// The file offset and length of an ELF64 program's interpreter path; the headers must be in the first page, where
/// every linker puts them.
fn elf_interpreter(start: &[u8]) -> Option<(u64, usize)> {
    start.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let headers = usize::try_from(u64::from_le_bytes(field(start, 32)?)).ok()?;
    let count = usize::from(u16::from_le_bytes(field(start, 56)?));
    let header = start
        .get(headers..)?
        .chunks_exact(PROGRAM_HEADER_BYTES)
        .take(count)
        .find(|header| field(header, 0).map(u32::from_le_bytes) == Some(PT_INTERP))?;
    let length = usize::try_from(u64::from_le_bytes(field(header, 32)?)).ok()?;
    Some((u64::from_le_bytes(field(header, 8)?), length))
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_bytes(content: &[u8]) -> Option<PathBuf> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, content).unwrap();
        of(file.path())
    }

    fn elf(offset: u64, length: u64) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 2 * PROGRAM_HEADER_BYTES];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[56..58].copy_from_slice(&2u16.to_le_bytes());
        let second = 64 + PROGRAM_HEADER_BYTES;
        bytes[second..second + 4].copy_from_slice(&PT_INTERP.to_le_bytes());
        bytes[second + 8..second + 16].copy_from_slice(&offset.to_le_bytes());
        bytes[second + 32..second + 40].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    #[test]
    fn scripts() {
        assert_eq!(of_bytes(b"#! /bin/sh -e\nx").unwrap(), Path::new("/bin/sh"));
        assert_eq!(of_bytes(b"#!\n"), None);
        assert_eq!(of_bytes(b""), None);
    }

    #[test]
    fn elf_programs() {
        let mut program = elf(176, 10);
        program.extend(b"/lib/ld.so\0");
        assert_eq!(of_bytes(&program), None, "the length leaves the end out");
        let mut program = elf(176, 11);
        program.extend(b"/lib/ld.so\0");
        assert_eq!(of_bytes(&program).unwrap(), Path::new("/lib/ld.so"));
        for (offset, length) in [(u64::MAX, 11), (176, u64::MAX)] {
            let _ = of_bytes(&elf(offset, length));
        }
        for end in 0..program.len() {
            let _ = elf_interpreter(&program[..end]);
        }
    }
}
