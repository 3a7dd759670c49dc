//! Carries operations out, one by one.

mod file;
mod image;
mod loop_device;
mod mounts;
mod overlay;
mod root;

use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::symlinkat;
use pod::plan::Operation;

use crate::error::Error;
use crate::scope::Scope;

/// Carries `operations` out in order, with paths looked up inside `scope`; stops at the first that fails. The working
/// directory is anywhere afterwards, `/` after a [`Operation::Root`].
pub(crate) fn carry_out(operations: &[Operation], scope: &Scope) -> Result<(), Error> {
    operations.iter().try_for_each(|operation| carry_out_one(operation, scope))
}

fn carry_out_one(operation: &Operation, scope: &Scope) -> Result<(), Error> {
    match operation {
        Operation::SlaveRoot => mounts::enslave_root(),
        Operation::Directory { path, mode } => scope.make_directory(path, *mode),
        Operation::Mount { file_system, source, target, flags, options } => {
            let kind = mounts::Kind { file_system, source: source.as_ref(), flags: *flags, options };
            mounts::mount(scope, &kind, target)
        }
        Operation::Overlay { lower, upper, work, target } => {
            overlay::mount(scope, &overlay::Layers { lower, upper, work }, target)
        }
        Operation::Image { source, target, dax } => image::mount(scope, source, target, *dax),
        Operation::Bind { source, target, flags } => mounts::bind(scope, source, target, *flags),
        Operation::Protect { path } => mounts::protect(scope, path),
        Operation::Device { path, major, minor } => {
            let (directory, name) = scope.find_parent(path, "make device")?;
            let everybody = Mode::from_bits_truncate(0o666);
            let number = makedev((*major).into(), (*minor).into());
            mknodat(&directory, name, SFlag::S_IFCHR, everybody, number)
                .map_err(Error::path("make device", path))
        }
        Operation::Symlink { target, path } => {
            let (directory, name) = scope.find_parent(path, "make link")?;
            symlinkat(target.as_str(), &directory, name).map_err(Error::path("make link", path))
        }
        Operation::File { path, content } => file::write(scope, path, content),
        Operation::Hostname(name) => {
            nix::unistd::sethostname(name).map_err(Error::system(format!("set the host name to {name}")))
        }
        Operation::Root { path } => root::change(path),
    }
}
