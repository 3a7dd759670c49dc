//! How the debugger's thread and those of the processors stop each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use kvm_ioctls::VcpuFd;

use crate::cpu::thread::{Kick, Trap};

/// How often a stopped processor looks whether the machine ends.
const SLICE: Duration = Duration::from_millis(50);

/// What a stopped processor's thread is to do.
pub enum Order {
    /// This.
    Do(Box<dyn FnOnce(&mut VcpuFd) + Send>),
    /// Enter the guest again.
    Go,
}

/// What a processor's thread tells.
#[derive(Debug)]
pub enum Told {
    /// It has stopped, because of a trap, or since it was to pause.
    Stopped(usize, Option<Trap>),
    /// It will never run again.
    Ended(usize),
}

/// A processor's thread's side.
pub struct Debugged {
    index: usize,
    pause: Arc<AtomicBool>,
    tell: Sender<Told>,
    orders: Receiver<Order>,
}

impl Debugged {
    pub(super) fn new(
        index: usize,
        pause: Arc<AtomicBool>,
        tell: Sender<Told>,
        orders: Receiver<Order>,
    ) -> Self {
        Self { index, pause, tell, orders }
    }

    /// Between two entries of the guest: stops if there was a trap, or if the processor is to pause.
    pub(crate) fn attend(&self, vcpu: &mut VcpuFd, trap: Option<Trap>, stopping: &AtomicBool) {
        // A kick has set it. Whatever it was for is looked at only now.
        vcpu.set_kvm_immediate_exit(0);
        if trap.is_none() && !self.pause.load(Ordering::SeqCst) {
            return;
        }
        let _nobody_debugs = self.tell.send(Told::Stopped(self.index, trap));
        while !stopping.load(Ordering::SeqCst) {
            match self.orders.recv_timeout(SLICE) {
                Ok(Order::Do(work)) => work(vcpu),
                Ok(Order::Go) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Debugged {
    fn drop(&mut self) {
        let _nobody_debugs = self.tell.send(Told::Ended(self.index));
    }
}

/// The debugger's side of a processor.
pub struct Processor {
    order: Sender<Order>,
    pause: Arc<AtomicBool>,
    kick: Option<Kick>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Stopped,
    Ended,
}

/// The processor does not run any more, or KVM cannot debug it.
#[derive(Debug, thiserror::Error)]
#[error("a processor does not run any more, or KVM cannot debug it")]
pub struct Ended;

impl Processor {
    pub(super) fn new(order: Sender<Order>, pause: Arc<AtomicBool>) -> Self {
        Self { order, pause, kick: None, state: State::Running }
    }

    pub fn set_kick(&mut self, kick: Kick) {
        self.kick = Some(kick);
    }

    /// Notes what its thread has told.
    pub fn note(&mut self, told: &Told) {
        self.state = match told {
            Told::Stopped(..) => State::Stopped,
            Told::Ended(_) => State::Ended,
        };
    }

    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }

    pub fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Asks it to stop; its thread tells when it has.
    pub fn pause(&self) {
        self.pause.store(true, Ordering::SeqCst);
        self.kick.iter().for_each(Kick::send);
    }

    /// Lets it run, if it is stopped.
    pub fn go(&mut self) {
        if self.state == State::Stopped {
            self.pause.store(false, Ordering::SeqCst);
            self.state = State::Running;
            let _ended = self.order.send(Order::Go);
        }
    }

    /// Has its thread do something while it is stopped.
    pub fn perform<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut VcpuFd) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (answer, answered) = channel();
        let work = move |vcpu: &mut VcpuFd| drop(answer.send(work(vcpu)));
        if self.state != State::Stopped {
            return Err(Ended);
        }
        self.order.send(Order::Do(Box::new(work))).map_err(|_| Ended)?;
        answered.recv().map_err(|_| Ended)
    }
}
