//! What each kind of a machine's threads may ask of the kernel, and why. Everything else ends the process.
//!
//! No thread may open a file, make a socket, start a thread or a program, make memory executable, or reach another process.

use jail::filter::{Rule, When};

/// linux/kvm.h: KVM_RUN, KVM_GET_REGS, KVM_GET_SREGS, KVM_SET_GSI_ROUTING; linux/if_tun.h: TUNSETOFFLOAD; linux/vhost.h: VHOST_SET_FEATURES,
/// VHOST_SET_VRING_NUM, _ADDR, _BASE, _KICK, _CALL and _ERR. Whose memory it is, and where, is told before.
const VCPU_IOCTLS: &[u32] = &[
    0xae80,
    0x8090_ae81,
    0x8138_ae83,
    0x4008_ae6a,
    0x4004_54d0,
    0x4008_af00,
    0x4008_af10,
    0x4028_af11,
    0x4008_af12,
    0x4008_af20,
    0x4008_af21,
    0x4008_af22,
    VHOST_NET_SET_BACKEND,
];
/// asm-generic/ioctls.h: FIONBIO; linux/vhost.h.
const IO_IOCTLS: &[u32] = &[0x5421, VHOST_NET_SET_BACKEND];
const VHOST_NET_SET_BACKEND: u32 = 0x4008_af30;
const DUPLICATE: &[u32] = &[libc::F_DUPFD_CLOEXEC as u32];
const DISCARD: &[u32] = &[libc::MADV_DONTNEED as u32];
const NO_CODE: When = When::Without(2, libc::PROT_EXEC as u32);

const fn rule(call: libc::c_long, why: &'static str) -> Rule {
    rule_if(call, When::Always, why)
}

const fn rule_if(call: libc::c_long, when: When, why: &'static str) -> Rule {
    Rule { call, when, why }
}

/// A processor's thread: it runs the guest, and answers for the devices' registers.
pub const VCPU: &[Rule] = &[
    rule_if(
        libc::SYS_ioctl,
        When::OneOf(1, VCPU_IOCTLS),
        "runs the guest, reads its registers if it fails, routes interrupts where it wants them, sets the tap's offloads and has the kernel serve it when the driver is ready",
    ),
    rule(libc::SYS_write, "wakes the I/O thread, interrupts the guest, shows the console"),
    rule(libc::SYS_futex, "waits for locks, and for the I/O thread when a device is started or reset"),
    rule(libc::SYS_sched_yield, "gives way while a channel is busy"),
    rule(libc::SYS_clock_gettime, "marks the timeline; where the clock cannot be read without a call"),
    rule_if(
        libc::SYS_fcntl,
        When::OneOf(1, DUPLICATE),
        "duplicates a device's descriptors when it is started",
    ),
    rule(libc::SYS_close, "closes them when it could not be"),
    rule(libc::SYS_brk, "allocates"),
    rule_if(libc::SYS_mmap, NO_CODE, "allocates much"),
    rule(libc::SYS_rt_sigreturn, "returns from the signal that ends KVM_RUN"),
];

/// The thread that does all I/O.
pub const IO: &[Rule] = &[
    rule(libc::SYS_epoll_wait, "waits for the guest, the tap and the sockets"),
    rule(libc::SYS_epoll_ctl, "watches what a device needs next"),
    rule(libc::SYS_read, "reads eventfds"),
    rule(libc::SYS_write, "writes eventfds, the console and the report"),
    rule(libc::SYS_readv, "receives frames and streams into guest memory"),
    rule(libc::SYS_writev, "sends frames from it"),
    rule(libc::SYS_preadv, "reads disks into it"),
    rule(libc::SYS_pwritev, "writes disks from it"),
    rule(libc::SYS_fdatasync, "flushes disks"),
    rule(libc::SYS_fallocate, "discards and zeroes blocks"),
    rule(libc::SYS_sendmsg, "sends streams and requests of volumes from guest memory"),
    rule(libc::SYS_recvmsg, "receives the replies into it"),
    rule(libc::SYS_sendto, "sends what a stream's reader was too slow for"),
    rule(libc::SYS_shutdown, "passes on that one side of a stream has ended"),
    rule(libc::SYS_accept4, "takes the host's connections to the guest"),
    rule_if(
        libc::SYS_ioctl,
        When::OneOf(1, IO_IOCTLS),
        "makes them non-blocking, ends what the kernel serves when a card is reset",
    ),
    rule(libc::SYS_close, "closes connections"),
    rule(libc::SYS_poll, "waits for the last data to be taken at the end"),
    rule(libc::SYS_getrandom, "is the guest's entropy"),
    rule(libc::SYS_futex, "waits for locks, and for the processors at the end"),
    rule(libc::SYS_sched_yield, "gives way while a channel is busy"),
    rule(
        libc::SYS_clock_gettime,
        "limits the rates of console, disk and cards; where the clock cannot be read without a call",
    ),
    rule(libc::SYS_brk, "allocates"),
    rule_if(libc::SYS_mmap, NO_CODE, "allocates much"),
    rule(libc::SYS_mremap, "lets a large buffer grow"),
    rule_if(libc::SYS_madvise, When::OneOf(2, DISCARD), "gives memory back that the guest has freed"),
    rule(libc::SYS_munmap, "frees it, and the machine's memory at the end"),
    rule_if(libc::SYS_tgkill, When::OneOf(0, OWN_PID), "gets the processors out of the guest at the end"),
    rule(libc::SYS_rt_sigreturn, "returns from a signal"),
    rule(libc::SYS_exit_group, "ends the process"),
];

/// A confined machine's process is the first of its PID namespace.
const OWN_PID: &[u32] = &[1];

/// The thread that the pod's parent tells what to do.
pub const ORDERS: &[Rule] = &[
    rule(libc::SYS_read, "waits for orders"),
    rule(libc::SYS_madvise, "lets the guest's memory be in huge pages"),
    rule(libc::SYS_write, "wakes the I/O thread"),
    rule(libc::SYS_futex, "waits for locks, and for the end"),
    rule(libc::SYS_sched_yield, "gives way while a channel is busy"),
    rule(libc::SYS_brk, "allocates"),
];

/// Has all threads allocate from the same memory, in which an allocation needs no more than the tables have. Call it before
/// there are any.
pub fn prepare() {
    // SAFETY: the call takes numbers, and there is no other thread. It cannot fail with these.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tables_are_short_and_say_why() {
        for (table, most) in [(VCPU, 10), (IO, 30), (ORDERS, 10)] {
            assert!(table.len() <= most, "{}", table.len());
            assert!(table.iter().all(|rule| !rule.why.is_empty()));
            let calls: BTreeSet<_> = table.iter().map(|rule| rule.call).collect();
            assert_eq!(calls.len(), table.len(), "a call is there once");
        }
    }

    #[test]
    fn nothing_can_be_opened_started_or_reached() {
        let never = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_socket,
            libc::SYS_socketpair,
            libc::SYS_connect,
            libc::SYS_clone,
            libc::SYS_clone3,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_pidfd_open,
            libc::SYS_mprotect,
            libc::SYS_process_vm_readv,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_getppid,
        ];
        let tables = [VCPU, IO, ORDERS].concat();
        assert!(tables.iter().all(|rule| !never.contains(&rule.call)));
    }
}
