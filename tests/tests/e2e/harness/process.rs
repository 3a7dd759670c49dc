//! Processes with a time limit, whose streams are fed and read at the same time.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Far more than anything takes, also in an emulated machine with other tests beside it.
pub const LIMIT: Duration = Duration::from_secs(600);

/// Waits until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "not {what} after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; for a signal, minus its number.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The same, if the process succeeded; the test fails otherwise.
    pub fn success(self) -> Self {
        self.exited(0)
    }

    /// The same, if the process exited with `code`; the test fails otherwise.
    pub fn exited(self, code: i32) -> Self {
        let end = self.stdout.len().min(2000);
        let stdout = String::from_utf8_lossy(&self.stdout[..end]);
        assert_eq!(self.code, code, "exit code\n--- stdout\n{stdout}\n--- stderr\n{}", self.stderr);
        self
    }
}

/// A running process. Killed when dropped.
pub struct Process {
    child: Child,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: Option<JoinHandle<String>>,
    deadline: Instant,
}

impl Process {
    /// Starts it, without input.
    pub fn start(command: &mut Command) -> Self {
        Self::start_with_input(command, Vec::new())
    }

    /// Starts it with this on standard input.
    pub fn start_with_input(command: &mut Command, input: Vec<u8>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        // A process may end before it has read everything.
        std::thread::spawn(move || stdin.write_all(&input).ok());
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).ok();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, stdout, stderr: Some(stderr), deadline: Instant::now() + LIMIT }
    }

    /// Waits for a line of standard output.
    pub fn wait_for_line(&mut self, wanted: &str) {
        let mut seen = String::new();
        while !seen.lines().any(|line| line == wanted) {
            let before = seen.len();
            self.stdout.as_mut().unwrap().read_line(&mut seen).unwrap();
            if seen.len() == before {
                panic!("ended without \"{wanted}\": {seen}{}", self.stderr.take().unwrap().join().unwrap());
            }
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Its process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let mut stdout = self.stdout.take().unwrap();
        let stdout = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).ok();
            bytes
        });
        let status = self.wait();
        Finished {
            code: code(status),
            stdout: stdout.join().unwrap(),
            stderr: self.stderr.take().unwrap().join().unwrap(),
        }
    }

    fn wait(&mut self) -> ExitStatus {
        while Instant::now() < self.deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().ok();
        self.child.wait().ok();
        panic!("not finished after {LIMIT:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap()
}
