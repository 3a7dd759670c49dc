//! Drives the built `rkt` with images that are made here, and with a stage1 that only tells how it was called.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod archive;
mod bad_images;
mod command_line;
mod dependencies;
mod enter;
mod foreign;
mod host;
mod images;
mod oci;
mod pod_manifest;
mod pods;
mod prepared;
mod run;
mod status;
mod stop;
mod store;
mod trust;
mod users;
