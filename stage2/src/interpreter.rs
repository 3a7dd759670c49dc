//! Why a program cannot be executed, found out by walking from it to its interpreter, and from there to that one's: the
//! kernel has one word for all of them, and says it of the program.

use std::fmt::{self, Display};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest path and the longest `#!` line that are read.
const MAX_BYTES: usize = 4096;
/// ELF64 (System V gABI): sizes, and the type of the segment with the interpreter's path.
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_INTERP: u32 = 3;
/// Where both ELF32 and ELF64 have the machine.
const MACHINE_OFFSET: usize = 18;
/// This machine (System V ABI, `EM_X86_64`).
const OWN_MACHINE: u16 = 62;
/// Machines by their numbers.
const MACHINES: [(u16, &str); 9] = [
    (3, "i386"),
    (8, "mips"),
    (20, "ppc"),
    (21, "ppc64"),
    (22, "s390x"),
    (40, "arm"),
    (OWN_MACHINE, "x86-64"),
    (183, "aarch64"),
    (243, "riscv"),
];
/// How many interpreters of interpreters the kernel goes through.
const MAX_DEPTH: usize = 5;

/// What is wrong with a program, or with an interpreter that it needs.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// No bit allows its execution.
    NotExecutable,
    /// It is not a file.
    NotAFile,
    /// It is for another machine.
    Foreign(u16),
    /// It is neither an ELF program nor a script.
    NoProgram,
}

/// The first file on the way that has a fault, and the fault; `None` if none can be seen.
pub fn culprit(program: &Path) -> Option<(PathBuf, Fault)> {
    let mut path = program.to_owned();
    for _ in 0..MAX_DEPTH {
        if let Some(fault) = permission_fault(&path) {
            return Some((path, fault));
        }
        path = match next(&path)? {
            Next::Interpreter(interpreter) => interpreter,
            Next::Fault(fault) => return Some((path, fault)),
            Next::Nothing => return None,
        };
    }
    None
}

fn permission_fault(path: &Path) -> Option<Fault> {
    match std::fs::metadata(path) {
        Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(Fault::Missing),
        Ok(metadata) if !metadata.is_file() => Some(Fault::NotAFile),
        Ok(metadata) => (metadata.permissions().mode() & 0o111 == 0).then_some(Fault::NotExecutable),
    }
}

enum Next {
    Interpreter(PathBuf),
    Fault(Fault),
    Nothing,
}

/// What the kernel would look at after this file; `None` if it cannot be read.
fn next(path: &Path) -> Option<Next> {
    let mut file = File::open(path).ok()?;
    let start = read_up_to(&mut file, MAX_BYTES)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        return Some(script_interpreter(line).map_or(Next::Fault(Fault::NoProgram), Next::Interpreter));
    }
    if !start.starts_with(b"\x7fELF") {
        return Some(Next::Fault(Fault::NoProgram));
    }
    let machine = field(&start, MACHINE_OFFSET).map(u16::from_le_bytes).unwrap_or_default();
    if machine != OWN_MACHINE {
        return Some(Next::Fault(Fault::Foreign(machine)));
    }
    Some(interpreter_of_elf(&mut file, &start).map_or(Next::Nothing, Next::Interpreter))
}

fn interpreter_of_elf(file: &mut File, start: &[u8]) -> Option<PathBuf> {
    let (offset, length) = elf_interpreter(start)?;
    file.seek(SeekFrom::Start(offset)).ok()?;
    let mut path = read_up_to(file, length.min(MAX_BYTES))?;
    path.truncate(path.iter().position(|byte| *byte == 0)?);
    Some(PathBuf::from(std::ffi::OsString::from_vec(path)))
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is not in the image"),
            Self::NotExecutable => f.write_str("is not executable"),
            Self::NotAFile => f.write_str("is not a file"),
            Self::NoProgram => {
                f.write_str("is no program of this machine's architecture, and no script with #!")
            }
            Self::Foreign(number) => match MACHINES.iter().find(|(machine, _)| machine == number) {
                Some((_, name)) => {
                    write!(f, "is a program of the architecture {name}, this machine's is x86-64")
                }
                None => write!(f, "is a program of another architecture (ELF machine {number})"),
            },
        }
    }
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
    use std::fs;

    fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
        let end = 64 + PROGRAM_HEADER_BYTES;
        let mut bytes = vec![0; end];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
        bytes[56..58].copy_from_slice(&1u16.to_le_bytes());
        bytes[64..68].copy_from_slice(&PT_INTERP.to_le_bytes());
        bytes[72..80].copy_from_slice(&(end as u64).to_le_bytes());
        bytes[96..104].copy_from_slice(&(interpreter.len() as u64 + 1).to_le_bytes());
        bytes.extend(interpreter.as_bytes());
        bytes.push(0);
        bytes
    }

    #[test]
    fn the_fault_is_found_on_the_way() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name).display().to_string();
        let file = |name: &str, content: &[u8], mode| {
            fs::write(at(name), content).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        file("ld", &elf(62, "")[..100], 0o755);
        file("plain", b"x", 0o644);
        file("text", b"hello", 0o755);
        file("arm", &elf(183, "/lib/ld.so"), 0o755);
        file("good", &elf(62, &at("ld")), 0o755);
        file("no-ld", &elf(62, &at("nowhere")), 0o755);
        file("bad-ld", &elf(62, &at("plain")), 0o755);
        file("script", format!("#! {} -e\n", at("no-ld")).as_bytes(), 0o755);
        file("script-arm", format!("#!{}\n", at("arm")).as_bytes(), 0o755);
        file("loop", format!("#!{}\n", at("loop")).as_bytes(), 0o755);
        file("empty-line", b"#!\n", 0o755);
        for (name, expected) in [
            ("good", None),
            ("loop", None),
            ("nope", Some(("nope", Fault::Missing))),
            ("plain", Some(("plain", Fault::NotExecutable))),
            ("text", Some(("text", Fault::NoProgram))),
            ("empty-line", Some(("empty-line", Fault::NoProgram))),
            ("arm", Some(("arm", Fault::Foreign(183)))),
            ("no-ld", Some(("nowhere", Fault::Missing))),
            ("bad-ld", Some(("plain", Fault::NotExecutable))),
            ("script", Some(("nowhere", Fault::Missing))),
            ("script-arm", Some(("arm", Fault::Foreign(183)))),
        ] {
            let expected = expected.map(|(culprit, fault)| (PathBuf::from(at(culprit)), fault));
            assert_eq!(culprit(Path::new(&at(name))), expected, "{name}");
        }
        assert!(matches!(culprit(home.path()), Some((_, Fault::NotAFile))));
        assert!(Fault::Foreign(183).to_string().contains("aarch64"));
    }

    #[test]
    fn headers_that_lie() {
        let program = elf(62, "/lib/ld.so");
        for end in 0..program.len() {
            let _ = elf_interpreter(&program[..end]);
        }
        let mut program = program;
        program[72..80].copy_from_slice(&u64::MAX.to_le_bytes());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, &program).unwrap();
        assert!(matches!(next(file.path()), Some(Next::Nothing)));
    }
}
