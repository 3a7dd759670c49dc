//! The overlay that is an app's root.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use pod::plan::MountFlags;
use pod::selinux::Context;

use super::mounts::{Kind, bind, mount as mount_kind};
use crate::error::{Error, errno};
use crate::scope::Scope;

/// The directories of an overlay.
pub struct Layers<'a> {
    /// The image.
    pub lower: &'a Path,
    /// What is written.
    pub upper: &'a Path,
    /// For the kernel's use.
    pub work: &'a Path,
    /// The SELinux label of all files.
    pub label: Option<&'a Context>,
}

/// Devices are in /dev, which is not of the overlay.
const FLAGS: MountFlags = MountFlags { read_only: false, no_suid: false, no_dev: true, no_exec: false };

pub fn mount(scope: &Scope, layers: &Layers<'_>, target: &Path) -> Result<(), Error> {
    make_upper(layers).map_err(|error| Error::path("make directory", layers.upper)(errno(&error)))?;
    make(layers.work).map_err(|error| Error::path("make directory", layers.work)(errno(&error)))?;
    let options = options(layers);
    let kind = Kind { file_system: "overlay", source: Path::new("overlay"), flags: FLAGS, options: &options };
    mount_kind(scope, &kind, target)
}

/// Mounts `upper` over `lower`, both read-only; `lower` alone, if there is no `upper`.
pub fn merge(scope: &Scope, lower: &Path, upper: &Path, target: &Path) -> Result<(), Error> {
    let flags = MountFlags::INERT.read_only();
    match fs::symlink_metadata(upper) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bind(scope, lower, target, flags),
        Err(error) => Err(Error::path("find the layer", upper)(errno(&error))),
        Ok(_) => {
            let options = format!("lowerdir={}:{}", escape(upper), escape(lower));
            let kind =
                Kind { file_system: "overlay", source: Path::new("overlay"), flags, options: &options };
            mount_kind(scope, &kind, target)
        }
    }
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Whatever the upper directory is, the app's root is: its owner and mode have to be the image's.
fn make_upper(layers: &Layers<'_>) -> io::Result<()> {
    make(layers.upper)?;
    let (wanted, made) = (fs::metadata(layers.lower)?, fs::metadata(layers.upper)?);
    if (wanted.uid(), wanted.gid()) != (made.uid(), made.gid()) {
        chown(layers.upper, Some(wanted.uid()), Some(wanted.gid()))?;
    }
    if wanted.mode() != made.mode() {
        fs::set_permissions(layers.upper, fs::Permissions::from_mode(wanted.mode() & 0o7777))?;
    }
    Ok(())
}

fn options(layers: &Layers<'_>) -> String {
    let [lower, upper, work] = [layers.lower, layers.upper, layers.work].map(escape);
    let label = layers.label.map_or(String::new(), |label| format!(",{}", label.mount_option()));
    format!("lowerdir={lower},upperdir={upper},workdir={work}{label}")
}

/// Overlayfs separates options by `,` and lower directories by `:`, and takes both literally after a `\`.
fn escape(path: &Path) -> String {
    let text = String::from_utf8_lossy(path.as_os_str().as_bytes());
    text.chars().fold(String::new(), |mut escaped, c| {
        if matches!(c, '\\' | ':' | ',') {
            escaped.push('\\');
        }
        escaped.push(c);
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_are_escaped() {
        assert_eq!(escape(Path::new(r"/a:b/c,d\e")), r"/a\:b/c\,d\\e");
        let (lower, upper, work) = (Path::new("/l"), Path::new("/u,"), Path::new("/w"));
        let layers = Layers { lower, upper, work, label: None };
        assert_eq!(options(&layers), r"lowerdir=/l,upperdir=/u\,,workdir=/w");
    }
}
