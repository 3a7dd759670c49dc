//! Links the VMM as small as it can be.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Packed relocations (DT_RELR; glibc 2.36): those of a static program that can be loaded anywhere are 24 bytes for each
    // pointer, 140 KiB, and 2 KiB packed.
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    // No index of the unwind tables, 38 KiB: what is released aborts where it panics, and has no names to tell of.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}
