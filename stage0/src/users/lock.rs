//! Files that are nothing but locks (flock), and are removed when nobody has them.
//!
//! Who opens such a file may lock it when it has just been removed, and somebody else makes and locks a new one of its name. So a
//! lock counts only if its file is still there under its name; and that is removed only by who has the lock.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Takes the lock of a file, which is made if need be; none if somebody else has it.
pub fn take(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        match lock(&file, path)? {
            Lock::Taken => return Ok(Some(file)),
            Lock::Elsewhere => return Ok(None),
            Lock::Removed => {}
        }
    }
}

/// Removes a file whose lock nobody has.
pub fn remove(path: &Path) -> io::Result<()> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match lock(&file, path)? {
        Lock::Taken => fs::remove_file(path),
        Lock::Elsewhere | Lock::Removed => Ok(()),
    }
}

/// What has become of a lock.
enum Lock {
    /// This process has it.
    Taken,
    /// Somebody else has it.
    Elsewhere,
    /// This process has it, but the file of that name is another one, or none.
    Removed,
}

fn lock(file: &File, path: &Path) -> io::Result<Lock> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Lock::Elsewhere),
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    let locked = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (locked.dev(), locked.ino()) => Ok(Lock::Taken),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(Lock::Removed),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    #[test]
    fn only_what_nobody_has_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        let taken = take(&path).unwrap().unwrap();
        assert!(take(&path).unwrap().is_none());
        remove(&path).unwrap();
        assert!(path.exists());
        drop(taken);
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }

    #[test]
    fn a_lock_of_a_removed_file_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        let old = File::create(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(lock(&old, &path).unwrap(), Lock::Removed));
        let new = take(&path).unwrap().unwrap();
        assert!(matches!(lock(&old, &path).unwrap(), Lock::Removed));
        drop(new);
    }

    #[test]
    fn never_two_at_once_while_it_is_removed_all_the_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        let (owners, end) = (AtomicU32::new(0), AtomicBool::new(false));
        let own = || {
            let mut times = 0;
            while times < 2000 {
                let Some(file) = take(&path).unwrap() else { continue };
                assert_eq!(owners.fetch_add(1, Ordering::SeqCst), 0);
                std::thread::yield_now();
                owners.fetch_sub(1, Ordering::SeqCst);
                drop(file);
                times += 1;
            }
        };
        std::thread::scope(|scope| {
            let takers = [scope.spawn(own), scope.spawn(own)];
            let remover = scope.spawn(|| {
                while !end.load(Ordering::SeqCst) {
                    remove(&path).unwrap();
                }
            });
            let results = takers.map(std::thread::ScopedJoinHandle::join);
            end.store(true, Ordering::SeqCst);
            remover.join().unwrap();
            results.into_iter().for_each(Result::unwrap);
        });
    }
}
