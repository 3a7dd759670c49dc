//! Executes a program that may do anything: hang, print without end, leave processes behind.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::error::Failure;

/// More than any result is long.
pub const OUTPUT_LIMIT_BYTES: usize = 1 << 20;
/// How much of standard error is kept, from its beginning.
const ERRORS_LIMIT_BYTES: usize = 8 << 10;
/// How often it is asked whether the user still wants it.
const ASK_INTERVAL: Duration = Duration::from_millis(100);
/// How soon the end of a program is looked for that has closed its output, which it mostly does by ending; then half as often each time.
const END_INTERVAL: Duration = Duration::from_micros(50);
/// How often at least.
const LONGEST_END_INTERVAL: Duration = Duration::from_millis(50);
/// What plugins print is short. A larger buffer would be more to clear than to read.
const CHUNK_BYTES: usize = 4 << 10;

/// For how long a program may run.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    /// At most so long.
    pub limit: Duration,
    /// Whether it is not wanted any more.
    pub interrupted: &'a dyn Fn() -> bool,
}

/// What a program left.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Executes `program` in `/`, with this environment in addition to ours, and `input` as standard input. It is killed with
/// everything that it started when it exceeds a limit, and by itself when this process dies.
pub fn execute(
    program: &Path,
    environment: &[(&str, String)],
    input: &[u8],
    patience: Patience<'_>,
) -> Result<Finished, Failure> {
    let mut command = Command::new(program);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(file_with(input).map_err(Failure::Io)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.current_dir("/").process_group(0);
    // SAFETY: between fork and exec, prctl is a plain system call that touches no memory of the parent's.
    unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) };
    let child = command.spawn().map_err(Failure::Start)?;
    let mut group = Group { child, deadline: Instant::now() + patience.limit };
    group.attend(patience).inspect_err(|_| group.kill())
}

/// A file that is nowhere: however long it is, whoever reads it, writing it never blocks.
fn file_with(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("cni-config", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// A program and what it has started. What it leaves running when it has ended by itself is meant to run.
struct Group {
    child: Child,
    deadline: Instant,
}

impl Group {
    /// For a program that has not been seen to end: its number is not another's yet.
    fn kill(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Takes its output until it has ended.
    fn attend(&mut self, patience: Patience<'_>) -> Result<Finished, Failure> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (mut out, mut err) = (self.child.stdout.take(), self.child.stderr.take());
        while out.is_some() || err.is_some() {
            let [out_ready, err_ready] =
                self.wait(patience, [out.as_ref().map(AsFd::as_fd), err.as_ref().map(AsFd::as_fd)])?;
            if out_ready && !take(&mut out, &mut stdout)? {
                out = None;
            }
            if err_ready && !take(&mut err, &mut stderr)? {
                err = None;
            }
            if stdout.len() > OUTPUT_LIMIT_BYTES {
                return Err(Failure::TooMuchOutput(OUTPUT_LIMIT_BYTES));
            }
            stderr.truncate(ERRORS_LIMIT_BYTES);
        }
        let mut interval = END_INTERVAL;
        let status = loop {
            if let Some(status) = self.child.try_wait().map_err(Failure::Io)? {
                break status;
            }
            self.check(patience)?;
            std::thread::sleep(interval);
            interval = (interval * 2).min(LONGEST_END_INTERVAL);
        };
        Ok(Finished { status, stdout, stderr })
    }

    /// Waits until one of the pipes has something, and says which.
    fn wait(
        &self,
        patience: Patience<'_>,
        pipes: [Option<std::os::fd::BorrowedFd<'_>>; 2],
    ) -> Result<[bool; 2], Failure> {
        loop {
            let remaining = self.check(patience)?;
            let mut set: Vec<PollFd<'_>> =
                pipes.iter().flatten().map(|pipe| PollFd::new(*pipe, PollFlags::POLLIN)).collect();
            let timeout = remaining.min(ASK_INTERVAL) + Duration::from_millis(1);
            match poll(&mut set, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
                Ok(0) | Err(nix::Error::EINTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(Failure::Io(error.into())),
            }
            let mut answers = set.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
            return Ok(pipes.map(|pipe| pipe.is_some() && answers.next().unwrap_or(false)));
        }
    }

    /// The time that is left.
    fn check(&self, patience: Patience<'_>) -> Result<Duration, Failure> {
        if (patience.interrupted)() {
            return Err(Failure::Interrupted);
        }
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(remaining) if !remaining.is_zero() => Ok(remaining),
            _ => Err(Failure::TimedOut(patience.limit.as_secs())),
        }
    }
}

/// Reads once; `false` at the end.
fn take(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> Result<bool, Failure> {
    let Some(pipe) = pipe else { return Ok(false) };
    let mut buffer = [0; CHUNK_BYTES];
    match pipe.read(&mut buffer) {
        Ok(count) => {
            into.extend_from_slice(buffer.get(..count).unwrap_or_default());
            Ok(count > 0)
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(Failure::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Duration) -> Result<Finished, Failure> {
        // A shell reads its commands from standard input.
        let patience = Patience { limit, interrupted: &|| false };
        execute(Path::new("/bin/sh"), &[("WORD", "word".into())], script.as_bytes(), patience)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_it_prints_and_how_it_ends() {
        let finished = run("echo $WORD; echo bad >&2; exit 3", LONG).unwrap();
        assert_eq!(
            (finished.status.code(), &finished.stdout[..], &finished.stderr[..]),
            (Some(3), &b"word\n"[..], &b"bad\n"[..])
        );
    }

    #[test]
    fn the_whole_group_is_killed() {
        let marker = tempfile::tempdir().unwrap();
        let pid = marker.path().join("pid");
        let script = format!("sleep 1000 & echo $! >{}; wait", pid.display());
        let failure = run(&script, Duration::from_millis(500)).unwrap_err();
        assert!(matches!(failure, Failure::TimedOut(_)), "{failure}");
        let pid = std::fs::read_to_string(pid).unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        let gone = || state().is_empty() || state().contains(") Z ");
        let end = Instant::now() + LONG;
        while !gone() {
            assert!(Instant::now() < end, "{}", state());
            std::thread::sleep(END_INTERVAL);
        }
    }

    #[test]
    fn output_without_end() {
        assert!(matches!(run("yes", LONG).unwrap_err(), Failure::TooMuchOutput(_)));
        let finished = run("yes | head -c 3000000 >&2", LONG).unwrap();
        assert_eq!(finished.stderr.len(), ERRORS_LIMIT_BYTES);
    }

    #[test]
    fn what_it_leaves_running_on_purpose_runs() {
        let finished = run("sleep 1000 >/dev/null 2>&1 & echo $!", LONG).unwrap();
        let pid: i32 = String::from_utf8(finished.stdout).unwrap().trim().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert!(!stat.contains(") Z "), "{stat}");
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }

    #[test]
    fn who_closes_the_output_and_stays() {
        let begin = Instant::now();
        let failure = run("exec >&- 2>&-; sleep 1000", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(failure, Failure::TimedOut(_)) && begin.elapsed() < LONG);
    }

    #[test]
    fn interrupted() {
        let patience = Patience { limit: LONG, interrupted: &|| true };
        let failure = execute(Path::new("/bin/cat"), &[], b"", patience).unwrap_err();
        assert!(matches!(failure, Failure::Interrupted));
    }
}
