//! What is hostile to rkt, as functions of arbitrary bytes: none of them may panic, hang, or leave what it was given.
//!
//! `machine` is a driver without manners in front of a device's registers, `devices` the devices and their hosts' ends.

mod bus;
mod devices;
mod files;
mod formats;
mod fuse;
mod image;
mod machine;

pub use bus::run as bus;
pub use devices::{balloon, block, console, fs, net, pmem, rng, vsock};
pub use files::run as virtiofs;
pub use formats::{cni, control, manifests};
pub use image::run as erofs;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the names of their programs and of their folders in `corpus`.
pub const TARGETS: &[(&str, Target)] = &[
    ("balloon", balloon),
    ("block", block),
    ("bus", bus),
    ("cni", cni),
    ("console", console),
    ("control", control),
    ("erofs", erofs),
    ("fs", fs),
    ("manifests", manifests),
    ("net", net),
    ("pmem", pmem),
    ("rng", rng),
    ("virtiofs", virtiofs),
    ("vsock", vsock),
];
