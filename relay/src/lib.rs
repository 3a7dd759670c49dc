//! Carries bytes from descriptor to descriptor: the supervisor between an app's pipes or terminal and the pod's
//! connections, the pod's parent between those and the caller's streams.
//!
//! A [`Carrier`] reads only when it has nothing left to write, so a slow reader slows its writer down and no buffer
//! grows; it passes on the end of what it reads, and when nobody reads any more it closes what it reads from, so that
//! the writer learns of it as it would without a carrier in between. [`Observer`]s see what passes, among them those of
//! [`Listener`]s, for whom no writer waits. [`packets`] hand the descriptors over.

mod carrier;
mod duplex;
mod ends;
mod lines;
mod listener;
pub mod packets;

pub use carrier::{Carrier, Filter, Observer, Source};
pub use duplex::both_directions;
pub use ends::{Sink, SinkEnd};
pub use listener::{Listener, Standing};
