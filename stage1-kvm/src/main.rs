//! The VM isolation: a micro-VM around the supervisor

fn main() {}
