//! Executing a program so that nobody writes to its file through the process (CVE-2019-5736). While a process of a pod is
//! still on its way to its program it is our stage1, and `/proc/PID/exe` is a way to the host's file for whoever is root in the
//! pod and is quicker. So the process gets the file from a mount of its own that is read-only; the mount is there as long as the
//! process.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

/// A program that can be executed.
#[derive(Debug)]
pub enum Program {
    /// By this descriptor, on a read-only mount.
    Mounted(OwnedFd),
    /// As it is: it need not be protected, or is a script, which is not what the process executes.
    Plain(PathBuf),
}

impl Program {
    /// What to execute.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Mounted(file) => format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
            Self::Plain(path) => path.clone(),
        }
    }
}

/// The program at `path`, which may be a link to it.
pub fn program(path: &Path) -> io::Result<Program> {
    let mut start = [0; 2];
    File::open(path)?.read_exact(&mut start)?;
    if start == *b"#!" {
        return Ok(Program::Plain(path.to_owned()));
    }
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: the path is a C string that outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c_path.as_ptr(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made it, and nobody else knows of it.
    let file = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the path is an empty C string; `attributes` is what the call reads, with its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of_val(&attributes),
        )
    };
    Errno::result(result)?;
    Ok(Program::Mounted(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_executed_as_they_are() {
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert_eq!(program(script.path()).unwrap().path(), script.path());
        assert!(program(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn nobody_writes_to_a_program_through_its_process() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let program = program(Path::new("/bin/sh")).unwrap();
        let flags = nix::sys::statvfs::statvfs(&program.path()).unwrap().flags();
        assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY));
    }
}
