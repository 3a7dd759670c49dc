//! One image with everything that an image can have.

use erofs::{Metadata, Special, Xattrs};

use crate::{Item, What};

pub fn item(path: impl Into<String>, what: What) -> Item {
    let permissions = if matches!(what, What::Directory) { 0o755 } else { 0o644 };
    Item { path: path.into().into_bytes(), metadata: metadata(permissions, &what), what }
}

/// Links have all permissions on every system; the tests compare them with the host's.
fn metadata(permissions: u16, what: &What) -> Metadata {
    Metadata::root_owned(if matches!(what, What::Symlink(_)) { 0o777 } else { permissions })
}

/// `count` bytes without a period that fits a block.
pub fn bytes(count: usize) -> Vec<u8> {
    (0..count as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 1).collect()
}

pub fn items() -> Vec<Item> {
    let mut items = vec![item("./", What::Directory)];
    items[0].metadata.mtime_s = 1_700_000_000;
    sizes(&mut items);
    owners_and_times(&mut items);
    attributes(&mut items);
    links(&mut items);
    specials(&mut items);
    names(&mut items);
    items
}

fn sizes(items: &mut Vec<Item>) {
    for size in [0, 1, 4095, 4096, 4097, 8192, 100_000, 1_500_000] {
        items.push(item(format!("sizes/{size}"), What::File(bytes(size))));
    }
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20] = 1;
    items.push(item("sizes/sparse", What::File(sparse)));
    items.push(item("sizes/zeros", What::File(vec![0; 12_345])));
}

fn owners_and_times(items: &mut Vec<Item>) {
    let times = [(0, 0), (1_700_000_000, 999_999_999), (-1, 1), (-1_000_000_000, 0), (1 << 33, 5)];
    let modes = [0o644, 0o4755, 0o2711, 0o1777, 0];
    for (number, ((mtime_s, mtime_ns), permissions)) in times.into_iter().zip(modes).enumerate() {
        for what in [What::File(b"x".to_vec()), What::Directory, What::Symlink(b"t".to_vec())] {
            let kind = format!("{what:?}").chars().take(3).collect::<String>();
            let mut item = item(format!("owners/{number}-{kind}"), what);
            let link = item.metadata.permissions == 0o777;
            let (uid, gid) = (number as u32 * 1_000_000_007, u32::MAX - 1 - number as u32);
            let permissions = if link { 0o777 } else { permissions };
            item.metadata = Metadata { permissions, uid, gid, mtime_s, mtime_ns, xattrs: Xattrs::new() };
            items.push(item);
        }
    }
}

/// An ACL in the form of acl(5)'s extended attribute: version 2; owner, user 1000, group, mask, others.
const ACL: [u8; 44] = {
    let entries: [(u8, u8, u32); 5] =
        [(1, 6, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)];
    let (mut acl, mut at) = ([0; 44], 0);
    acl[0] = 2;
    while at < 5 {
        let (tag, permissions, id) = entries[at];
        let (start, id) = (4 + 8 * at, id.to_le_bytes());
        acl[start] = tag;
        acl[start + 2] = permissions;
        let mut byte = 0;
        while byte < 4 {
            acl[start + 4 + byte] = id[byte];
            byte += 1;
        }
        at += 1;
    }
    acl
};

fn attributes(items: &mut Vec<Item>) {
    let long_name = ["user.", &"n".repeat(250)].concat();
    let sets: Vec<Vec<(&str, Vec<u8>)>> = vec![
        vec![("user.one", b"1".to_vec())],
        vec![("user.empty", vec![]), ("user.three", b"123".to_vec()), ("trusted.t", bytes(100))],
        vec![("security.capability", vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])],
        vec![("system.posix_acl_access", ACL.to_vec())],
        // Host file systems of 4 KiB blocks hold no more than that; see `large_attributes` for more.
        vec![(&long_name, bytes(2500))],
    ];
    for (number, set) in sets.iter().enumerate() {
        for what in [What::File(bytes(5000)), What::Directory] {
            let kind = format!("{what:?}").chars().take(3).collect::<String>();
            let mut item = item(format!("attributes/{number}-{kind}"), what);
            if set[0].0 == "system.posix_acl_access" {
                item.metadata.permissions = 0o644; // what the ACL says
            }
            let set = set.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone()));
            item.metadata.xattrs.extend(set);
            items.push(item);
        }
    }
    let mut link = item("attributes/link", What::Symlink(b"target".to_vec()));
    link.metadata.xattrs.insert(b"trusted.link".to_vec(), b"on a link".to_vec());
    items.push(link);
    let mut fifo = item("attributes/fifo", What::Special(Special::Fifo));
    fifo.metadata.xattrs.insert(b"trusted.fifo".to_vec(), b"on a pipe".to_vec());
    items.push(fifo);
}

/// Attributes that take several blocks: the format and the kernel have them, ext4 does not.
pub fn large_attributes() -> Vec<Item> {
    let mut items = Vec::new();
    for (name, what) in [
        ("file", What::File(bytes(10))),
        ("directory", What::Directory),
        ("link", What::Symlink(b"x".to_vec())),
    ] {
        let mut item = item(name, what);
        for number in 0..5 {
            item.metadata
                .xattrs
                .insert(format!("trusted.large{number}").into_bytes(), bytes(12_000 + number));
        }
        items.push(item);
    }
    items.push(crate::zoo::item("directory/inside", What::File(b"inside".to_vec())));
    items
}

fn links(items: &mut Vec<Item>) {
    for length in (1..=4095).step_by(89).chain([4030, 4031, 4032, 4033, 4094, 4095]) {
        items.push(item(
            format!("links/{length}"),
            What::Symlink(bytes(length).iter().map(|b| b'a' + b % 26).collect()),
        ));
    }
    items.push(item("hard/a", What::File(bytes(7000))));
    items.push(item("hard/b", What::Link(b"hard/a".to_vec())));
    items.push(item("hard/sub/c", What::Link(b"/hard/b".to_vec())));
    items.push(item("hard/link", What::Symlink(b"a".to_vec())));
    items.push(item("hard/link2", What::Link(b"hard/link".to_vec())));
}

fn specials(items: &mut Vec<Item>) {
    let specials = [
        Special::Character { major: 1, minor: 3 },
        Special::Character { major: 511, minor: 0xf_ffff },
        Special::Block { major: 259, minor: 65_537 },
        Special::Fifo,
        Special::Socket,
    ];
    for (number, special) in specials.into_iter().enumerate() {
        items.push(item(format!("specials/{number}"), What::Special(special)));
    }
}

fn names(items: &mut Vec<Item>) {
    for number in 0..10_000 {
        items.push(item(format!("many/entry-{number}"), What::File(Vec::new())));
    }
    for length in [1, 254, 255] {
        for first in ['!', '-', '.', '/', 'a', '\u{7f}'].into_iter().filter(|c| *c != '/') {
            let name = format!("{first}{}", "x".repeat(length - 1));
            if name != "." {
                items.push(item(format!("names/{name}"), What::Directory));
            }
        }
    }
    items.push(Item { path: b"names/\xff\xfe\x80".to_vec(), ..item("", What::Symlink(b"\xff".to_vec())) });
    items.push(item(["deep"; 800].join("/"), What::Directory));
}
