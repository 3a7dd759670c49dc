//! Runs pods in namespaces through the built program, as stage0 would start it. Needs root, static busybox and, for the
//! tests of images, mkfs.erofs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod apps;
mod confinement;
mod devices;
mod enter;
mod hostile;
mod leftovers;
mod lifecycle;
mod limits;
mod pod;
mod seccomp;
mod streams;
mod terminal;
