//! Removes directories whose content others made: apps write what they like into their pods.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Removes a directory with all that is in it; nothing there is no error.
pub fn tree(path: &Path) -> io::Result<()> {
    match contents(path).and_then(|()| std::fs::remove_dir(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes all that is in a directory.
///
/// Every directory found is first moved to the top, so that no depth of nesting needs a deep stack, many descriptors or
/// long paths. A mount point cannot be moved (EBUSY): what is mounted there is never entered, let alone removed.
pub fn contents(path: &Path) -> io::Result<()> {
    let root = File::open(path)?;
    let mut removal = Removal { root: root.as_fd(), moved: 0, waiting: Vec::new() };
    removal.empty(root.as_fd())?;
    while let Some(name) = removal.waiting.pop() {
        let directory = open_directory(removal.root, &name)?;
        removal.empty(directory.as_fd())?;
        drop(directory);
        unlinkat(removal.root, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
    }
    Ok(())
}

struct Removal<'a> {
    root: BorrowedFd<'a>,
    moved: u64,
    /// Directories at the top that are still to be emptied.
    waiting: Vec<CString>,
}

impl Removal<'_> {
    /// Unlinks the files of a directory, and moves its directories to the top.
    fn empty(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let mut entries = Dir::from_fd(open_directory(directory, c".")?)?;
        let names: Vec<CString> = entries
            .iter()
            .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
            .collect::<Result<_, _>>()?;
        for name in names.iter().filter(|name| !matches!(name.to_bytes(), b"." | b"..")) {
            match unlinkat(directory, name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR | Errno::EPERM) => self.move_up(directory, name)?,
                Err(Errno::ENOENT) | Ok(()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CString) -> io::Result<()> {
        loop {
            // No other name is like this one unless somebody means mischief; then the next is tried.
            let top = CString::new(format!(".removed-{}-{}", std::process::id(), self.moved))?;
            self.moved += 1;
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(directory, name.as_c_str(), self.root, top.as_c_str(), flags) {
                Ok(()) => {
                    self.waiting.push(top);
                    return Ok(());
                }
                Err(Errno::EEXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn deep_trees_and_links() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("root");
        fs::create_dir(&root).unwrap();
        symlink(outside.path(), root.join("link")).unwrap();
        // Deeper than there are descriptors and longer than a path may be.
        let mut directory = OwnedFd::from(File::open(&root).unwrap());
        for _ in 0..3000 {
            nix::sys::stat::mkdirat(&directory, "d", Mode::S_IRWXU).unwrap();
            directory = open_directory(directory.as_fd(), c"d").unwrap();
            nix::sys::stat::mkdirat(&directory, ".removed-0-0", Mode::empty()).unwrap();
        }
        tree(&root).unwrap();
        assert!(!root.exists());
        assert!(outside.path().join("kept").exists());
        tree(&root).unwrap();
    }
}
