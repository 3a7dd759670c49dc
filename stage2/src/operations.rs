//! Carries operations out, one by one.

mod file;
mod image;
mod loop_device;
mod mounts;
mod overlay;
mod populate;
mod root;
mod volume;

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::symlinkat;
use pod::plan::Operation;

use crate::error::{Error, errno};
use crate::scope::Scope;

/// Carries `operations` out in order, with paths looked up inside `scope` and `trees` for those that attach one; stops at the first that fails. The working
/// directory is anywhere afterwards, `/` after a [`Operation::Root`].
pub(crate) fn carry_out(operations: &[Operation], scope: &Scope, trees: &[OwnedFd]) -> Result<(), Error> {
    operations.iter().try_for_each(|operation| carry_out_one(operation, scope, trees))
}

fn carry_out_one(operation: &Operation, scope: &Scope, trees: &[OwnedFd]) -> Result<(), Error> {
    match operation {
        Operation::SlaveRoot => mounts::enslave_root(),
        Operation::Directory { path, mode } => scope.make_directory(path, *mode),
        Operation::Mount { file_system, source, target, flags, options } => {
            let kind = mounts::Kind { file_system, source: source.as_ref(), flags: *flags, options };
            mounts::mount(scope, &kind, target)
        }
        Operation::Overlay { lower, upper, work, target, label } => {
            overlay::mount(scope, &overlay::Layers { lower, upper, work, label: label.as_ref() }, target)
        }
        Operation::Merge { lower, upper, target } => overlay::merge(scope, lower, upper, target),
        Operation::Image { source, target, dax } => image::mount(scope, source, target, *dax),
        Operation::ReadOnlyDisk { path } => image::make_read_only(path),
        Operation::Idmap { path } => mounts::idmap(scope, trees, path),
        Operation::Bind { source, target, flags } => mounts::bind(scope, source, target, *flags),
        Operation::Attach { tree, target } => volume::attach(scope, trees, *tree, target),
        Operation::Detach { path } => mounts::detach(scope, path),
        Operation::Remove { path } => match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::path("remove", path)(errno(&error)))
            }
            _ => Ok(()),
        },
        Operation::Volume { source, target, read_only } => volume::bind(scope, source, target, *read_only),
        Operation::EmptyFile { path } => volume::make_empty_file(scope, path),
        Operation::EmptyVolume { path, volume } => volume::make_empty(scope, path, volume),
        Operation::Populate { root, path, volume } => populate::populate(scope, root, path, volume),
        Operation::Protect { path } => mounts::protect(scope, path),
        Operation::Hide { path, file, directory } => mounts::hide(scope, path, file, directory),
        Operation::Device { path, major, minor } => {
            let (directory, name) = scope.find_parent(path, "make device")?;
            let everybody = Mode::from_bits_truncate(0o666);
            let number = makedev((*major).into(), (*minor).into());
            mknodat(&directory, name, SFlag::S_IFCHR, everybody, number)
                .map_err(Error::path("make device", path))
        }
        Operation::Symlink { target, path, keep } => {
            let (directory, name) = scope.find_parent(path, "make link")?;
            match symlinkat(target.as_str(), &directory, name) {
                Err(Errno::EEXIST) if *keep => Ok(()),
                made => made.map_err(Error::path("make link", path)),
            }
        }
        Operation::File { path, content, replace } => file::write(scope, path, content, *replace),
        Operation::Hostname(name) => {
            nix::unistd::sethostname(name).map_err(Error::system(format!("set the host name to {name}")))
        }
        Operation::Root { path } => root::change(path),
    }
}
