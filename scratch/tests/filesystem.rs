//! e2fsprogs and the kernel have no complaint, before the file system is used and after.
#![allow(clippy::unwrap_used, clippy::panic)] // as in every test

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const UUID: [u8; 16] = *b"\x12\x34\x56\x78\x9a\xbc\x4d\xef\x80\x01\x02\x03\x04\x05\x06\x07";

/// What a tool says; `None`, with the reason printed, if it is not installed.
fn run(tool: &str, arguments: &[&str], file: &Path) -> Option<Output> {
    match Command::new(tool).args(arguments).arg(file).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: {tool} is not installed");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

/// Fails if e2fsck finds anything.
fn check(file: &Path) {
    let Some(output) = run("e2fsck", &["-f", "-n"], file) else { return };
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(!said.contains("WARNING") && !said.contains("Fix?"), "{said}");
}

#[test]
fn e2fsck_finds_nothing_at_any_size() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let group = 128 * MIB;
    let sizes = [
        64 * MIB,
        65 * MIB + 12_345,
        group - 4096,
        group,
        group + 4096,
        group + 600 * 4096,
        2 * group + 578 * 4096,
        3 * group - 4096,
        GIB,
        5 * GIB + 4096 * 777,
        8 * GIB,
        16 * GIB + 3 * MIB,
        64 * GIB,
    ];
    for size in sizes {
        scratch::format(file.as_file(), size, UUID).unwrap();
        println!("{size}");
        check(file.path());
        assert_eq!(file.as_file().metadata().unwrap().len(), size);
    }
}

#[test]
fn the_largest_is_in_order_too() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // Not every file system has files of a tebibyte.
    match scratch::format(file.as_file(), scratch::MAX_BYTES, UUID) {
        Ok(()) => check(file.path()),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn dumpe2fs_says_what_was_asked_for() {
    let file = tempfile::NamedTempFile::new().unwrap();
    scratch::format(file.as_file(), GIB, UUID).unwrap();
    let Some(output) = run("dumpe2fs", &["-h"], file.path()) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    for (name, value) in [
        ("Filesystem UUID", "12345678-9abc-4def-8001-020304050607"),
        ("Filesystem state", "clean"),
        ("Inode count", "65536"),
        ("Block count", "262144"),
        ("Free inodes", "65525"),
        ("Block size", "4096"),
        ("Reserved block count", "0"),
        (
            "Filesystem features",
            "ext_attr dir_index sparse_super2 filetype extent sparse_super large_file huge_file uninit_bg dir_nlink \
             extra_isize",
        ),
    ] {
        let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        assert_eq!(line.trim(), value, "{name}");
    }
}

#[test]
fn a_few_blocks_are_written_whatever_was_there() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all(&vec![0xff; 10 << 20]).unwrap();
    for size in [GIB, 8 * GIB, 64 * GIB] {
        let start = Instant::now();
        scratch::format(file.as_file(), size, UUID).unwrap();
        let (time, bytes) = (start.elapsed(), file.as_file().metadata().unwrap().blocks() * 512);
        println!("{} GiB: {time:?}, {} KiB on disk", size / GIB, bytes >> 10);
        assert!(bytes <= 96 << 10, "{bytes} bytes of {size}");
        check(file.path());
    }
}

#[test]
fn the_same_arguments_give_the_same_bytes() {
    let [one, other] = [100, 200].map(|fill| {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all(&vec![fill; 1 << 20]).unwrap();
        scratch::format(file.as_file(), 200 * MIB, UUID).unwrap();
        fs::read(file.path()).unwrap()
    });
    assert!(one == other);
}

#[test]
fn impossible_sizes_and_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for size in [0, 64 * MIB - 1, scratch::MAX_BYTES + 1] {
        let error = scratch::format(file.as_file(), size, UUID).unwrap_err();
        assert!(error.to_string().contains(&format!(" {size} bytes ")), "{error}");
    }
    assert_eq!(file.as_file().metadata().unwrap().len(), 0);
    let read_only = File::open(file.path()).unwrap();
    assert!(matches!(scratch::format(&read_only, GIB, UUID), Err(scratch::Error::Resize { .. })));
}

/// Attaches a file to a loop device; `None`, with the reason printed, where this machine cannot.
fn loop_device(file: &Path) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: loop devices need root");
        return None;
    }
    let output = run("losetup", &["--find", "--show"], file)?;
    if !output.status.success() {
        println!("skipped: no loop device: {}", String::from_utf8_lossy(&output.stderr));
        return None;
    }
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// Mounts the file system, uses it, and unmounts it, in a mount namespace of the calling thread. False where this
/// machine cannot.
fn used(file: &Path, work: impl FnOnce(&Path)) -> bool {
    let at = tempfile::tempdir().unwrap();
    let Some(device) = loop_device(file) else { return false };
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let mounted = mount(Some(device.as_str()), at.path(), Some("ext4"), MsFlags::empty(), None::<&str>);
    // The device goes with its last user: the mount, or nobody.
    assert!(Command::new("losetup").args(["--detach", &device]).status().unwrap().success());
    mounted.unwrap();
    work(at.path());
    umount2(at.path(), MntFlags::empty()).unwrap();
    true
}

#[test]
fn the_kernel_writes_to_every_group() {
    let file = tempfile::NamedTempFile::new().unwrap();
    scratch::format(file.as_file(), 300 * MIB, UUID).unwrap();
    let used = used(file.path(), |root| {
        let stat = root.metadata().unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.uid()), (0o755, 0));
        let mut files = 0;
        for directory in 0..30 {
            let directory = root.join(format!("directory-{directory}"));
            fs::create_dir(&directory).unwrap();
            for number in 0..100 {
                fs::write(directory.join(format!("{number}")), [directory.as_os_str().len() as u8; 5000])
                    .unwrap();
                files += 1;
            }
        }
        let filled = fill(&root.join("all-the-rest"));
        println!("{files} files and {} MiB", filled / MIB);
        assert!(filled > 250 * MIB, "{filled}");
        for directory in 0..30 {
            fs::remove_dir_all(root.join(format!("directory-{directory}"))).unwrap();
        }
    });
    if used {
        check(file.path());
    }
}

#[test]
fn the_kernel_uses_every_inode() {
    let file = tempfile::NamedTempFile::new().unwrap();
    scratch::format(file.as_file(), 140 * MIB, UUID).unwrap();
    let used = used(file.path(), |root| {
        let made =
            (0..100_000).take_while(|number| File::create(root.join(number.to_string())).is_ok()).count();
        assert_eq!(made, 2 * 8192 - 11);
    });
    if used {
        check(file.path());
    }
}

/// Writes until there is no more space; returns how much there was.
fn fill(path: &Path) -> u64 {
    let (mut file, part, mut filled) = (File::create(path).unwrap(), vec![0xa5; 1 << 20], 0);
    loop {
        match file.write(&part) {
            Ok(count) => filled += count as u64,
            Err(error) if error.kind() == ErrorKind::StorageFull => return filled,
            Err(error) => panic!("after {filled} bytes: {error}"),
        }
    }
}
