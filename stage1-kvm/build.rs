//! Links the VMM with packed relocations (DT_RELR; glibc 2.36): those of a static program that can be loaded anywhere are
//! 24 bytes for each pointer, 140 KiB, and 2 KiB packed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
