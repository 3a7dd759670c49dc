//! Attaches network namespaces by plugins: by scripts that misbehave, and by Debian's containernetworking-plugins. Needs
//! root. Everything happens in network namespaces that the tests make themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod debian;
mod guests;
mod scripts;
mod world;
