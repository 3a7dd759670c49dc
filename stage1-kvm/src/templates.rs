//! What a machine starts from: a template that is kept for its shape, or else the kernel.
//!
//! Templates are in `/run/rkt/templates` until the host boots again, a file for each shape of machine that has been wanted, and the
//! least used go when there are too many. The first machine of a shape makes it, which takes as long as one more start. What
//! a machine cannot have of a template costs it time, and nothing else.

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::sys::stat::futimens;
use nix::sys::statvfs::fstatvfs;
use nix::sys::time::TimeSpec;
use nix::unistd::linkat;
use stage2::causes;
use vmm::template::{self, Key};
use vmm::{Kvm, Shape, Start, Template};

use crate::error::Error;
use crate::template_maker::{self, Made, Recipe};

const DIRECTORY: &str = "/run/rkt/templates";
/// A template has a descriptor of 64 bytes for each page of the machine's memory: of more than this they are not worth it.
const MEMORY_MAX: u64 = 4 << 30;
const DESCRIPTORS_SHARE: u64 = 64;
/// What a kernel touches as it boots, beside those.
const BASE_BYTES: u64 = 32 << 20;
/// How often is looked whether somebody else has made one.
const LOOK: Duration = Duration::from_millis(20);
/// The most that all templates take.
const ALL_BYTES: u64 = 256 << 20;

/// What a machine of this shape starts from. `None` if the pod is to end before that is known, which `interrupted` tells.
pub fn start(kvm: &Kvm, shape: &Shape, kernel: File, interrupted: &dyn Fn() -> bool) -> Option<Start> {
    if shape.memory_bytes > MEMORY_MAX || !template::is_possible(kvm) {
        return Some(Start::Kernel(kernel));
    }
    match find_or_make(Path::new(DIRECTORY), Recipe { kvm, shape, kernel: &kernel }, interrupted) {
        Ok(Found::Template(template)) => Some(Start::Template(template)),
        Ok(Found::NoRoom) => Some(Start::Kernel(kernel)),
        Ok(Found::Interrupted) => None,
        Err(error) => {
            let why = causes(&error).join(": ");
            eprintln!("stage1-kvm: this VM boots its kernel, for it has no template: {why}");
            Some(Start::Kernel(kernel))
        }
    }
}

/// A template, or why there is none although nothing has failed.
enum Found {
    Template(Template),
    NoRoom,
    Interrupted,
}

fn find_or_make(
    directory: &Path,
    recipe: Recipe<'_>,
    interrupted: &dyn Fn() -> bool,
) -> Result<Found, Error> {
    let shape = recipe.shape;
    let key = key(shape, recipe.kernel)?;
    let path = directory.join(name(&key));
    if let Some(template) = open(&path, &key, shape)? {
        return Ok(Found::Template(template));
    }
    let file = |action| move |source| stage1::Error::File { action, path: directory.to_owned(), source };
    prepare(directory).map_err(file("keep templates in"))?;
    let Some(_lock) = lock(directory, interrupted).map_err(file("lock"))? else {
        return Ok(Found::Interrupted);
    };
    // Somebody else may have made it meanwhile.
    if let Some(template) = open(&path, &key, shape)? {
        return Ok(Found::Template(template));
    }
    make_room(directory).map_err(file("remove templates from"))?;
    let new = unnamed(directory).map_err(file("make a template in"))?;
    if !has_room(&new, shape).map_err(file("look for room in"))? {
        return Ok(Found::NoRoom);
    }
    if template_maker::make(recipe, &new, &key, interrupted)? == Made::Interrupted {
        return Ok(Found::Interrupted);
    }
    give_name(&new, &path).map_err(file("make a template in"))?;
    match open(&path, &key, shape)? {
        Some(template) => Ok(Found::Template(template)),
        None => Err(Error::Template { path }),
    }
}

/// What the template depends on: the shape, the kernel, and this program.
fn key(shape: &Shape, kernel: &File) -> Result<Key, Error> {
    let failed = |source| Error::System { action: "tell which kernel and which program these are", source };
    let program = fs::metadata("/proc/self/exe").map_err(failed)?;
    let identity = |file: &Metadata| {
        let times = [file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()];
        (file.dev(), file.ino(), file.size(), times)
    };
    let what = (identity(&kernel.metadata().map_err(failed)?), identity(&program), shape.describe());
    // Nobody who would look for two that hash alike has a say in any of it.
    let part = |number: u8| {
        let mut hasher = DefaultHasher::new();
        (number, &what).hash(&mut hasher);
        hasher.finish().to_le_bytes()
    };
    let mut key = Key::default();
    key.chunks_exact_mut(8).zip(0..).for_each(|(bytes, number)| bytes.copy_from_slice(&part(number)));
    Ok(key)
}

fn name(key: &Key) -> String {
    key.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The template at `path`, and notes that it is used. What is there and is none is removed.
fn open(path: &Path, key: &Key, shape: &Shape) -> Result<Option<Template>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    // Who used it when decides only what goes first.
    let _unknown = futimens(&file, &TimeSpec::UTIME_NOW, &TimeSpec::UTIME_NOW);
    let template = Template::open(file, key, shape).map_err(failed)?;
    if template.is_none() {
        fs::remove_file(path).map_err(failed)?;
    }
    Ok(template)
}

/// The directory, in which nobody but root has anything.
fn prepare(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let owner = fs::symlink_metadata(directory)?;
    if owner.is_dir() && owner.uid() == 0 && owner.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::PermissionDenied, "others than root may write there"))
}

/// Waits until nobody else makes a template: many pods of one shape that start at the same time need one. `None` if the pod is to end.
fn lock(directory: &Path, interrupted: &dyn Fn() -> bool) -> io::Result<Option<Flock<File>>> {
    let mut file = File::open(directory)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((_, errno)) if errno != Errno::EWOULDBLOCK => return Err(errno.into()),
            Err(_) if interrupted() => return Ok(None),
            Err((unlocked, _)) => file = unlocked,
        }
        std::thread::sleep(LOOK);
    }
}

/// Removes the least used templates until those that stay leave room for one more.
fn make_room(directory: &Path) -> io::Result<()> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.metadata() {
            Ok(file) => all.push(Kept {
                used: (file.mtime(), file.mtime_nsec()),
                bytes: file.blocks().saturating_mul(512),
                path: entry.path(),
            }),
            // Somebody else makes room.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for path in too_many(all) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A template that is there.
#[derive(Clone, Debug)]
struct Kept {
    used: (i64, i64),
    bytes: u64,
    path: PathBuf,
}

fn too_many(mut all: Vec<Kept>) -> Vec<PathBuf> {
    all.sort_by_key(|kept| std::cmp::Reverse(kept.used));
    let mut sum = 0_u64;
    let mut exceeds = |kept: &Kept| {
        sum = sum.saturating_add(kept.bytes);
        sum > ALL_BYTES
    };
    all.into_iter().filter(|kept| exceeds(kept)).map(|kept| kept.path).collect()
}

/// A file that vanishes if nobody gives it a name.
fn unnamed(directory: &Path) -> io::Result<File> {
    File::options().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(directory)
}

fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let here = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(AT_FDCWD, here.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        // Somebody else was faster, with an equal one.
        Err(nix::Error::EEXIST) => Ok(()),
        linked => Ok(linked?),
    }
}

/// Whether there is room for a template twice: to write to memory that its file system cannot give ends a process.
fn has_room(file: &File, shape: &Shape) -> io::Result<bool> {
    let free = fstatvfs(file)?;
    let free = free.blocks_available().saturating_mul(free.fragment_size());
    Ok(free / 2 >= BASE_BYTES + shape.memory_bytes / DESCRIPTORS_SHARE)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use vmm::{Leaves, VcpuCount};

    use super::*;

    #[test]
    fn the_least_used_go_first() {
        let kept = |used, mib: u64, path: &str| Kept { used: (used, 0), bytes: mib << 20, path: path.into() };
        let all = vec![kept(1, 100, "old"), kept(3, 100, "new"), kept(2, 100, "middle")];
        assert_eq!(too_many(all.clone()), [PathBuf::from("old")]);
        assert!(too_many(all[1..].to_vec()).is_empty());
        assert_eq!(too_many(vec![kept(1, 300, "huge")]), [PathBuf::from("huge")]);
    }

    #[test]
    fn a_file_has_its_name_once_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let new = || {
            let mut file = unnamed(directory.path()).unwrap();
            file.write_all(b"x").unwrap();
            file
        };
        drop(new());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        give_name(&new(), &path).unwrap();
        give_name(&new(), &path).unwrap();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn one_at_a_time_makes_a_template() {
        let directory = tempfile::tempdir().unwrap();
        let first = lock(directory.path(), &|| false).unwrap();
        assert!(first.is_some());
        assert!(lock(directory.path(), &|| true).unwrap().is_none(), "the pod is to end");
        drop(first);
        assert!(lock(directory.path(), &|| true).unwrap().is_some());
    }

    #[test]
    fn what_is_no_template_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, vec![7; 10_000]).unwrap();
        let shape = Shape::new(Leaves::new(VcpuCount::ONE, Vec::new()), 64 << 20);
        assert!(open(&path, &[0; 32], &shape).unwrap().is_none());
        assert!(!path.exists());
        assert!(open(&path, &[0; 32], &shape).unwrap().is_none());
    }

    #[test]
    fn nobody_else_may_write_there() {
        let directory = tempfile::tempdir().unwrap();
        let templates = directory.path().join("rkt/templates");
        let result = prepare(&templates);
        // As root, which is who runs pods.
        assert_eq!(result.is_ok(), nix::unistd::getuid().is_root());
        fs::set_permissions(&templates, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(prepare(&templates).is_err());
    }
}
