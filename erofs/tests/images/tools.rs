//! The checker and the inspector of erofs-utils have no complaint.

use std::io::ErrorKind;
use std::process::{Command, Output};

use crate::{image, zoo};

/// What a tool says about an image; `None`, with the reason printed, if it is not installed.
fn run(tool: &str, arguments: &[&str], image: &[u8]) -> Option<Output> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, image).unwrap();
    match Command::new(tool).args(arguments).arg(file.path()).output() {
        Ok(output) => Some(output),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: {tool} is not installed (apt-get install erofs-utils)");
            None
        }
        Err(error) => panic!("{tool}: {error}"),
    }
}

/// What fsck.erofs complains about; its exit status is 0 after most complaints, too.
fn complaints(image: &[u8]) -> Option<String> {
    let Output { status, stdout, stderr } = run("fsck.erofs", &["--extract"], image)?;
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    let lines = said.lines().filter(|line| line.starts_with("<E>") || line.starts_with("<W>"));
    let ended = if status.success() { String::new() } else { format!("{status}\n") };
    Some(lines.fold(ended, |all, line| all + line + "\n"))
}

#[test]
fn fsck_finds_nothing() {
    let mut zoo = zoo::items();
    // It recurses with 10 KB of stack a directory.
    zoo.retain(|item| !item.path.starts_with(b"deep"));
    for items in [vec![], zoo, zoo::large_attributes()] {
        let Some(complaints) = complaints(&image(&items).0) else { return };
        assert_eq!(complaints, "");
    }
}

#[test]
fn fsck_notices_a_damaged_superblock() {
    let mut image = image(&[]).0;
    image[1024 + 20] ^= 1;
    let Some(complaints) = complaints(&image) else { return };
    assert!(complaints.contains("chksum"), "{complaints}");
}

#[test]
fn files_are_in_whole_blocks_for_dax() {
    let image = image(&zoo::items()).0;
    for size in ["1", "4095", "4096", "4097", "100000"] {
        let path = format!("--path=/sizes/{size}");
        let Some(output) = run("dump.erofs", &[&path, "-e"], &image) else { return };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("Layout: 0"), "{said}");
    }
}
