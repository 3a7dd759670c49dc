//! What this host's kernel can do, as far as that can be told without doing it.

use std::fs;
use std::path::Path;

/// The namespaces that a pod gets of its own.
const NAMESPACES: [&str; 6] = ["cgroup", "ipc", "mnt", "net", "pid", "uts"];
/// The first kernel that mounts an EROFS image from a plain file (CONFIG_EROFS_FS_BACKED_BY_FILE).
const EROFS_FROM_FILES: (u32, u32) = (6, 12);

/// A kernel by its files in /proc.
#[derive(Clone, Debug)]
pub struct Kernel {
    file_systems: String,
}

impl Kernel {
    /// The running kernel.
    pub fn running() -> Self {
        Self { file_systems: fs::read_to_string("/proc/filesystems").unwrap_or_default() }
    }

    /// Whether the kernel has a file system, or can load it.
    pub fn has_file_system(&self, name: &str) -> bool {
        let listed = self.file_systems.lines().any(|line| line.split_whitespace().next_back() == Some(name));
        listed || has_module(name)
    }

    /// How EROFS images can be mounted.
    pub fn erofs(&self) -> Erofs {
        let from_files = version(&release()).is_some_and(|version| version >= EROFS_FROM_FILES);
        match (self.has_file_system("erofs"), from_files) {
            (false, _) => Erofs::None,
            (true, true) => Erofs::Files,
            (true, false) if Path::new("/dev/loop-control").exists() => Erofs::LoopDevices,
            (true, false) => Erofs::None,
        }
    }

    /// What a pod of namespaces needs and this kernel has not.
    pub fn missing_for_namespaces(&self) -> Option<&'static str> {
        self.missing_for_roots().or_else(missing_namespace)
    }

    /// What every app's root needs that the host mounts, and this kernel has not.
    pub fn missing_for_roots(&self) -> Option<&'static str> {
        (!self.has_file_system("overlay")).then_some("overlayfs (CONFIG_OVERLAY_FS)")
    }
}

/// How EROFS images can be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erofs {
    /// Straight from their files.
    Files,
    /// Through loop devices.
    LoopDevices,
    /// Not at all: images are unpacked.
    None,
}

/// The first namespace that the kernel was built without.
pub fn missing_namespace() -> Option<&'static str> {
    let present: Vec<_> = fs::read_dir("/proc/self/ns")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    NAMESPACES.into_iter().find(|name| present.iter().all(|there| there != name))
}

/// The kernel's release, `6.1.0-18-amd64`.
pub fn release() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim_end().to_owned()
}

/// The first two numbers of a release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether a module of this name waits to be loaded by the first mount.
fn has_module(name: &str) -> bool {
    let listed = |list: &str| {
        let path = format!("/lib/modules/{}/{list}", release());
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| is_module(line, name))
    };
    listed("modules.dep") || listed("modules.builtin")
}

/// Whether a line of modules.dep, `kernel/fs/erofs/erofs.ko.xz: ...`, is about a module.
fn is_module(line: &str, name: &str) -> bool {
    let path = line.split(':').next().unwrap_or(line);
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_prefix(name).is_some_and(|rest| rest == ".ko" || rest.starts_with(".ko."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(version("6.12"), Some((6, 12)));
        assert_eq!(version("six"), None);
    }

    #[test]
    fn modules() {
        assert!(is_module("kernel/fs/erofs/erofs.ko.xz: kernel/lib/lz4.ko", "erofs"));
        assert!(is_module("kernel/fs/erofs/erofs.ko:", "erofs"));
        assert!(!is_module("kernel/fs/x/erofs-tools.ko: kernel/fs/erofs/erofs.ko", "erofs"));
    }

    #[test]
    fn listed_file_systems() {
        let kernel = Kernel { file_systems: "nodev\toverlay\n\text4\n".into() };
        assert!(kernel.has_file_system("overlay") && kernel.has_file_system("ext4"));
        assert!(!kernel.has_file_system("ext"));
    }
}
