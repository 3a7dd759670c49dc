//! The memory balloon (virtio 1.2, section 5.5), for its free page reporting: the driver tells of memory that the guest has
//! freed, and the host takes it back until the guest touches it again.
//!
//! The host never asks for more (`num_pages` is 0), so that a driver has no reason to inflate the balloon. One that does it
//! all the same keeps its pages: they are acknowledged, and nothing is read or taken.

use vmm_sys_util::epoll::EventSet;

use super::buffers::Buffers;
use super::device::{ActivateError, Activation, DeviceKind, VirtioDevice};
use super::queue::{self, Chain, DeviceQueue};
use crate::event_loop::{EventHandler, HandlerError, Registry};
use crate::memory::DeviceMemory;

/// `VIRTIO_BALLOON_F_REPORTING`.
const FEATURE_REPORTING: u64 = 1 << 5;
/// Inflate, deflate, report. A queue of a feature that is not offered has no number: that is what drivers do, whatever the
/// specification says. Linux reports 32 ranges at once, and wants room for them.
const QUEUE_SIZES: &[u16] = &[16, 16, 32];
const INFLATE: u32 = 0;
const DEFLATE: u32 = 1;
const REPORT: u32 = 2;
/// `num_pages` and `actual`: none are wanted, and none are had.
const CONFIG: [u8; 8] = [0; 8];
/// The most that is given back before other devices have their turn; some milliseconds if all of it was in small pages.
const STEP_BYTES: usize = 32 << 20;

/// A balloon.
#[derive(Debug, Default)]
pub struct Balloon;

impl VirtioDevice for Balloon {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Balloon
    }

    fn queue_sizes(&self) -> &[u16] {
        QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        queue::RING_FEATURES | FEATURE_REPORTING
    }

    fn config(&self) -> &[u8] {
        &CONFIG
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn EventHandler>, ActivateError> {
        let (memory, [inflate, deflate, reports]) = queue::open(activation)?;
        Ok(Box::new(Worker { memory, inflate, deflate, reports, current: None }))
    }
}

struct Worker {
    memory: DeviceMemory,
    inflate: DeviceQueue,
    deflate: DeviceQueue,
    reports: DeviceQueue,
    /// The report that is worked on, and what of it is still to be given back.
    current: Option<(Chain, Buffers)>,
}

impl EventHandler for Worker {
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
        self.inflate.watch(registry, INFLATE)?;
        self.deflate.watch(registry, DEFLATE)?;
        self.reports.watch(registry, REPORT)
    }

    fn handle(&mut self, token: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
        match token {
            INFLATE => self.inflate.serve(&self.memory, |_| 0),
            DEFLATE => self.deflate.serve(&self.memory, |_| 0),
            _ => self.take_back(),
        }
    }
}

impl Worker {
    /// Gives a step of a report back to the host, and calls itself again for the rest. The pages are the host's until the driver
    /// has its report back, and the driver waits for that.
    fn take_back(&mut self) -> Result<(), HandlerError> {
        let Self { memory, reports, current, .. } = self;
        reports.clear_notification()?;
        let (chain, mut rest) = match current.take() {
            Some(report) => report,
            None => match reports.pop(memory)? {
                // The driver offers the pages as room to write to.
                Some(mut chain) => {
                    let pages = std::mem::take(&mut chain.writable);
                    (chain, pages)
                }
                None if reports.await_notification(memory)? => return reports.kick(),
                None => return Ok(()),
            },
        };
        // A range is cut into steps, each of which is RAM or is left out. What cannot be cut lies across the end of all addresses, and is no memory.
        let step = rest.split_front(rest.len().min(STEP_BYTES)).unwrap_or_default();
        step.discard(memory);
        if rest.is_empty() || step.is_empty() {
            reports.give_back(memory, chain, 0)?;
        } else {
            *current = Some((chain, rest));
        }
        reports.kick()?;
        reports.signal(memory)
    }
}

#[cfg(test)]
mod tests;
