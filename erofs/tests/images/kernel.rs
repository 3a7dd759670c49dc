//! Linux mounts the images and sees in them what was put there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::{image, listing, zoo};

/// Mounts an image in a mount namespace of the calling thread, which ends with it. False, with the reason printed,
/// where this machine cannot.
fn mounted(image: &Path, at: &Path) -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: mounting needs root");
        return false;
    }
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let flags = MsFlags::MS_RDONLY;
    match mount(Some(image), at, Some("erofs"), flags, None::<&str>) {
        Ok(()) => true,
        // Before 6.12 an image has to be a block device.
        Err(Errno::ENOTBLK) => mounted_by_loop(image, at),
        Err(Errno::ENODEV) => {
            println!("skipped: this kernel has no EROFS (modprobe erofs)");
            false
        }
        Err(error) => panic!("mount {}: {error}", image.display()),
    }
}

fn mounted_by_loop(image: &Path, at: &Path) -> bool {
    let losetup = match Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(image).output()
    {
        Ok(output) if output.status.success() => output,
        Ok(output) => {
            println!("skipped: no loop device: {}", String::from_utf8_lossy(&output.stderr));
            return false;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: losetup is not installed");
            return false;
        }
        Err(error) => panic!("losetup: {error}"),
    };
    let device = String::from_utf8(losetup.stdout).unwrap();
    let result = mount(Some(device.trim()), at, Some("erofs"), MsFlags::MS_RDONLY, None::<&str>);
    // The device goes with its last user: the mount, or nobody.
    assert!(Command::new("losetup").args(["--detach", device.trim()]).status().unwrap().success());
    result.unwrap();
    true
}

fn compare_with_mount(items: &[crate::Item]) {
    let directory = tempfile::tempdir().unwrap();
    let (file, at) = (directory.path().join("image"), directory.path().join("mount"));
    fs::write(&file, image(items).0).unwrap();
    fs::create_dir(&at).unwrap();
    if mounted(&file, &at) {
        let seen = listing::of_directory(&at);
        umount2(&at, MntFlags::MNT_DETACH).unwrap();
        listing::assert_same(&seen, &listing::of_items(items));
        println!("compared {} entries with the kernel's", seen.len());
    }
}

#[test]
fn the_kernel_sees_what_was_written() {
    compare_with_mount(&zoo::items());
}

#[test]
fn the_kernel_sees_attributes_of_several_blocks() {
    compare_with_mount(&zoo::large_attributes());
}

#[test]
fn the_kernel_mounts_an_empty_image() {
    compare_with_mount(&[]);
}
