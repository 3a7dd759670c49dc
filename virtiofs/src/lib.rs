//! A FUSE server for one directory of the host, asked by a guest that nobody trusts: the host's side of virtio-fs.
//!
//! `request` parses, `reply` writes, `inodes` has what the guest knows by numbers, and [`Server`] does what is asked. The
//! guest's kernel checks permissions, since whoever is root there may say to be any user. What the server itself ensures is that
//! nothing outside of the directory is reached, that what is read-only is not changed, and that what the guest can hold here has an
//! end. It never follows a link and never looks up more than a single name.

mod attributes;
mod content;
mod directories;
mod entries;
mod inodes;
mod reply;
mod request;
mod serve;
mod server;
mod sys;
#[cfg(test)]
mod tests;

pub use inodes::{MAX_HANDLES, MAX_INODES};
pub use serve::serve;
pub use server::{Error, Server};
