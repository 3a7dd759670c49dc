//! The process that serves a volume to the guest, and its confinement: it has nothing but the volume, in a mount namespace in
//! which there is nothing else.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use jail::Child;
use jail::filter::{self, Rule, When};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, fchdir, pivot_root, setgroups, setsid};
use pod::plan::{OpenedVolume, VM_VOLUME_FILE};
use stage2::sys;
use virtiofs::{MAX_HANDLES, MAX_INODES, Server, serve};
use vmm::virtio::fs::FsConfig;

use crate::error::Error;

/// A volume to be served.
pub struct Served {
    /// Its name.
    pub name: String,
    /// By what the guest mounts it.
    pub tag: String,
    /// It, as a detached mount, which is read-only itself if the volume is.
    pub tree: OwnedFd,
    /// A directory or a file.
    pub kind: OpenedVolume,
    /// Whether the server refuses changes.
    pub read_only: bool,
}

/// The server of a volume. It is ended when this is dropped, and ends with this process at the latest.
#[derive(Debug)]
pub struct VolumeServer {
    name: String,
    _process: Child,
}

/// What the server says when it is ready; anything else is an error.
const READY: &[u8] = b"ready";
/// The longest error.
const MAX_ERROR_BYTES: usize = 1024;

/// What the server may do: make files of all users, and look at and change those of all users.
const CAPABILITIES: [u32; 7] = [0, 1, 2, 3, 4, 6, 7]; // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SETGID, SETUID

/// The system calls of the server.
const CALLS: [Rule; 46] = [
    allow(libc::SYS_recvfrom, "messages come and replies go"),
    allow(libc::SYS_sendto, "messages come and replies go"),
    allow(libc::SYS_openat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_openat2, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_close, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_mkdirat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_mknodat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_symlinkat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_linkat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_unlinkat, "entries of directories, none of which is above the volume"),
    // What the C library makes of the next without flags.
    allow(libc::SYS_renameat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_renameat2, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_readlinkat, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_getdents64, "entries of directories, none of which is above the volume"),
    allow(libc::SYS_fstat, "attributes"),
    allow(libc::SYS_newfstatat, "attributes"),
    allow(libc::SYS_fstatfs, "attributes"),
    allow(libc::SYS_fchownat, "attributes"),
    allow(libc::SYS_fchmodat, "attributes"),
    allow(libc::SYS_utimensat, "attributes"),
    allow(libc::SYS_ftruncate, "attributes"),
    allow(libc::SYS_fgetxattr, "attributes"),
    allow(libc::SYS_fsetxattr, "attributes"),
    allow(libc::SYS_flistxattr, "attributes"),
    allow(libc::SYS_fremovexattr, "attributes"),
    allow(libc::SYS_pread64, "what is in files"),
    allow(libc::SYS_pwrite64, "what is in files"),
    allow(libc::SYS_lseek, "what is in files"),
    allow(libc::SYS_fsync, "what is in files"),
    allow(libc::SYS_fdatasync, "what is in files"),
    allow(libc::SYS_syncfs, "what is in files"),
    allow(libc::SYS_fallocate, "what is in files"),
    allow(libc::SYS_copy_file_range, "what is in files"),
    allow(libc::SYS_setfsuid, "to whom belongs what is made, and what it may keep"),
    allow(libc::SYS_setfsgid, "to whom belongs what is made, and what it may keep"),
    allow(libc::SYS_capget, "to whom belongs what is made, and what it may keep"),
    allow(libc::SYS_capset, "to whom belongs what is made, and what it may keep"),
    allow(libc::SYS_brk, "the allocator"),
    allow(libc::SYS_mmap, "the allocator"),
    allow(libc::SYS_mremap, "the allocator"),
    allow(libc::SYS_munmap, "the allocator"),
    allow(libc::SYS_madvise, "the allocator"),
    allow(libc::SYS_getrandom, "the tables' hashes"),
    Rule {
        call: libc::SYS_fcntl,
        when: When::OneOf(1, &[libc::F_GETFD as u32]),
        why: "debug builds look at what they close",
    },
    allow(libc::SYS_rt_sigreturn, "the end"),
    allow(libc::SYS_exit_group, "the end"),
];

const fn allow(call: libc::c_long, why: &'static str) -> Rule {
    Rule { call, when: When::Always, why }
}

impl VolumeServer {
    /// Starts a server, which is not ready yet, and returns what the machine needs of it. The process must have one thread.
    pub fn start(served: Served) -> Result<(Self, FsConfig), Error> {
        let failed = |action| move |errno: Errno| Error::System { action, source: errno.into() };
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(failed("make a socket"))?;
        let (name, tag) = (served.name.clone(), served.tag.clone());
        match jail::fork()? {
            Some(process) => Ok((Self { name, _process: process }, FsConfig { tag, server: near })),
            None => {
                let Err(error) = be_server(served, &far);
                // If nobody listens any more, nobody needs to know.
                let _ = send(far.as_raw_fd(), error.as_bytes(), MsgFlags::MSG_NOSIGNAL);
                std::process::exit(1)
            }
        }
    }

    /// Waits until the server is ready, or has said why it cannot be.
    pub fn wait_until_ready(&self, device: &FsConfig) -> Result<(), Error> {
        let mut message = [0; MAX_ERROR_BYTES];
        let received = recv(device.server.as_raw_fd(), &mut message, MsgFlags::empty());
        let said = received.ok().and_then(|count| message.get(..count)).unwrap_or_default();
        match said == READY {
            true => Ok(()),
            false => Err(Error::VolumeServer {
                volume: self.name.clone(),
                why: String::from_utf8_lossy(said).into_owned(),
            }),
        }
    }
}

/// Confines this process and serves; it exits when the machine has gone. Returns only why it could not begin.
fn be_server(served: Served, socket: &OwnedFd) -> Result<Infallible, String> {
    let failed = |action: &'static str| move |errno: Errno| format!("cannot {action}: {}", errno.desc());
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(failed("ask to end with the pod"))?;
    prctl::set_name(c"rkt-volume").map_err(failed("take a name"))?;
    setsid().map_err(failed("leave the caller's session"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(failed("part from the host's mounts"))?;
    leave_streams().map_err(failed("leave the caller's streams"))?;
    // Among the others is the pod's lock.
    sys::close_all_but(&mut [served.tree.as_raw_fd(), socket.as_raw_fd()])
        .map_err(failed("close descriptors"))?;
    let root = mount_served(served.tree, served.kind).map_err(failed("mount the volume"))?;
    fchdir(&root).map_err(failed("enter the volume"))?;
    let mut server = Server::new(root, served.read_only).map_err(|error| error.to_string())?;
    pivot_root(".", ".")
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .and_then(|()| chdir("/"))
        .map_err(failed("leave the host's files"))?;
    set_limits().map_err(failed("set limits"))?;
    drop_privileges().map_err(failed("drop privileges"))?;
    filter::install(&CALLS).map_err(|error| error.to_string())?;
    send(socket.as_raw_fd(), READY, MsgFlags::MSG_NOSIGNAL).map_err(failed("say so"))?;
    let served = serve(&mut server, socket.as_fd());
    std::process::exit(i32::from(served.is_err()))
}

fn leave_streams() -> nix::Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)
}

/// Mounts the volume over the working directory, in this process's own namespace, and returns the root of what is served. A
/// file gets a directory of its own, in which nothing can be made.
fn mount_served(tree: OwnedFd, kind: OpenedVolume) -> nix::Result<OwnedFd> {
    let place = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let here = open(".", place | OFlag::O_DIRECTORY, Mode::empty())?;
    if kind == OpenedVolume::Directory {
        sys::move_mount(tree.as_fd(), here.as_fd())?;
        return Ok(tree);
    }
    let directory = sys::mount_detached(c"tmpfs")?;
    sys::move_mount(directory.as_fd(), here.as_fd())?;
    let new = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    openat(&directory, VM_VOLUME_FILE, new, Mode::empty())?;
    let file = openat(&directory, VM_VOLUME_FILE, place, Mode::empty())?;
    sys::move_mount(tree.as_fd(), file.as_fd())?;
    sys::mount_setattr(directory.as_fd(), libc::MOUNT_ATTR_RDONLY)?;
    Ok(directory)
}

fn set_limits() -> nix::Result<()> {
    /// The server's own descriptors, and those that live for one request.
    const SPARE: u64 = 64;
    let descriptors = MAX_INODES as u64 + MAX_HANDLES as u64 + SPARE;
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    // A file's size is for the host's file system to limit: the caller's limit would end the server.
    setrlimit(Resource::RLIMIT_FSIZE, libc::RLIM_INFINITY, libc::RLIM_INFINITY)
}

fn drop_privileges() -> nix::Result<()> {
    // The guest's kernel has applied the umask of who makes a file.
    umask(Mode::empty());
    setgroups(&[])?;
    sys::limit_capabilities(CAPABILITIES.iter().fold(0, |set, capability| set | 1 << capability))?;
    prctl::set_no_new_privs()
}
