//! End-to-end tests: they drive the built `rkt`, on real images, in one isolation. `tests/suite` runs them; they read
//!
//! * `RKT`: the binary, with its stage1s beside it,
//! * `RKT_TEST_STAGE1`: `kvm` or `nspawn`,
//! * `RKT_TEST_IMAGES`: what `tests/images` has built,
//! * `RKT_TEST_SYSTEMD`: `tests/systemd`,
//! * `TMPDIR`: a file system that overlayfs can write to; what is left there is removed by the caller.
//!
//! Each test ends with a check that its pods have left nothing behind ([`harness::Host`]).
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod ace;
mod apparmor;
mod apps;
mod attach;
mod bad_images;
mod cleanup;
mod clock;
mod combined;
mod confinement;
mod crash;
mod disk;
mod enter;
mod errors;
mod escapes;
mod exit_status;
mod export;
mod export_vm;
mod faults;
mod fly;
mod foreign;
mod harness;
mod image_store;
mod images;
mod ipc;
mod jail;
mod kvm;
mod landlock;
mod life;
mod lifecycle;
mod limits;
mod logs;
mod memory;
mod names;
mod network;
mod notify;
mod pod_manifest;
mod prepared;
mod private_users;
mod random;
mod real_programs;
mod sandbox;
mod scope;
mod signals;
mod sockets;
mod statistics;
mod streams;
mod system_calls;
mod terminal;
mod timeline;
mod upstream;
mod volumes;
