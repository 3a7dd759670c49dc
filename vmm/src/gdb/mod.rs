//! A gdb stub, in builds with the feature `gdb` alone: its client sees the guest's processors as threads, which are stopped before the
//! first instruction, and the guest's memory as the first of them, or the one that is asked for, sees it.
//!
//! One thread speaks the protocol ([`session`]). A processor's ioctls are made by its own thread, while it is stopped ([`stopped`]).

mod registers;
mod session;
mod stopped;
mod target;

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};

use crate::cpu::thread::Kick;
use crate::error::Error;
use crate::machine::StopHandle;
use crate::memory::DeviceMemory;

pub use stopped::Debugged;
use stopped::{Processor, Told};
use target::Target;

/// Where a debugger connects. A machine that has one waits for it, and is not confined.
#[derive(Debug)]
pub struct Gdb {
    listener: UnixListener,
}

impl Gdb {
    /// Debuggers connect to `listener`, one after another.
    pub fn new(listener: UnixListener) -> Self {
        Self { listener }
    }

    pub(crate) fn debugger(self, memory: &DeviceMemory) -> Debugger {
        Debugger { listener: self.listener, memory: memory.clone(), processors: Vec::new(), told: None }
    }
}

impl AsRawFd for Gdb {
    fn as_raw_fd(&self) -> RawFd {
        self.listener.as_raw_fd()
    }
}

/// The debugger's side of a machine that does not run yet.
pub(crate) struct Debugger {
    listener: UnixListener,
    memory: DeviceMemory,
    processors: Vec<Processor>,
    told: Option<Receiver<Told>>,
}

impl Debugger {
    /// The side of each of `count` processors.
    pub(crate) fn processors(&mut self, count: usize) -> Vec<Debugged> {
        let (tell, told) = channel();
        self.told = Some(told);
        let pair = |index| {
            let (order, orders) = channel();
            let pause = Arc::new(AtomicBool::new(true));
            let debugged = Debugged::new(index, Arc::clone(&pause), tell.clone(), orders);
            (Processor::new(order, pause), debugged)
        };
        let (processors, debugged) = (0..count).map(pair).unzip();
        self.processors = processors;
        debugged
    }

    /// Starts the thread that serves debuggers. `kicks` are those of the processors' threads.
    pub(crate) fn start(self, kicks: Vec<Kick>, stop: StopHandle) -> Result<(), Error> {
        let Self { listener, memory, mut processors, told } = self;
        for (processor, kick) in processors.iter_mut().zip(kicks) {
            processor.set_kick(kick);
        }
        let Some(told) = told else { return Ok(()) };
        let target = Target::new(processors, told, memory, stop);
        let serve = move || session::serve(&listener, target);
        let thread = std::thread::Builder::new().name("gdb".into()).spawn(serve);
        thread.map(drop).map_err(Error::host("start the debugger's thread"))
    }
}
