//! A machine that runs on threads of its own, while the main thread attends to the pod.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use pod::control::GuestMark;
use stage1::timeline::Timeline;
use vmm::console::ConsoleLog;
use vmm::timeline::Phase;
use vmm::{Exit, Machine, Ram, StopHandle};

use crate::error::Error;

/// What the thread that does the I/O needs for its stack. The default is a huge page's size, and would be one.
const STACK_BYTES: usize = 512 << 10;

/// A running machine. It ends with the process at the latest.
pub struct Running {
    stop: StopHandle,
    ram: Ram,
    console: ConsoleLog,
    timeline: Arc<vmm::timeline::Timeline>,
    thread: JoinHandle<Result<Exit, vmm::Error>>,
    ended: Arc<EventFd>,
}

impl Running {
    /// Starts a machine.
    pub fn start(machine: Machine) -> Result<Self, Error> {
        let system = |action| move |source| Error::System { action, source };
        let ended = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| system("make an eventfd")(errno.into()))?;
        let ended = Arc::new(ended);
        let (stop, ram) = (machine.stop_handle(), machine.ram());
        let (console, timeline) = (machine.console(), machine.timeline());
        let tell = Arc::clone(&ended);
        let run = move || {
            let result = machine.run();
            // Cannot fail: the counter is far from its end.
            let _ = tell.write(1);
            result
        };
        let thread = std::thread::Builder::new().name("io".into()).stack_size(STACK_BYTES).spawn(run);
        let thread = thread.map_err(system("start a thread"))?;
        Ok(Self { stop, ram, console, timeline, thread, ended })
    }

    /// Becomes readable when the machine has ended.
    pub fn ended(&self) -> Result<OwnedFd, Error> {
        self.ended
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::System { action: "duplicate a descriptor", source })
    }

    /// Ends the machine.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// The guest has booted: what it fills from now on may be in huge pages.
    pub fn booted(&self) {
        self.ram.allow_huge_pages();
    }

    /// The last lines of its console.
    pub fn last_lines(&self) -> String {
        self.console.last_lines()
    }

    /// Adds what happened in the machine to `timeline`.
    pub fn tell(&self, timeline: &mut Timeline) {
        for mark in self.timeline.marks() {
            let us = mark.monotonic_ns / 1000;
            match mark.phase {
                Phase::Built => timeline.mark_at("vmm-ready", us),
                Phase::KernelEntry => timeline.mark_at("kernel-entry", us),
                Phase::Guest(byte) if byte == GuestMark::Init as u8 => timeline.mark_at("init", us),
                Phase::Guest(byte) if byte == GuestMark::Supervisor as u8 => {
                    timeline.mark_at("supervisor-ready", us);
                }
                // An end is no phase of a start; what else a guest writes there has no name.
                Phase::Guest(_) => {}
            }
        }
    }

    /// Ends the machine. Nobody needs to be told how: its pod has exited.
    pub fn end(self) {
        self.stop.stop();
        let _ = self.thread.join();
    }

    /// Ends the machine if it still runs. If the guest is to blame, the machine may know better than `error` what has
    /// gone wrong.
    pub fn explain(self, error: Error) -> Error {
        self.stop.stop();
        let result = self.thread.join();
        let gone = matches!(error, Error::Stage1(stage1::Error::SupervisorGone));
        if !gone && !matches!(error, Error::Silent { .. }) {
            return error;
        }
        // A KVM that only looks like one lets every guest fail.
        if let Err(problem) = vmm::probe::preflight() {
            return Error::Kvm(problem);
        }
        match result {
            Ok(Err(failure)) => failure.into(),
            Ok(Ok(_)) if gone && has_left(&self.timeline) => {
                Error::GuestGone { console: self.console.last_lines() }
            }
            Ok(Ok(_)) if gone => Error::GuestReset { console: self.console.last_lines() },
            _ => error,
        }
    }
}

/// Whether the guest's init has said that it resets the machine.
fn has_left(timeline: &vmm::timeline::Timeline) -> bool {
    timeline.marks().iter().any(|mark| mark.phase == Phase::Guest(GuestMark::Leaving as u8))
}
