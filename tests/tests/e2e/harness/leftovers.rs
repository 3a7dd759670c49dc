//! What a pod may leave behind on a host. Everything of a test bears the name of its data directory or its pods' UUIDs,
//! so that tests can run side by side.

use std::fs;
use std::path::{Path, PathBuf};

/// Whatever there still is of the pods `uuids` on the data directory `dir`, described.
pub fn leftovers(dir: &Path, uuids: &[String]) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    let mut left = lines_with("/proc/self/mountinfo", dir, "mount");
    left.extend(processes(dir));
    left.extend(loop_devices(dir));
    cgroups(Path::new("/sys/fs/cgroup"), uuids, &mut left);
    left
}

fn lines_with(file: &str, text: &str, what: &str) -> Vec<String> {
    let content = fs::read_to_string(file).unwrap_or_default();
    content.lines().filter(|line| line.contains(text)).map(|line| format!("{what}: {line}")).collect()
}

/// Processes that have a file or a mount of the data directory.
fn processes(dir: &str) -> Vec<String> {
    let mut left = Vec::new();
    for process in entries(Path::new("/proc")).iter().filter(|path| is_process(path)) {
        let mounts = process.join("mountinfo");
        left.extend(lines_with(mounts.to_str().unwrap(), dir, &process.display().to_string()));
        let links =
            entries(&process.join("fd")).into_iter().chain(["cwd", "exe"].map(|name| process.join(name)));
        for link in links {
            if let Ok(target) = fs::read_link(&link)
                && target.starts_with(dir)
            {
                left.push(format!("{} is {}", link.display(), target.display()));
            }
        }
    }
    left
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.bytes().all(|byte| byte.is_ascii_digit()) && name != std::process::id().to_string()
}

fn loop_devices(dir: &str) -> Vec<String> {
    let files = entries(Path::new("/sys/block")).into_iter().map(|device| device.join("loop/backing_file"));
    files.flat_map(|file| lines_with(file.to_str().unwrap(), dir, file.to_str().unwrap())).collect()
}

fn cgroups(folder: &Path, uuids: &[String], left: &mut Vec<String>) {
    for entry in entries(folder).into_iter().filter(|entry| entry.is_dir() && !entry.is_symlink()) {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if uuids.iter().any(|uuid| name.contains(uuid.as_str())) {
            left.push(format!("cgroup {}", entry.display()));
        } else {
            cgroups(&entry, uuids, left);
        }
    }
}

/// What can be listed; processes and cgroups of others come and go.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}
