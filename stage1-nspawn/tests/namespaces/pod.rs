//! A pod's directory, made by hand.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

const APPLETS: [&str; 25] = [
    "cat", "cut", "dd", "df", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ls",
    "mkdir", "ps", "seq", "sh", "sleep", "stat", "stty", "tail", "touch", "true", "unshare", "yes",
];

/// How long anything may take before a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Pod {
    home: TempDir,
    pub uuid: Uuid,
    apps: Vec<Value>,
}

/// A pod with one app, "app".
pub fn shell(script: &str) -> Pod {
    Pod::new().with("app", json!({"exec": ["/bin/sh", "-c", script]}))
}

impl Pod {
    pub fn new() -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "these tests need root");
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join("stage1/rootfs")).unwrap();
        Self { home, uuid: Uuid::new_v4(), apps: Vec::new() }
    }

    /// One app more, in a root of busybox; `section` is its app section without user and group.
    pub fn with(mut self, name: &str, mut section: Value) -> Self {
        let object = section.as_object_mut().unwrap();
        object.entry("user").or_insert("0".into());
        object.entry("group").or_insert("0".into());
        let image = json!({"id": format!("sha512-{}", "0".repeat(64))});
        self.apps.push(json!({"name": name, "image": image, "app": section}));
        make_tree(&self.tree(name));
        let manifest = json!({"acKind": "PodManifest", "acVersion": "0.8.11", "apps": self.apps});
        fs::write(self.path("pod"), manifest.to_string()).unwrap();
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    pub fn tree(&self, app: &str) -> PathBuf {
        self.path(&format!("appsinfo/{app}/tree"))
    }

    /// Turns an app's tree into an EROFS file.
    pub fn pack(self, app: &str) -> Self {
        let file = self.path(&format!("appsinfo/{app}/image.erofs"));
        let made = Command::new("mkfs.erofs").arg(&file).arg(self.tree(app)).output().expect("mkfs.erofs");
        assert!(made.status.success(), "{made:?}");
        fs::remove_dir_all(self.tree(app)).unwrap();
        self
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let lock = File::open(self.home.path()).unwrap();
        // An earlier run of the same pod may have it still.
        let _ = lock.try_lock();
        fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_stage1-nspawn"));
        command.env("RKT_LOCK_FD", lock.as_raw_fd().to_string()).current_dir(self.home.path());
        command.args(arguments).arg(self.uuid.to_string()).stdin(Stdio::null());
        // Open until the program has it; the tests' process is short-lived.
        std::mem::forget(lock);
        command
    }

    /// Another entrypoint: the same program by another name, without the pod's lock.
    pub fn entrypoint(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stage1-nspawn"));
        command.arg0(name).args(arguments).current_dir(self.home.path()).stdin(Stdio::null());
        command
    }

    pub fn run(&self) -> Output {
        self.command(&[]).output().unwrap()
    }

    pub fn start(&self) -> Running {
        let command = &mut self.command(&[]);
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    pub fn status(&self, app: &str) -> String {
        fs::read_to_string(self.path("stage1/rootfs/rkt/status").join(app)).unwrap_or_default()
    }

    /// The numbers of all processes that this pod's name leads to: by their cgroups.
    pub fn cgroups(&self) -> Vec<PathBuf> {
        let record = fs::read_to_string(self.path("subcgroup")).unwrap_or_default();
        record.lines().map(PathBuf::from).collect()
    }
}

fn make_tree(tree: &Path) {
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("static busybox");
    for applet in APPLETS {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/group"), "root:x:0:\nwww:x:34:\n").unwrap();
}

/// A pod that runs; killed with this value.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    /// The exit code, within the time a test has.
    pub fn exit_code(&mut self) -> i32 {
        let mut code = None;
        wait_until("the pod has ended", || {
            code = self.0.try_wait().unwrap().map(|status| status.code().unwrap_or(-1));
            code.is_some()
        });
        code.unwrap()
    }
}

/// Cgroups are not in the directory, and those of a pod that was killed are still there.
impl Drop for Pod {
    fn drop(&mut self) {
        let mut gc = Command::new(env!("CARGO_BIN_EXE_stage1-nspawn"));
        let _ = gc.arg0("gc").arg(self.uuid.to_string()).current_dir(self.home.path()).status();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
