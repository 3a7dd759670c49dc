//! Trees made of images on the host.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;

use erofs::{Error, Reader};

use crate::{What, image, listing, zoo};

#[test]
fn an_extracted_tree_is_the_image() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: owners and devices need root");
        return;
    }
    let (items, directory) = (zoo::items(), tempfile::tempdir().unwrap());
    let image = image(&items).0;
    let target = File::open(directory.path()).unwrap();
    match erofs::extract(&Reader::open(&image).unwrap(), target.as_fd()) {
        // tmpfs has user.* attributes only since 6.6.
        Err(Error::Extract { source, .. }) if source.kind() == ErrorKind::Unsupported => {
            println!("skipped: no extended attributes in {}", directory.path().display());
            return;
        }
        result => result.unwrap(),
    }
    listing::assert_same(&listing::of_directory(directory.path()), &listing::of_items(&items));
}

#[test]
fn nothing_that_is_there_is_overwritten_or_followed() {
    let directory = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), directory.path().join("etc")).unwrap();
    std::fs::write(directory.path().join("file"), "as it was").unwrap();
    let target = File::open(directory.path()).unwrap();
    for items in [
        vec![zoo::item("file", What::File(b"x".to_vec()))],
        vec![zoo::item("etc", What::File(b"x".to_vec()))],
        vec![zoo::item("etc", What::Directory), zoo::item("etc/passwd", What::File(b"x".to_vec()))],
    ] {
        let image = image(&items).0;
        let error = erofs::extract(&Reader::open(&image).unwrap(), target.as_fd()).unwrap_err();
        assert!(
            matches!(&error, Error::Extract { entry, .. } if ["/etc", "/file"].contains(&&**entry)),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(directory.path().join("file")).unwrap(), b"as it was");
    assert_eq!(outside.path().read_dir().unwrap().count(), 0);
}
