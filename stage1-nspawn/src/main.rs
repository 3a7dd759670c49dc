//! The namespace isolation: namespaces, mounts and cgroups around the supervisor

fn main() {}
