//! A pod's directory, made by hand.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

const APPLETS: [&str; 26] = [
    "cat", "cut", "dd", "df", "echo", "env", "false", "free", "grep", "head", "hostname", "id", "ip", "kill",
    "ls", "nproc", "ps", "seq", "sh", "sleep", "stty", "tail", "touch", "true", "uname", "yes",
];

/// How long anything may take before a test has failed; hosts that emulate their processor are slow.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Whether VMs can run here; if not, the test says that it is skipped, and why.
pub fn can_run(test: &str) -> bool {
    match vmm::probe::preflight() {
        Ok(_) => true,
        Err(problem) => {
            // Not by a macro, whose output is shown only of tests that fail.
            let _ = writeln!(std::io::stderr(), "{test} skipped: {problem}");
            false
        }
    }
}

/// Returns from a test that cannot run here.
macro_rules! needs_kvm {
    () => {
        if !crate::pod::can_run(module_path!()) {
            return;
        }
    };
}
pub(crate) use needs_kvm;

pub struct Pod {
    home: TempDir,
    parts: PathBuf,
    pub uuid: Uuid,
    apps: Vec<Value>,
}

/// A pod with one app, "app".
pub fn shell(script: &str) -> Pod {
    Pod::new().with("app", app(script))
}

/// An app's section: this script.
pub fn app(script: &str) -> Value {
    json!({"exec": ["/bin/sh", "-c", script]})
}

/// The same with a limit.
pub fn limited(script: &str, isolator: &str, limit: &str) -> Value {
    let isolators = json!([{"name": isolator, "value": {"limit": limit}}]);
    json!({"exec": ["/bin/sh", "-c", script], "isolators": isolators})
}

impl Pod {
    pub fn new() -> Self {
        Self::of_parts(parts())
    }

    /// A pod whose stage1 is the program in `parts`.
    pub fn of_parts(parts: &Path) -> Self {
        assert!(nix::unistd::Uid::effective().is_root(), "these tests need root");
        let home = tempfile::tempdir().unwrap();
        let rootfs = home.path().join("stage1/rootfs");
        fs::create_dir_all(&rootfs).unwrap();
        for entrypoint in ["init", "enter", "stop", "gc"] {
            symlink(parts.join("stage1-kvm"), rootfs.join(entrypoint)).unwrap();
        }
        Self { home, parts: parts.to_owned(), uuid: Uuid::new_v4(), apps: Vec::new() }
    }

    /// One app more, in a root of busybox; `section` is its app section without user and group.
    pub fn with(mut self, name: &str, mut section: Value) -> Self {
        let object = section.as_object_mut().unwrap();
        object.entry("user").or_insert("0".into());
        object.entry("group").or_insert("0".into());
        let image = json!({"id": format!("sha512-{}", "0".repeat(64))});
        self.apps.push(json!({"name": name, "image": image, "app": section}));
        let manifest = json!({"acKind": "PodManifest", "acVersion": "0.8.11", "apps": self.apps});
        fs::write(self.path("pod"), manifest.to_string()).unwrap();
        let appsinfo = self.path("appsinfo").join(name);
        fs::create_dir_all(&appsinfo).unwrap();
        symlink(self.image(), appsinfo.join("image.erofs")).unwrap();
        self
    }

    fn image(&self) -> PathBuf {
        parts().join("busybox.erofs")
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    pub fn parts(&self) -> &Path {
        &self.parts
    }

    /// A command in an app: the `enter` entrypoint.
    pub fn enter(&self, app: &str, command: &[&str]) -> Command {
        let mut entrypoint = Command::new(self.path("stage1/rootfs/enter"));
        entrypoint.current_dir(self.home.path()).stdin(Stdio::null());
        entrypoint.arg("--pid=1").arg(format!("--appname={app}")).arg("--").args(command);
        entrypoint
    }

    pub fn entrypoint(&self, name: &str, arguments: &[&str]) -> Command {
        let lock = File::open(self.home.path()).unwrap();
        fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut command = Command::new(self.path("stage1/rootfs").join(name));
        command.env("RKT_LOCK_FD", lock.as_raw_fd().to_string()).current_dir(self.home.path());
        command.args(arguments).arg(self.uuid.to_string()).stdin(Stdio::null());
        // Open until the program has it; the tests' process is short-lived.
        std::mem::forget(lock);
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.entrypoint("init", arguments)
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
}

/// A directory with the program and its parts side by side, and an image of busybox; made once for all tests.
pub fn parts() -> &'static Path {
    static PARTS: OnceLock<TempDir> = OnceLock::new();
    PARTS.get_or_init(|| make_parts().unwrap()).path()
}

fn make_parts() -> std::io::Result<TempDir> {
    let parts = tempfile::tempdir()?;
    let program = Path::new(env!("CARGO_BIN_EXE_stage1-kvm"));
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = program.ancestors().nth(2).unwrap();
    let kernels = ["vmlinux", "vmlinux-norethunk"].map(|name| (workspace.join("build").join(name), name));
    for (from, name) in [(program.to_owned(), "stage1-kvm")].into_iter().chain(kernels) {
        fs::copy(&from, parts.path().join(name))
            .unwrap_or_else(|error| panic!("{} is not built: {error}", from.display()));
    }
    make_guest_root(&target.join("release/guest-init"), &parts.path().join("guest.erofs"));
    let tree = parts.path().join("tree");
    for directory in ["bin", "etc"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("static busybox");
    for applet in APPLETS {
        symlink("busybox", tree.join("bin").join(applet))?;
    }
    let image = parts.path().join("busybox.erofs");
    let made = Command::new("mkfs.erofs").args(["-T0", "--all-root"]).arg(image).arg(&tree).output();
    assert!(made.as_ref().is_ok_and(|output| output.status.success()), "mkfs.erofs: {made:?}");
    Ok(parts)
}

/// The root of a guest whose init is this program.
pub fn make_guest_root(init: &Path, image: &Path) {
    let made = Command::new(env!("CARGO_BIN_EXE_guest-root")).args([init, image]).output().unwrap();
    assert!(made.status.success(), "guest-root: {}", text(&made.stderr));
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
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
