//! Has the host's page cache hold an image in huge pages. A micro-VM maps the image; of a huge page it takes one nested page fault
//! where small ones take 512, some 4,000 instructions each.
//!
//! Whoever imports an image does this, once for all pods to come: its pages have just been written, and nothing waits for it. It is
//! `MADV_COLLAPSE` (Linux 6.1), which tmpfs bears, and file systems of a kernel with `CONFIG_READ_ONLY_THP_FOR_FS` whose files
//! nobody has open for writing. A refusal costs speed and nothing else; so does the page cache being reclaimed.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// Gathers what of the file is in the page cache as whole huge pages; how many there are now.
pub fn gather(file: &File) -> io::Result<usize> {
    let whole = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)? / HUGE_PAGE;
    let Some(bytes) = NonZeroUsize::new(whole * HUGE_PAGE) else { return Ok(0) };
    let view = View::of(file, bytes)?;
    let mut gathered = 0;
    for index in 0..whole {
        if view.is_cached(index)? {
            match view.collapse(index) {
                Ok(()) => gathered += 1,
                // Of this range: some of its pages are in use (madvise(2)).
                Err(Errno::EAGAIN | Errno::EBUSY) => {}
                // Of all: the kernel, or the file system, does not do that; or there is no memory for it.
                Err(errno) => return if gathered > 0 { Ok(gathered) } else { Err(errno.into()) },
            }
        }
    }
    Ok(gathered)
}

/// A file, mapped so that each of its huge pages is one of addresses, too.
struct View {
    reserved: NonNull<libc::c_void>,
    reserved_bytes: NonZeroUsize,
    start: NonNull<libc::c_void>,
}

impl View {
    /// The first `bytes` of a file, whole huge pages.
    fn of(file: &File, bytes: NonZeroUsize) -> nix::Result<Self> {
        let reserved_bytes = bytes.checked_add(HUGE_PAGE).ok_or(Errno::EOVERFLOW)?;
        let (none, flags) = (ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let reserved = unsafe { mmap_anonymous(None, reserved_bytes, none, flags) }?;
        let lead = (reserved.as_ptr() as usize).wrapping_neg() % HUGE_PAGE;
        // SAFETY: `lead` is less than what is reserved beyond `bytes`.
        let start = unsafe { reserved.byte_add(lead) };
        let view = Self { reserved, reserved_bytes, start };
        let map = |protection| {
            let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
            // SAFETY: the range lies within what was just reserved, and nobody else knows of it.
            unsafe {
                mmap(NonZeroUsize::new(start.as_ptr() as usize), bytes, protection, flags, file.as_fd(), 0)
            }
        };
        // Linux 6.1 gathers only what may be executed, which a file system without programs refuses (noexec).
        map(ProtFlags::PROT_READ | ProtFlags::PROT_EXEC).or_else(|_| map(ProtFlags::PROT_READ))?;
        Ok(view)
    }

    /// Whether every page of a huge one is in the page cache: none is to be read from a disk.
    fn is_cached(&self, index: usize) -> nix::Result<bool> {
        let mut pages = [0; HUGE_PAGE / PAGE];
        // SAFETY: the range is mapped, and there is a byte for each of its pages.
        let result = unsafe { libc::mincore(self.huge_page(index), HUGE_PAGE, pages.as_mut_ptr()) };
        Errno::result(result)?;
        Ok(pages.iter().all(|page: &u8| page & 1 == 1))
    }

    /// Gathers one, of which a page has been looked at: else Linux 6.1 does it and says EINVAL, for want of a page table.
    fn collapse(&self, index: usize) -> nix::Result<()> {
        self.advise(index, PAGE, libc::MADV_POPULATE_READ)?;
        self.advise(index, HUGE_PAGE, libc::MADV_COLLAPSE)
    }

    fn advise(&self, index: usize, bytes: usize, advice: libc::c_int) -> nix::Result<()> {
        // SAFETY: the range is mapped, and neither advice changes what is in it.
        Errno::result(unsafe { libc::madvise(self.huge_page(index), bytes, advice) }).map(drop)
    }

    fn huge_page(&self, index: usize) -> *mut libc::c_void {
        self.start.as_ptr().wrapping_byte_add(index * HUGE_PAGE)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // SAFETY: the range is this view's own, and nothing refers to what is in it.
        let _cannot_fail_on_own_range = unsafe { munmap(self.reserved, self.reserved_bytes.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_in_memory_is_gathered_where_the_kernel_can_and_stays_what_it_is() {
        let content: Vec<u8> = (0..HUGE_PAGE * 2 + 5000).map(|at| (at / PAGE) as u8).collect();
        let mut file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
        file.write_all(&content).unwrap();
        match gather(&File::open(file.path()).unwrap()) {
            Ok(count) => assert!(count <= 2),
            // A kernel without huge pages.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL)),
        }
        assert!(std::fs::read(file.path()).unwrap() == content);
    }

    #[test]
    fn what_is_smaller_than_a_huge_page_is_left_alone() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[1; HUGE_PAGE - 1]).unwrap();
        assert_eq!(gather(&File::open(file.path()).unwrap()).unwrap(), 0);
    }
}
