//! Mounts that only root of the host can make, made in a mount namespace that vanishes at once: what remains is a detached
//! tree.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use pod::plan::Operation;
use relay::packets;
use stage1::error::Causes;
use stage2::sys;

use crate::error::Error;

/// How much of an error is passed on.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// The packet that brings the tree.
const MOUNTED: &[u8] = b"\0";

/// Carries `operations` out, and takes what is then mounted at `place`; with the pod's user namespace, if it has one.
pub fn mount(
    operations: &[Operation],
    place: &Path,
    users: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Error> {
    let failed = || Error::system("mount the app's root");
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).map_err(failed())?;
    let Some(child) = sys::fork(CloneFlags::CLONE_NEWNS).map_err(failed())? else {
        let Err(error) = hand_back(operations, place, users, &theirs);
        let text = stage2::causes(&*error).join("\0");
        let text = text.as_bytes().get(..MAX_ERROR_BYTES).unwrap_or(text.as_bytes());
        // Without an answer the parent knows enough.
        let _ = packets::send(&theirs, text, &[]);
        // SAFETY: it takes a number and does not return; nothing of the parent's is run here.
        unsafe { libc::_exit(1) }
    };
    drop(theirs);
    waitpid(child, None).map_err(failed())?;
    let packet = packets::receive(&ours, MAX_ERROR_BYTES).map_err(failed())?;
    let packet = packet.ok_or_else(|| failed()(Errno::ECHILD))?;
    if let (MOUNTED, Some(tree)) = (packet.bytes.as_slice(), packet.descriptors.into_iter().next()) {
        return Ok(tree);
    }
    let causes = String::from_utf8_lossy(&packet.bytes).split('\0').map(str::to_owned).collect();
    Err(Causes::new(causes).map_or_else(|| failed()(Errno::ECHILD), Error::Scaffold))
}

fn hand_back(
    operations: &[Operation],
    place: &Path,
    users: Option<BorrowedFd<'_>>,
    parent: &OwnedFd,
) -> Result<Infallible, Box<dyn std::error::Error>> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    stage2::carry_out(operations, users)?;
    let place = CString::new(place.as_os_str().as_bytes())?;
    let tree = sys::open_mount(&place)?;
    packets::send(parent, MOUNTED, &[tree.as_fd()])?;
    // SAFETY: it takes a number and does not return; nothing of the parent's is run here.
    unsafe { libc::_exit(0) }
}
