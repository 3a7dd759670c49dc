//! Runs pods in VMs through the built program, as stage0 would start it. Needs root, a KVM that runs guests, static
//! busybox, mkfs.erofs, the guest kernel (`kernel-config/build`) and a release build of guest-init.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod enter;
mod failures;
mod lifecycle;
mod limits;
mod pod;
mod streams;
mod terminal;
