//! Marks in the machine's timeline: one byte to one port.

use std::arch::asm;

use pod::control::{GuestMark, MARK_PORT};

/// Tells the machine that the guest has got to `mark`.
pub fn mark(mark: GuestMark) {
    // SAFETY: ioperm takes three numbers; it allows this one port and nothing else.
    if unsafe { libc::ioperm(MARK_PORT.into(), 1, 1) } != 0 {
        // Not on a machine that has the port, or not as root: a mark is not worth an error.
        return;
    }
    // SAFETY: ioperm has allowed the port; writing to it has no effect on memory, and none on a machine without it.
    unsafe {
        asm!("out dx, al", in("dx") MARK_PORT, in("al") mark as u8, options(nomem, nostack, preserves_flags))
    };
    // SAFETY: as above. What runs later has no use for the port, and the kernel need not switch its bitmap.
    unsafe { libc::ioperm(MARK_PORT.into(), 1, 0) };
}
