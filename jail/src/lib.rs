//! What confines a process that serves somebody hostile: a guest's machine, or its files.
//!
//! Such a process is forked from one that has opened everything it needs ([`fork`]), with namespaces of its own. It goes into
//! its [`Jail`], where there is nothing to open and nobody to reach, and then each of its threads takes a [`filter`] of
//! the few system calls that it needs. Only then does it listen to whom it serves. What it was given it keeps:
//! open descriptors and nothing else.

mod enter;
mod error;
pub mod filter;
mod fork;
pub mod landlock;
mod sys;

pub use enter::Jail;
pub use error::Error;
pub use fork::{Child, fork};
