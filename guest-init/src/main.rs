//! PID 1 of the guest: mounts, network, then the supervisor

fn main() {}
