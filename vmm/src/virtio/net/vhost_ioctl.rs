//! The kernel's interface of vhost-net (linux/vhost.h).

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::Result;
use nix::libc::c_int;

use super::vhost::Rings;
use crate::memory::DeviceMemory;

/// `struct vhost_vring_state`, and `struct vhost_vring_file`: a queue, and a number or a descriptor.
type OfQueue = [u32; 2];
/// `struct vhost_vring_addr`: a queue, no flags, the rings, and no log.
type Addresses = [u64; 5];
/// `struct vhost_memory` without its regions.
type Memory = [u32; 2];

nix::ioctl_read!(get_features, 0xaf, 0x00, u64);
nix::ioctl_write_ptr!(put_features, 0xaf, 0x00, u64);
nix::ioctl_none!(become_owner, 0xaf, 0x01);
nix::ioctl_write_ptr!(put_memory, 0xaf, 0x03, Memory);
nix::ioctl_write_ptr!(put_num, 0xaf, 0x10, OfQueue);
nix::ioctl_write_ptr!(put_addresses, 0xaf, 0x11, Addresses);
nix::ioctl_write_ptr!(put_base, 0xaf, 0x12, OfQueue);
nix::ioctl_write_ptr!(put_kick, 0xaf, 0x20, OfQueue);
nix::ioctl_write_ptr!(put_call, 0xaf, 0x21, OfQueue);
nix::ioctl_write_ptr!(put_err, 0xaf, 0x22, OfQueue);
nix::ioctl_write_ptr!(put_backend, 0xaf, 0x30, OfQueue);

pub fn features(device: &File) -> Result<u64> {
    let mut features = 0;
    // SAFETY: it writes the number that it is given, which lives through the call.
    unsafe { get_features(device.as_raw_fd(), &raw mut features) }?;
    Ok(features)
}

pub fn set_features(device: &File, features: u64) -> Result<()> {
    // SAFETY: it reads the number that it is given, which lives through the call.
    unsafe { put_features(device.as_raw_fd(), &raw const features) }.map(drop)
}

pub fn set_owner(device: &File) -> Result<()> {
    // SAFETY: it takes nothing. What the kernel will touch of this process's memory is told by the calls below.
    unsafe { become_owner(device.as_raw_fd()) }.map(drop)
}

pub fn set_memory(device: &File, memory: &DeviceMemory) -> Result<()> {
    let regions: Vec<_> = memory.layout().collect();
    let mut table = vec![regions.len() as u64];
    table.extend(regions.into_iter().flat_map(|(guest, bytes, here)| [guest, bytes, here, 0]));
    // SAFETY: it reads as many regions as the first word says, all of which live through the call. The memory is the guest's, which
    // everybody may change at any time, and is mapped until the device's last descriptor is closed with the machine.
    unsafe { put_memory(device.as_raw_fd(), table.as_ptr().cast()) }.map(drop)
}

pub fn set_vring_addr(device: &File, index: u32, rings: &Rings) -> Result<()> {
    let addresses = [u64::from(index), rings.descriptors, rings.device, rings.driver, 0];
    // SAFETY: it reads the words that it is given, which live through the call. The rings are the guest's memory.
    unsafe { put_addresses(device.as_raw_fd(), &raw const addresses) }.map(drop)
}

pub fn set_vring_num(device: &File, index: u32, size: u32) -> Result<()> {
    of_queue(put_num, device, index, size)
}

/// Where in the rings the kernel begins.
pub fn set_vring_base(device: &File, index: u32, base: u32) -> Result<()> {
    of_queue(put_base, device, index, base)
}

/// The driver notifies by that descriptor.
pub fn set_vring_kick(device: &File, index: u32, kick: c_int) -> Result<()> {
    of_queue(put_kick, device, index, kick.cast_unsigned())
}

/// The driver is notified by that descriptor.
pub fn set_vring_call(device: &File, index: u32, call: c_int) -> Result<()> {
    of_queue(put_call, device, index, call.cast_unsigned())
}

/// Trouble with the queue is told by that descriptor.
pub fn set_vring_err(device: &File, index: u32, err: c_int) -> Result<()> {
    of_queue(put_err, device, index, err.cast_unsigned())
}

/// The queue is that tap's; from now on the kernel serves it. Or it is nobody's, and it no longer does.
pub fn set_backend(device: &File, index: u32, tap: Option<c_int>) -> Result<()> {
    of_queue(put_backend, device, index, tap.map_or(u32::MAX, c_int::cast_unsigned))
}

fn of_queue(
    call: unsafe fn(c_int, *const OfQueue) -> Result<c_int>,
    device: &File,
    index: u32,
    value: u32,
) -> Result<()> {
    let request = [index, value];
    // SAFETY: each of these calls reads the two words that it is given, which live through the call.
    unsafe { call(device.as_raw_fd(), &raw const request) }.map(drop)
}
