//! Pods as data: manifests, isolators, plans, the stage1 ABI, supervisor messages. No system call is made here, so
//! everything that decides what an app gets can be printed, compared and tested without root.

pub mod abi;
pub mod apparmor;
pub mod attach;
pub mod boolean;
pub mod capability;
pub mod control;
pub mod devices;
pub mod disk_space;
pub mod error;
pub mod forward;
pub mod guest_network;
pub mod hosts;
pub mod image_manifest;
pub mod ip_ranges;
pub mod isolator;
pub mod landlock;
pub mod life;
pub mod limits;
pub mod log;
pub mod metadata;
pub mod net;
pub mod plan;
pub mod pod_manifest;
pub mod ports;
pub mod quantity;
pub mod rates;
pub mod rlimit;
pub mod seccomp;
pub mod selinux;
pub mod session;
pub mod sockets;
pub mod statistics;
pub mod streams;
pub mod types;
pub mod users;
pub mod volumes;

pub use error::Error;
