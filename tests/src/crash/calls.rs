//! The system calls that change something outside of the process that makes them, or what others see of it.

use libc::c_long;

/// When a call is one.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// If this argument has one of these bits.
    Flags(usize, u64),
}

/// What a kernel is asked for: a call's number and its arguments.
#[derive(Clone, Copy)]
pub struct Call {
    /// The number.
    pub number: u64,
    /// The arguments.
    pub arguments: [u64; 6],
}

const MAKES_A_FILE: u64 = (libc::O_CREAT | libc::O_TRUNC) as u64;

macro_rules! always {
    ($($name:ident)*) => { [$((stringify!($name), libc::$name, When::Always)),*] };
}

/// Names, numbers, and when.
const CHANGES: [(&str, c_long, When); 2] = [
    ("SYS_openat", libc::SYS_openat, When::Flags(2, MAKES_A_FILE)),
    ("SYS_open", libc::SYS_open, When::Flags(1, MAKES_A_FILE)),
];

const ALWAYS: [(&str, c_long, When); 67] = always![
    SYS_write SYS_writev SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_sendfile SYS_copy_file_range SYS_splice SYS_ftruncate
    SYS_fallocate SYS_fsync SYS_fdatasync SYS_syncfs SYS_sync
    SYS_rename SYS_renameat SYS_renameat2 SYS_mkdir SYS_mkdirat SYS_mknod SYS_mknodat SYS_rmdir SYS_unlink SYS_unlinkat
    SYS_link SYS_linkat SYS_symlink SYS_symlinkat SYS_chmod SYS_fchmod SYS_fchmodat SYS_chown SYS_fchown SYS_lchown
    SYS_fchownat SYS_utimensat SYS_setxattr SYS_lsetxattr SYS_fsetxattr
    SYS_mount SYS_umount2 SYS_pivot_root SYS_move_mount SYS_open_tree SYS_fsmount SYS_mount_setattr SYS_chroot
    SYS_unshare SYS_setns SYS_clone SYS_clone3 SYS_fork SYS_vfork SYS_execve SYS_execveat
    SYS_flock SYS_ioctl SYS_kill SYS_tgkill SYS_pidfd_send_signal
    SYS_socket SYS_bind SYS_connect SYS_listen SYS_sendto SYS_sendmsg SYS_exit_group
];

impl Call {
    /// Its name, if it changes something.
    pub fn change(&self) -> Option<&'static str> {
        let (name, _, _) = CHANGES.iter().chain(&ALWAYS).find(|(_, number, when)| {
            u64::try_from(*number) == Ok(self.number)
                && match when {
                    When::Always => true,
                    When::Flags(at, bits) => self.arguments.get(*at).is_some_and(|flags| flags & bits != 0),
                }
        })?;
        Some(name.trim_start_matches("SYS_"))
    }
}
