//! What stage1s share: above all the pod's parent process. It reads the pod, keeps its lock, and drives it from outside by
//! the control channel until it has exited.
//!
//! A stage1's `run` entrypoint, whatever the isolation: [`lock::take`], [`pod::Pod::open`], [`signals::Signals::block`],
//! [`pod::Pod::plan`], make the isolation, [`attend::attend`], exit; [`error::exit_code`] for what went wrong. The other
//! entrypoints are [`enter::enter`], [`attach::attach`], [`change::change`], [`port_forward::port_forward`], [`stats`],
//! [`stop::stop`] and [`gc::gc`].
//! A stage1 without such a process (`stage1-fly`) uses what fits it.

pub mod attach;
pub mod attend;
pub mod cgroup;
pub mod change;
mod client;
pub mod clock;
pub mod enter;
pub mod entrance;
pub mod error;
pub mod gc;
pub mod lock;
mod logs;
pub mod metadata;
pub mod network;
mod notify;
mod parent;
pub mod pod;
pub mod port_forward;
pub mod scope;
pub mod signals;
pub mod sockets;
pub mod stats;
pub mod status;
pub mod stop;
pub mod sys;
pub mod terminal;
pub mod timeline;
pub mod volumes;

pub use error::Error;
