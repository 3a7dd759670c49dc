//! An `rkt` with a data directory of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::leftovers::leftovers;
use super::process::{Finished, Process};
use super::{BUSYBOX, image, rkt, stage1};

/// Files of the store above this size are images, which are never written again: tests share them by hard links.
const IMAGE_BYTES: u64 = 64 << 10;

/// A data directory and what runs on it. When it is dropped, finished pods are collected and nothing may be left of
/// them: no mount, cgroup, process, loop device or file.
pub struct Host {
    dir: TempDir,
}

impl Host {
    /// With `images` in the store, each imported once for all tests.
    pub fn with_images(images: &[&str]) -> Self {
        static IMPORT: Mutex<()> = Mutex::new(());
        let host = Self::empty();
        // A test that fails in here must not fail the others.
        let _one_at_a_time = IMPORT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for name in images {
            copy_store(&imported(name), host.path());
        }
        host
    }

    /// With busybox in the store.
    pub fn new() -> Self {
        Self::with_images(&[BUSYBOX])
    }

    /// With nothing in the store.
    pub fn empty() -> Self {
        Self { dir: tempfile::Builder::new().prefix("rkt-").tempdir().unwrap() }
    }

    /// The data directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `rkt` on this data directory, taking unsigned images.
    pub fn rkt(&self) -> Command {
        rkt_at(self.path())
    }

    /// `rkt run` in the isolation under test.
    pub fn run(&self, arguments: &[&str]) -> Command {
        let mut command = self.rkt();
        command.arg("run").arg(format!("--stage1={}", stage1())).args(arguments);
        command
    }

    /// A shell script as a busybox pod's only app, with further options of `run` for the app.
    pub fn shell(&self, options: &[&str], script: &str) -> Command {
        let mut command = self.run(&[&image(BUSYBOX)]);
        command.args(options).args(["--exec=/bin/sh", "--", "-c", script]);
        command
    }

    /// Runs such a script to its end.
    pub fn sh(&self, script: &str) -> Finished {
        Process::start(&mut self.shell(&[], script)).finish()
    }

    /// The directories of all pods, in whatever state.
    pub fn pods(&self) -> Vec<PathBuf> {
        entries(&self.path().join("pods")).iter().flat_map(|state| entries(state)).collect()
    }

    /// The UUID of the only pod.
    pub fn uuid(&self) -> String {
        let pods = self.pods();
        assert_eq!(pods.len(), 1, "{pods:?}");
        file_name(&pods[0])
    }

    /// An app's recorded exit status, of the only pod.
    pub fn status(&self, app: &str) -> String {
        let pods = self.pods();
        assert_eq!(pods.len(), 1, "{pods:?}");
        let path = pods[0].join("stage1/rootfs/rkt/status").join(app);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Removes every pod that does not run.
    pub fn collect_garbage(&self) -> Finished {
        Process::start(self.rkt().args(["gc", "--grace-period=0s"])).finish()
    }
}

impl Host {
    /// Collects the pods, of which nothing may be left; what is left stops the test. None of them may run, but what was killed
    /// just now takes a moment to end.
    pub fn leaves_nothing(&self) {
        let uuids: Vec<String> = self.pods().iter().map(|pod| file_name(pod)).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            Process::start(self.rkt().args(["gc", "--grace-period=0s", "--expire-prepared=0s"]))
                .finish()
                .success();
            let mut left = leftovers(self.path(), &uuids);
            left.extend(entries(&self.path().join("ports")).iter().map(|port| port.display().to_string()));
            if left.is_empty() && self.pods().is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:#?} {:?}", self.pods());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.collect_garbage();
        } else {
            self.leaves_nothing();
        }
    }
}

fn rkt_at(dir: &Path) -> Command {
    let mut command = Command::new(rkt());
    command.arg(format!("--dir={}", dir.display())).arg("--insecure-options=image");
    command
}

/// A data directory whose store has the image.
fn imported(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join("imported").join(name);
    if !dir.exists() {
        fs::create_dir_all(&dir).unwrap();
        let mut command = rkt_at(&dir);
        command.args(["run", "--stage1", &stage1(), &image(name), "--exec=/bin/true"]);
        Process::start(&mut command).finish().success();
    }
    dir
}

/// Copies the images of the data directory `from`, small files by content and the images themselves by hard links.
fn copy_store(from: &Path, to: &Path) {
    for part in ["cas/images", "cas/sources"] {
        copy(&from.join(part), &to.join(part));
    }
}

fn copy(from: &Path, to: &Path) {
    let metadata = fs::symlink_metadata(from).unwrap();
    if metadata.is_dir() {
        fs::create_dir_all(to).unwrap();
        fs::set_permissions(to, metadata.permissions()).unwrap();
        entries(from).iter().for_each(|entry| copy(entry, &to.join(file_name(entry))));
    } else if metadata.len() > IMAGE_BYTES {
        fs::hard_link(from, to).unwrap();
    } else {
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
