//! The server as a guest's kernel, or what pretends to be one, asks it.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::Server;
use crate::request::ROOT;

struct Guest {
    server: Server,
    folder: TempDir,
    uid: u32,
}

/// FUSE's numbers of what the tests ask.
mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const CREATE: u32 = 35;
    pub const RENAME2: u32 = 45;
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Guest {
    fn new(read_only: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("shared")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        let root = File::open(folder.path().join("shared")).unwrap();
        Self { server: Server::new(root.into(), read_only).unwrap(), folder, uid: 0 }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join("shared").join(path)
    }

    fn ask(&mut self, opcode: u32, node: u64, body: &[&[u8]]) -> Result<Vec<u8>, Errno> {
        let body = body.concat();
        let mut message = words(&[40 + body.len() as u32, opcode]);
        message.extend(longs(&[77, node]));
        message.extend(words(&[self.uid, self.uid, 1, 0]));
        message.extend(body);
        let reply = self.server.answer(&message).unwrap();
        assert_eq!(u32::from_le_bytes(reply[..4].try_into().unwrap()) as usize, reply.len());
        assert_eq!(number(&reply, 8), 77);
        match i32::from_le_bytes(reply[4..8].try_into().unwrap()) {
            0 => Ok(reply[16..].to_vec()),
            error => Err(Errno::from_raw(-error)),
        }
    }

    fn look_up(&mut self, directory: u64, name: &str) -> Result<u64, Errno> {
        Ok(number(&self.ask(opcode::LOOKUP, directory, &[name.as_bytes(), b"\0"])?, 0))
    }

    fn open(&mut self, node: u64, flags: i32) -> Result<u64, Errno> {
        Ok(number(&self.ask(opcode::OPEN, node, &[&words(&[flags as u32, 0])])?, 0))
    }

    fn read(&mut self, node: u64, handle: u64) -> Result<Vec<u8>, Errno> {
        self.ask(opcode::READ, node, &[&longs(&[handle, 0]), &words(&[65536, 0, 0, 0, 0, 0])])
    }

    fn write(&mut self, handle: u64, data: &[u8], flags: u32) -> Result<Vec<u8>, Errno> {
        let (place, length) = (longs(&[handle, 0]), words(&[data.len() as u32, flags, 0, 0, 0, 0]));
        self.ask(opcode::WRITE, 0, &[&place, &length, data])
    }

    fn create(&mut self, name: &str, mode: u32) -> Result<(u64, u64), Errno> {
        let body = words(&[libc::O_RDWR as u32, mode, 0, 0]);
        let reply = self.ask(opcode::CREATE, ROOT, &[&body, name.as_bytes(), b"\0"])?;
        Ok((number(&reply, 0), number(&reply, 128)))
    }

    fn list(&mut self, node: u64) -> Vec<String> {
        let handle = number(&self.ask(opcode::OPENDIR, node, &[&[0; 8]]).unwrap(), 0);
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let place = [longs(&[handle, offset]), words(&[256, 0, 0, 0, 0, 0])].concat();
            let list = self.ask(opcode::READDIR, node, &[&place]).unwrap();
            if list.is_empty() {
                names.sort();
                return names;
            }
            let mut rest = list.as_slice();
            while !rest.is_empty() {
                offset = number(rest, 8);
                let length = u32::from_le_bytes(rest[16..20].try_into().unwrap()) as usize;
                names.push(String::from_utf8(rest[24..24 + length].to_vec()).unwrap());
                rest = &rest[(24 + length).next_multiple_of(8)..];
            }
        }
    }
}

#[test]
fn files_are_made_written_read_renamed_and_listed() {
    let mut guest = Guest::new(false);
    let hello = words(&[7, 40, 1 << 20, u32::MAX]);
    assert_eq!(guest.ask(opcode::INIT, 0, &[&hello]).unwrap().len(), 64);
    guest.uid = 1000;
    let (node, handle) = guest.create("new", 0o640).unwrap();
    assert_eq!(guest.write(handle, b"hello", 0).unwrap(), words(&[5, 0]));
    assert_eq!(guest.read(node, handle).unwrap(), b"hello");
    let made = fs::metadata(guest.at("new")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1000, 1000, 0o640));
    guest.ask(opcode::MKDIR, ROOT, &[&words(&[0o1777, 0]), b"d\0"]).unwrap();
    let directory = guest.look_up(ROOT, "d").unwrap();
    let target = [longs(&[directory]), words(&[0, 0])].concat();
    guest.ask(opcode::RENAME2, ROOT, &[&target, b"new\0old\0"]).unwrap();
    assert_eq!(guest.look_up(directory, "old"), Ok(node));
    assert_eq!(guest.look_up(ROOT, "new"), Err(Errno::ENOENT));
    guest.ask(opcode::LINK, ROOT, &[&longs(&[node]), b"again\0"]).unwrap();
    assert_eq!(guest.look_up(ROOT, "again"), Ok(node));
    for index in 0..100 {
        fs::write(guest.at(&format!("d/{index:03}")), "").unwrap();
    }
    assert_eq!(guest.list(directory).len(), 103);
    assert_eq!(guest.list(ROOT), [".", "..", "again", "d"]);
    guest.ask(opcode::UNLINK, ROOT, &[b"again\0"]).unwrap();
    assert!(!guest.at("again").exists());
    // A file that has no name any more is still the open one.
    fs::remove_file(guest.at("d/old")).unwrap();
    assert_eq!(guest.read(node, handle).unwrap(), b"hello");
}

#[test]
fn attributes_and_extended_ones() {
    let mut guest = Guest::new(false);
    let (node, handle) = guest.create("f", 0o600).unwrap();
    // FATTR_MODE, _UID, _GID, _SIZE and _MTIME.
    let mut changes = words(&[0b10_1111, 0]);
    changes.extend(longs(&[0, 3, 0, 0, 12345, 0]));
    changes.extend(words(&[0, 678, 0, 0o4755, 0, 5, 6, 0]));
    guest.ask(opcode::SETATTR, node, &[&changes]).unwrap();
    let is = || fs::metadata(guest.at("f")).unwrap();
    assert_eq!((is().uid(), is().gid(), is().mode() & 0o7777, is().len()), (5, 6, 0o4755, 3));
    assert_eq!((is().mtime(), is().mtime_nsec()), (12345, 678));
    guest.write(handle, b"x", 0).unwrap();
    assert_eq!(fs::metadata(guest.at("f")).unwrap().mode() & 0o7777, 0o4755);
    // FUSE_WRITE_KILL_SUIDGID
    guest.write(handle, b"x", 1 << 2).unwrap();
    assert_eq!(fs::metadata(guest.at("f")).unwrap().mode() & 0o7777, 0o755);
    let set = |name: &[u8]| [words(&[5, 0]).as_slice(), name, b"\0value"].concat();
    for name in [b"security.capability".as_slice(), b"trusted.x", b"system.posix_acl_access"] {
        assert_eq!(guest.ask(opcode::SETXATTR, node, &[&set(name)]), Err(Errno::EOPNOTSUPP));
        let asked = [words(&[100, 0]).as_slice(), name, b"\0"].concat();
        assert_eq!(guest.ask(opcode::GETXATTR, node, &[&asked]), Err(Errno::EOPNOTSUPP));
    }
    if guest.ask(opcode::SETXATTR, node, &[&set(b"user.x")]) != Err(Errno::EOPNOTSUPP) {
        let asked = |size| [words(&[size, 0]).as_slice(), b"user.x\0"].concat();
        assert_eq!(guest.ask(opcode::GETXATTR, node, &[&asked(100)]).unwrap(), b"value");
        assert_eq!(guest.ask(opcode::GETXATTR, node, &[&asked(0)]).unwrap(), words(&[5, 0]));
        assert_eq!(guest.ask(opcode::GETXATTR, node, &[&asked(2)]), Err(Errno::ERANGE));
        assert_eq!(guest.ask(opcode::LISTXATTR, node, &[&words(&[100, 0])]).unwrap(), b"user.x\0");
    }
}

#[test]
fn no_link_and_no_name_leads_out() {
    let mut guest = Guest::new(false);
    symlink("../secret", guest.at("up")).unwrap();
    symlink("/", guest.at("top")).unwrap();
    symlink("../", guest.at("parent")).unwrap();
    for name in ["../secret", "..", ".", "", "/etc/passwd", "up/", "top/etc"] {
        assert_eq!(guest.look_up(ROOT, name), Err(Errno::EINVAL), "{name}");
    }
    for name in ["up", "top", "parent"] {
        let link = guest.look_up(ROOT, name).unwrap();
        assert_eq!(guest.open(link, libc::O_RDONLY), Err(Errno::ELOOP));
        assert_eq!(guest.look_up(link, "secret"), Err(Errno::ENOTDIR));
        assert_eq!(guest.ask(opcode::OPENDIR, link, &[&[0; 8]]), Err(Errno::ENOTDIR));
    }
    let up = guest.look_up(ROOT, "up").unwrap();
    assert_eq!(guest.ask(opcode::READLINK, up, &[]).unwrap(), b"../secret");
    // Creating through a link is not creating what it leads to.
    assert_eq!(guest.create("up", 0o600), Err(Errno::ELOOP));
    guest.ask(opcode::SYMLINK, ROOT, &[b"mine\0/etc/passwd\0"]).unwrap();
    assert_eq!(fs::read_link(guest.at("mine")).unwrap(), PathBuf::from("/etc/passwd"));
    let mut truncate = words(&[1 << 3, 0]);
    truncate.extend([0; 80]);
    assert_eq!(guest.ask(opcode::SETATTR, up, &[&truncate]), Err(Errno::ELOOP));
    assert_eq!(fs::read(guest.folder.path().join("secret")).unwrap(), b"secret");
}

#[test]
fn entries_that_are_swapped_for_links_lead_nowhere() {
    let mut guest = Guest::new(false);
    let folder = guest.folder.path().to_owned();
    fs::create_dir(folder.join("outside")).unwrap();
    fs::write(folder.join("outside/file"), "secret").unwrap();
    fs::create_dir(guest.at("real")).unwrap();
    fs::write(guest.at("real/file"), "mine").unwrap();
    symlink("../outside", guest.at("link")).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let at = |name: &str| folder.join("shared").join(name);
            while !over.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(
                    nix::fcntl::AT_FDCWD,
                    &at("real"),
                    nix::fcntl::AT_FDCWD,
                    &at("link"),
                    nix::fcntl::RenameFlags::RENAME_EXCHANGE,
                )
                .unwrap();
            }
        });
        for _ in 0..2000 {
            let Ok(directory) = guest.look_up(ROOT, "real") else { continue };
            let Ok(file) = guest.look_up(directory, "file") else { continue };
            let handle = guest.open(file, libc::O_RDONLY).unwrap();
            assert_eq!(guest.read(file, handle).unwrap(), b"mine");
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_read_only_is_not_changed() {
    let mut guest = Guest::new(true);
    fs::write(guest.at("f"), "kept").unwrap();
    let node = guest.look_up(ROOT, "f").unwrap();
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(guest.open(node, flags), Err(Errno::EROFS));
    }
    let handle = guest.open(node, libc::O_RDONLY).unwrap();
    assert_eq!(guest.read(node, handle).unwrap(), b"kept");
    assert_eq!(guest.write(handle, b"x", 0), Err(Errno::EROFS));
    assert_eq!(guest.create("g", 0o600), Err(Errno::EROFS));
    let cases: [(u32, &[u8]); 5] = [
        (opcode::UNLINK, b"f\0"),
        (opcode::MKDIR, b"\0\0\0\0\0\0\0\0d\0"),
        (opcode::SYMLINK, b"s\0t\0"),
        (opcode::SETATTR, &[0; 88]),
        (opcode::RENAME2, b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0f\0g\0"),
    ];
    for (opcode, body) in cases {
        assert_eq!(guest.ask(opcode, ROOT, &[body]), Err(Errno::EROFS), "{opcode}");
    }
    assert_eq!(guest.list(ROOT), [".", "..", "f"]);
}

#[test]
fn devices_are_neither_made_nor_opened() {
    let mut guest = Guest::new(false);
    let make = |mode: u32| words(&[mode, 0x105, 0, 0]);
    for mode in [libc::S_IFCHR, libc::S_IFBLK, libc::S_IFDIR] {
        let made = guest.ask(opcode::MKNOD, ROOT, &[&make(mode | 0o666), b"n\0"]);
        assert_eq!(made, Err(Errno::EPERM));
    }
    guest.ask(opcode::MKNOD, ROOT, &[&make(libc::S_IFIFO | 0o666), b"pipe\0"]).unwrap();
    let pipe = guest.look_up(ROOT, "pipe").unwrap();
    assert_eq!(guest.open(pipe, libc::O_RDONLY), Err(Errno::ENXIO));
}

#[test]
fn what_is_forgotten_is_let_go_and_old_numbers_mean_nothing() {
    let mut guest = Guest::new(false);
    fs::write(guest.at("f"), "").unwrap();
    let node = guest.look_up(ROOT, "f").unwrap();
    assert_eq!(guest.look_up(ROOT, "f"), Ok(node));
    let forget = |server: &mut Server, node: u64, times: u64| {
        let mut message = words(&[48, opcode::FORGET]);
        message.extend(longs(&[1, node, 0, 0, times]));
        assert_eq!(server.answer(&message), None);
    };
    forget(&mut guest.server, node, 1);
    assert!(guest.ask(opcode::GETATTR, node, &[&[0; 16]]).is_ok());
    forget(&mut guest.server, node, u64::MAX);
    assert_eq!(guest.ask(opcode::GETATTR, node, &[&[0; 16]]), Err(Errno::ESTALE));
    forget(&mut guest.server, ROOT, u64::MAX);
    forget(&mut guest.server, 4711, 1);
    assert_eq!(guest.server.inodes.len(), 1);
    assert_ne!(guest.look_up(ROOT, "f").unwrap(), node);
    assert_eq!(guest.read(ROOT, 4711), Err(Errno::EBADF));
}

proptest! {
    #[test]
    fn no_message_breaks_the_server(
        messages in proptest::collection::vec(
            (0_u32..54, 0_u64..5, proptest::collection::vec(prop_oneof![0_u8..4, Just(b'a'), any::<u8>()], 0..120)),
            0..40
        )
    ) {
        let mut guest = Guest::new(false);
        fs::create_dir(guest.at("a")).unwrap();
        fs::write(guest.at("\u{1}"), "x").unwrap();
        for (opcode, node, body) in messages {
            let mut message = words(&[40 + body.len() as u32, opcode]);
            message.extend(longs(&[1, node]));
            message.extend(words(&[0, 0, 0, 0]));
            message.extend(body);
            guest.server.answer(&message);
        }
        prop_assert_eq!(fs::read(guest.folder.path().join("secret")).unwrap(), b"secret");
    }
}
