//! An installation of rkt and a data directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Tells how it was called, on standard output, and exits with 7.
const STAGE1: &str = r#"#!/bin/sh
echo "arguments: $*"
echo "directory: $(pwd)"
echo "lock: $(readlink /proc/self/fd/"$RKT_LOCK_FD")"
echo "timeline: ${RKT_TIMELINE-unset}"
echo "drawn into: ${RKT_TIMELINE_FILE-unset}"
case "$0" in */gc | */stop) exit 0 ;; esac
exit 7
"#;

pub struct Host {
    folder: tempfile::TempDir,
}

/// What a command did.
pub struct Finished {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Host {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        // rkt looks for its stage1s beside itself.
        let rkt = Path::new(env!("CARGO_BIN_EXE_rkt"));
        fs::hard_link(rkt, bin.join("rkt")).or_else(|_| fs::copy(rkt, bin.join("rkt")).map(drop)).unwrap();
        let host = Self { folder };
        host.install("stage1-nspawn", STAGE1);
        host
    }

    pub fn install(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes an image, and returns its path.
    pub fn image(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `rkt` for images without signatures.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("bin/rkt"));
        command.arg("--dir").arg(self.data()).arg("--insecure-options=image").args(arguments);
        command
    }

    pub fn rkt(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.command(arguments))
    }

    /// Every file of the data directory with its size.
    pub fn listing(&self) -> BTreeMap<PathBuf, u64> {
        let mut files = BTreeMap::new();
        let mut directories = vec![self.data()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
                files.insert(entry.path(), if metadata.is_dir() { 0 } else { metadata.len() });
            }
        }
        files
    }

    /// The images in the store.
    pub fn images(&self) -> Vec<String> {
        names(&self.data().join("cas/images"))
    }

    /// The pods in one of the directories of pods.
    pub fn pods(&self, place: &str) -> Vec<String> {
        names(&self.data().join("pods").join(place))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

pub fn finish(command: &mut Command) -> Finished {
    finished(command.output().unwrap())
}

pub fn finished(output: Output) -> Finished {
    Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Finished {
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self
    }

    /// An error of rkt itself with these words.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert_eq!(self.code, 254, "{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "\"{word}\" is not in: {}", self.stderr);
        }
        self
    }
}

/// Whether pods can be run; tests that run some do nothing else otherwise.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("not tested: pods need root");
    }
    root
}
