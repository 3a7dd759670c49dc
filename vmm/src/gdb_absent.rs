//! No gdb stub: this build cannot debug guests. There is no value of these types, and so no code that uses one.

use std::convert::Infallible;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::AtomicBool;

use kvm_ioctls::VcpuFd;

use crate::cpu::thread::{Kick, Trap};
use crate::error::Error;
use crate::machine::StopHandle;
use crate::memory::DeviceMemory;

/// Where a debugger connects.
#[derive(Debug)]
pub struct Gdb(Infallible);

impl Gdb {
    pub(crate) fn debugger(self, _: &DeviceMemory) -> Debugger {
        match self.0 {}
    }
}

impl AsRawFd for Gdb {
    fn as_raw_fd(&self) -> RawFd {
        match self.0 {}
    }
}

pub(crate) struct Debugger(Infallible);

impl Debugger {
    pub(crate) fn processors(&mut self, _: usize) -> Vec<Debugged> {
        match self.0 {}
    }

    pub(crate) fn start(self, _: Vec<Kick>, _: StopHandle) -> Result<(), Error> {
        match self.0 {}
    }
}

/// A debugger's side of a processor's thread.
#[derive(Debug)]
pub struct Debugged(Infallible);

impl Debugged {
    pub(crate) fn attend(&self, _: &mut VcpuFd, _: Option<Trap>, _: &AtomicBool) {
        match self.0 {}
    }
}
