//! What the supervisor can do.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::selinux::Context;
use crate::volumes::EmptyVolume;

/// One operation. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Makes every mount from the root down a slave: ours do not reach the host, the host's unmounts reach us.
    SlaveRoot,
    /// Makes a directory, and those above it, unless it is there; a new one gets exactly `mode`.
    Directory {
        /// The directory.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Mounts a new file system.
    Mount {
        /// As in /proc/filesystems.
        file_system: String,
        /// The device, or a name to be shown.
        source: String,
        /// An existing directory.
        target: PathBuf,
        /// How.
        flags: MountFlags,
        /// The file system's own options.
        options: String,
    },
    /// Mounts the overlay that is an app's root.
    Overlay {
        /// The image.
        lower: PathBuf,
        /// The pod's own layer; made if missing.
        upper: PathBuf,
        /// Overlayfs's working directory on the same file system; made if missing.
        work: PathBuf,
        /// An existing directory.
        target: PathBuf,
        /// The SELinux label of all its files; their own, if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<Context>,
    },
    /// Mounts what an app's root was, read-only: its layer over its image, or the image alone if it has no layer.
    Merge {
        /// The image.
        lower: PathBuf,
        /// What the app has written; need not be there.
        upper: PathBuf,
        /// An existing directory.
        target: PathBuf,
    },
    /// Mounts an image read-only, directly or, on kernels before 6.12, through a loop device that vanishes with the mount.
    Image {
        /// The EROFS file, or a block device with it.
        source: PathBuf,
        /// An existing directory.
        target: PathBuf,
        /// Whether the device is persistent memory that is mapped rather than read.
        dax: bool,
    },
    /// Makes a block device and its partitions refuse writes.
    ReadOnlyDisk {
        /// The device.
        path: PathBuf,
    },
    /// Lays over a mount the same with its owners shifted into the pod's user namespace (namespaces), which is the first of
    /// the descriptors that were handed over.
    Idmap {
        /// The mount's directory.
        path: PathBuf,
    },
    /// Binds a directory or file to another place.
    Bind {
        /// What is there already.
        source: PathBuf,
        /// Where it is to appear as well; exists.
        target: PathBuf,
        /// How; a bind mount takes flags only by a remount, which is part of the operation.
        flags: MountFlags,
    },
    /// Attaches a tree that was opened before the plan is carried out (namespaces), by its place in the list of them. A volume
    /// that apps may only read is read-only in all its parts from here on.
    Attach {
        /// Which.
        tree: usize,
        /// An existing directory, or a file if the tree is one.
        target: PathBuf,
    },
    /// Detaches what is mounted at a place, and removes that, a directory or a file. What is not there is no error.
    Detach {
        /// Where.
        path: PathBuf,
    },
    /// Removes a directory with all that is in it, which is mounted nowhere any more. One that is not there is no error.
    Remove {
        /// The directory.
        path: PathBuf,
    },
    /// Binds a volume, with what is mounted in it, to a place in an app.
    Volume {
        /// What is there already.
        source: PathBuf,
        /// Where it is to appear as well; exists.
        target: PathBuf,
        /// Whether all of it is read-only there.
        read_only: bool,
    },
    /// Makes an empty file that others can be bound to, and the directories above it, unless something is there.
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// Makes the directory of an empty volume, and those above it.
    EmptyVolume {
        /// The directory, which is new.
        path: PathBuf,
        /// Its permission bits and owner.
        volume: EmptyVolume,
    },
    /// Copies what an app's image has in a directory into an empty volume, which takes its owner and mode over as well.
    Populate {
        /// The app's root, which links do not lead out of.
        root: PathBuf,
        /// The directory in there, from the app's root; it need not exist.
        path: PathBuf,
        /// The volume's directory.
        volume: PathBuf,
    },
    /// Makes a file or directory of a kernel file system read-only, without programs and devices; not every kernel has
    /// every one, and what is not there needs no protection.
    Protect {
        /// What.
        path: PathBuf,
    },
    /// Lays an empty file over a file of a kernel file system, or an empty directory over a directory, read-only; where a
    /// kernel has none there is nothing to hide.
    Hide {
        /// What.
        path: PathBuf,
        /// The empty file.
        file: PathBuf,
        /// The empty directory.
        directory: PathBuf,
    },
    /// Makes a character device that everybody may use.
    Device {
        /// The node.
        path: PathBuf,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Makes a symbolic link.
    Symlink {
        /// What it says.
        target: String,
        /// The link.
        path: PathBuf,
        /// What has its name already stays; else that is an error.
        keep: bool,
    },
    /// Writes a file that everybody may read.
    File {
        /// The file.
        path: PathBuf,
        /// What is in it.
        content: String,
        /// In the place of whatever has its name; else only if nothing has.
        replace: bool,
    },
    /// Sets the host name of the UTS namespace.
    Hostname(String),
    /// Makes `path` the root of the mount namespace, and drops the old one.
    Root {
        /// A mount point.
        path: PathBuf,
    },
}

/// Flags of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountFlags {
    /// No writing.
    pub read_only: bool,
    /// No set-user-id.
    pub no_suid: bool,
    /// No devices.
    pub no_dev: bool,
    /// No programs.
    pub no_exec: bool,
}

impl MountFlags {
    /// For file systems that hold no programs of the image: nosuid, nodev, noexec.
    pub const INERT: Self = Self { read_only: false, no_suid: true, no_dev: true, no_exec: true };

    /// The same, read-only.
    pub const fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }
}
