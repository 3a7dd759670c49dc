//! Loop devices, for kernels that cannot mount an image from its file.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::error::{Error, errno};

/// A loop device; it vanishes when the last mount of it and this have gone.
#[derive(Debug)]
pub struct LoopDevice {
    /// Where it is.
    pub path: PathBuf,
    _open: File,
}

/// How often a device may be snatched away between finding and taking it.
const ATTEMPTS: usize = 64;
const CONTROL: &str = "/dev/loop-control";

// linux/loop.h
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config` with its `struct loop_info64` written out as far as it is used here.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// lo_device to lo_encrypt_key_size.
    numbers: [u64; 5],
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    /// lo_file_name, lo_crypt_name, lo_encrypt_key and lo_init.
    names: [u8; 64 + 64 + 32 + 16],
    /// Aligned as the kernel's 64-bit fields are.
    reserved: [u64; 8],
}

/// Attaches a file to a free loop device, read-only.
pub fn attach(file: &Path) -> Result<LoopDevice, Error> {
    let image = File::open(file).map_err(|error| Error::path("open image", file)(errno(&error)))?;
    let control =
        OpenOptions::new().read(true).write(true).open(CONTROL).map_err(|error| Error::Because {
            what: "cannot mount images: this kernel needs loop devices for that (try \"modprobe loop\")"
                .into(),
            source: Box::new(Error::path("open", CONTROL)(errno(&error))),
        })?;
    for _ in 0..ATTEMPTS {
        // SAFETY: the call takes no argument.
        let number = Errno::result(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })
            .map_err(Error::path("find a free loop device through", CONTROL))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let open = OpenOptions::new().read(true).open(&path);
        let open = open.map_err(|error| Error::path("open", &path)(errno(&error)))?;
        match configure(&open, &image) {
            Ok(()) => return Ok(LoopDevice { path, _open: open }),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(Error::path(format!("attach {} to", file.display()), path)(errno)),
        }
    }
    Err(Error::path("find a free loop device for", file)(Errno::EBUSY))
}

fn configure(device: &File, image: &File) -> nix::Result<()> {
    let config = LoopConfig {
        fd: image.as_raw_fd().cast_unsigned(),
        block_size: 0,
        numbers: [0; 5],
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        names: [0; 176],
        reserved: [0; 8],
    };
    // SAFETY: the call reads one loop_config, which this is; the test below compares the layout.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn layout() {
        // linux/loop.h: loop_config is 4 + 4 + 232 + 64 bytes; in it, lo_flags is 52 bytes into loop_info64.
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(offset_of!(LoopConfig, flags), 8 + 52);
        assert_eq!(offset_of!(LoopConfig, reserved), 8 + 232);
    }
}
