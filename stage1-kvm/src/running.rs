//! The machine's process as its parent, the pod's, sees it.
//!
//! All that passes between the two is the guest's connections, an order of one byte, and a report at the end. A file for a
//! device of a running machine would pass here, too (SCM_RIGHTS): the process itself cannot open any.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use jail::Child;
use nix::fcntl::OFlag;
use nix::poll::PollTimeout;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::pipe2;
use stage1::error::Causes;
use stage1::timeline::Timeline;
use vmm::MachineConfig;

use crate::error::Error;
use crate::handshake::Ends;
use crate::jailed::{self, BOOTED, Place, STOP, Start};
use crate::report::{MAX_BYTES, Report};

/// How long a machine that is to end may take to give its last data away and to report.
const REPORT_TIME_MS: u16 = 5000;

/// A running machine. It ends with this at the latest.
pub struct Running {
    child: Child,
    socket: UnixStream,
    /// What the guest begins with, for the timeline.
    entry: &'static str,
}

/// How its process has ended.
pub enum End {
    /// By itself, with this to say.
    Reported(Report),
    /// It made this system call.
    Forbidden(String),
    /// Otherwise, as a human is told.
    Unexpected(String),
    /// Somebody was in a hurry.
    Killed,
}

impl Running {
    /// Starts a machine in a process of its own. The calling process must have one thread.
    pub fn start(config: MachineConfig, ends: Ends, debug: bool) -> Result<Self, Error> {
        let system = |action| move |source| Error::System { action, source };
        let (socket, parent) = UnixStream::pair().map_err(system("make a socket pair"))?;
        let place = Place::here()?;
        let entry = match config.start {
            vmm::Start::Kernel(_) => "kernel-entry",
            vmm::Start::Template(_) => "template-entry",
        };
        let output = debug.then(|| pipe2(OFlag::O_CLOEXEC)).transpose();
        let output = output.map_err(|errno| system("make a pipe")(errno.into()))?;
        let Some(child) = jail::fork()? else {
            let (parent, stderr) = (parent.into(), output.map(|(_, write)| write));
            jailed::run(Start { config, ends, parent, stderr, place });
        };
        if let Some((read, _write)) = output {
            show(read)?;
        }
        Ok(Self { child, socket, entry })
    }

    /// Readable when its process has ended.
    pub fn ended(&self) -> Result<OwnedFd, Error> {
        self.child
            .pidfd()
            .try_clone_to_owned()
            .map_err(|source| Error::System { action: "duplicate a descriptor", source })
    }

    /// Its process's number.
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// Ends it at once.
    pub fn kill(&self) {
        self.child.kill();
    }

    /// The guest has booted: what it fills from now on may be in huge pages.
    pub fn booted(&self) {
        self.order(BOOTED);
    }

    fn order(&self, order: u8) {
        // One that has ended takes no orders.
        let _ended = (&self.socket).write_all(&[order]);
    }

    /// Ends a machine whose pod has exited. How it went is asked only if `timeline` is wanted.
    pub fn finish(mut self, timeline: &mut Timeline) -> Result<(), Error> {
        if timeline.is_wanted() {
            match self.end() {
                End::Reported(report) => report.tell(timeline, self.entry),
                End::Killed => {}
                End::Forbidden(call) => return Err(Error::Forbidden { call }),
                End::Unexpected(end) => return Err(Error::VmmGone { end }),
            }
        }
        Ok(())
    }

    /// Ends it in good order if it can still do that.
    fn end(&mut self) -> End {
        self.order(STOP);
        let status = match self.child.wait(PollTimeout::from(REPORT_TIME_MS)) {
            Ok(None) => {
                self.child.kill();
                return End::Unexpected("it does not obey".into());
            }
            Ok(Some(status)) => status,
            Err(errno) => return End::Unexpected(errno.to_string()),
        };
        End::of(status, &self.socket)
    }

    /// Ends the machine if it still runs. If the guest is to blame, the machine may know better than `error` what has
    /// gone wrong.
    pub fn explain(mut self, error: Error) -> Error {
        let gone = matches!(error, Error::Stage1(stage1::Error::SupervisorGone));
        if !gone && !matches!(error, Error::Silent { .. }) {
            return error;
        }
        let end = self.end();
        // A KVM that only looks like one lets every guest fail.
        if let Err(problem) = vmm::probe::preflight() {
            return Error::Kvm(problem);
        }
        let report = match end {
            End::Killed => return error,
            End::Forbidden(call) => return Error::Forbidden { call },
            End::Unexpected(end) => return Error::VmmGone { end },
            End::Reported(report) => report,
        };
        let (left, console) = (report.has_left(), report.console);
        match (Causes::new(report.causes), error) {
            (Some(causes), _) => causes.into(),
            (None, Error::Silent { what, seconds, .. }) => Error::Silent { what, seconds, console },
            (None, _) if left => Error::GuestGone { console },
            (None, _) => Error::GuestReset { console },
        }
    }
}

impl End {
    /// That of a process that has ended, and has written to the other end of `socket` what it had to say.
    pub fn of(status: WaitStatus, socket: &UnixStream) -> Self {
        let mut told = Vec::new();
        // What it has written is there, now that it has ended.
        let _partial = socket.take(MAX_BYTES as u64).read_to_end(&mut told);
        conclude(status, &told)
    }
}

fn conclude(status: WaitStatus, told: &[u8]) -> End {
    match status {
        WaitStatus::Exited(_, 0) => match pod::control::read_message::<Report>(&mut { told }, MAX_BYTES) {
            Ok(report) => End::Reported(report.harmless()),
            Err(error) => End::Unexpected(format!("its report is not readable: {error}")),
        },
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => {
            let call = told.last_chunk().map(|call| i32::from_le_bytes(*call).to_string());
            End::Forbidden(call.unwrap_or_else(|| "of an unknown number".into()))
        }
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => End::Killed,
        WaitStatus::Signaled(_, signal, _) => End::Unexpected(format!("killed by {signal}")),
        other => End::Unexpected(format!("{other:?}")),
    }
}

/// Shows what the process writes: it has no descriptor of the caller's.
fn show(output: OwnedFd) -> Result<(), Error> {
    let body = move || std::io::copy(&mut File::from(output), &mut std::io::stderr());
    let thread = std::thread::Builder::new().name("console".into()).spawn(body);
    thread.map(drop).map_err(|source| Error::System { action: "start a thread", source })
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn an_end_is_told_by_the_kernel_first() {
        let status = |signal| WaitStatus::Signaled(Pid::from_raw(1), signal, false);
        let forbidden = conclude(status(Signal::SIGSYS), &257_i32.to_le_bytes());
        assert!(matches!(forbidden, End::Forbidden(call) if call == "257"));
        assert!(matches!(conclude(status(Signal::SIGSYS), &[]), End::Forbidden(_)));
        assert!(matches!(conclude(status(Signal::SIGSEGV), &[]), End::Unexpected(_)));
        assert!(matches!(conclude(status(Signal::SIGKILL), &[]), End::Killed));
        let exited = WaitStatus::Exited(Pid::from_raw(1), 0);
        assert!(matches!(conclude(exited, b"{}"), End::Unexpected(_)));
        let report = pod::control::encode(&Report::default()).unwrap();
        assert!(matches!(conclude(exited, &report), End::Reported(_)));
    }
}
