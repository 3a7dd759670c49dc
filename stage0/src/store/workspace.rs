//! Directories in which something is made before it gets its final name.
//!
//! A workspace has the name of what is made, and belongs to the process that holds the lock (flock) on it: who wants to
//! make the same waits, and then finds it made. One that nobody holds is left from a crash: the next who wants to make
//! the same clears it, or `rkt gc` does.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::remove;

/// A directory that this process alone uses; it is removed with all that is in it, unless it was renamed.
pub struct Workspace {
    path: PathBuf,
    lock: File,
}

impl Workspace {
    /// Makes the directory, or takes over an abandoned one; waits while another process has it.
    pub fn acquire(path: PathBuf) -> io::Result<Self> {
        loop {
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let lock = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            lock.lock()?;
            // While we waited, its owner may have renamed or removed it.
            if is_same(&lock, &path)? {
                let workspace = Self { path, lock };
                remove::contents(&workspace.path)?;
                return Ok(workspace);
            }
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the directory's group look into it.
    pub fn open_to_group(&self) -> io::Result<()> {
        let mode = self.lock.metadata()?.mode() | 0o050;
        self.lock.set_permissions(Permissions::from_mode(mode))
    }

    /// Makes everything in the directory durable, gives it its final name, and leaves it there. An existing
    /// destination that is not empty stays, and is the error `AlreadyExists`.
    pub fn rename(&self, destination: &Path) -> io::Result<()> {
        self.lock.sync_all()?;
        match fs::rename(&self.path, destination) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(io::ErrorKind::AlreadyExists.into())
            }
            result => result,
        }?;
        sync_parent(destination)
    }

    /// The same, but whoever was first with a destination has made the same.
    pub fn settle(&self, destination: &Path) -> io::Result<()> {
        match self.rename(destination) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            renamed => renamed,
        }
    }

    /// Makes everything in the directory durable, puts it in the place of another one, and removes that.
    pub fn replace(&self, destination: &Path) -> io::Result<()> {
        self.lock.sync_all()?;
        // It will be what others find here, and wait for.
        let old = File::open(destination)?;
        old.lock()?;
        renameat2(AT_FDCWD, &self.path, AT_FDCWD, destination, RenameFlags::RENAME_EXCHANGE)?;
        sync_parent(destination)?;
        remove::tree(&self.path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Renamed, it is no longer here; what cannot be removed is left for gc.
        if is_same(&self.lock, &self.path).unwrap_or(false) {
            let _ = remove::tree(&self.path);
        }
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn is_same(open: &File, path: &Path) -> io::Result<bool> {
    let open = open.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((open.dev(), open.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the workspaces that nobody holds.
pub fn remove_abandoned(parent: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let Ok(lock) = File::open(&path) else { continue };
        if lock.try_lock().is_ok() && is_same(&lock, &path)? {
            remove::tree(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time_and_nothing_left() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("w");
        let first = Workspace::acquire(path.clone()).unwrap();
        fs::write(first.path().join("f"), "x").unwrap();
        let waiting = std::thread::spawn({
            let path = path.clone();
            move || {
                let second = Workspace::acquire(path.clone()).unwrap();
                let empty = fs::read_dir(second.path()).unwrap().next().is_none();
                let renamed = path.with_extension("done");
                second.rename(&renamed).unwrap();
                empty && renamed.exists() && !path.exists()
            }
        });
        std::thread::sleep(std::time::Duration::from_millis(50));
        remove_abandoned(parent.path()).unwrap();
        assert!(path.join("f").exists(), "it is held");
        drop(first);
        assert!(waiting.join().unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn one_takes_the_place_of_another() {
        let parent = tempfile::tempdir().unwrap();
        let done = parent.path().join("done");
        fs::create_dir(&done).unwrap();
        fs::write(done.join("old"), "").unwrap();
        let workspace = Workspace::acquire(parent.path().join("w")).unwrap();
        fs::write(workspace.path().join("new"), "").unwrap();
        workspace.replace(&done).unwrap();
        assert!(done.join("new").exists() && !done.join("old").exists());
        assert!(!parent.path().join("w").exists());
        let workspace = Workspace::acquire(parent.path().join("w")).unwrap();
        assert!(workspace.replace(&parent.path().join("nothing")).is_err());
        drop(workspace);
        assert!(!parent.path().join("w").exists());
    }

    #[test]
    fn the_abandoned_are_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("w");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "x").unwrap();
        assert!(!Workspace::acquire(path.clone()).unwrap().path().join("f").exists());
        fs::create_dir(&path).unwrap();
        remove_abandoned(parent.path()).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn who_comes_second_keeps_the_first_result() {
        let parent = tempfile::tempdir().unwrap();
        let done = parent.path().join("done");
        fs::create_dir(&done).unwrap();
        fs::write(done.join("f"), "first").unwrap();
        let workspace = Workspace::acquire(parent.path().join("w")).unwrap();
        let error = workspace.rename(&done).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
