//! The virtio-fs server, asked by a guest that knows FUSE and means harm. It must not leave its directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Once;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use virtiofs::Server;

use crate::fuse;

const OUTSIDE: &[u8] = b"what is outside of the directory";
/// No file may become longer: the fuzzer would fill the disk.
const FILE_BYTES: u64 = 16 << 20;

/// The names and the contents next to the directory that is served.
fn outside(folder: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry"));
    let mut seen: Vec<_> =
        entries.map(|entry| (entry.file_name(), fs::read(entry.path()).unwrap_or_default())).collect();
    seen.sort();
    seen
}

fn limit_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("signals");
        setrlimit(Resource::RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES).expect("a limit");
    });
}

/// The target.
pub fn run(data: &[u8]) {
    ask(data);
}

/// Asks a new server for all that is in the fuzzer's bytes; the numbers of the requests that were granted.
fn ask(data: &[u8]) -> BTreeSet<u32> {
    let mut done = BTreeSet::new();
    let Some((choice, messages)) = data.split_first() else { return done };
    limit_files();
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder");
    let served = folder.path().join("served");
    fs::create_dir_all(served.join("directory")).expect("a directory");
    fs::write(folder.path().join("outside"), OUTSIDE).expect("a file");
    fs::write(served.join("file"), "content").expect("a file");
    std::os::unix::fs::symlink("../outside", served.join("link")).expect("a link");
    let before = outside(folder.path());
    let root = File::open(&served).expect("the directory");
    let mut server = Server::new(root.into(), choice & 1 == 1).expect("a server");
    for (opcode, message) in fuse::messages(messages) {
        let Some(reply) = server.answer(&message) else {
            done.insert(opcode);
            continue;
        };
        let stated = reply.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
        assert_eq!(stated, Some(reply.len()), "a reply states its length");
        assert!(!reply.windows(OUTSIDE.len()).any(|part| part == OUTSIDE), "what is outside was read");
        let errno = reply.get(4..).and_then(<[u8]>::first_chunk).map(|errno| -i32::from_le_bytes(*errno));
        // Before Linux 6.6 files in memory have no attributes of users.
        let has_none = errno == Some(libc::EOPNOTSUPP) && matches!(opcode, 21 | 22 | 24);
        if errno == Some(0) || has_none {
            done.insert(opcode);
        }
    }
    assert_eq!(outside(folder.path()), before, "what is outside was changed");
    if choice & 1 == 1 {
        assert_eq!(
            fs::read(served.join("file")).expect("the file"),
            b"content",
            "what is read-only was changed"
        );
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that does not fit into a byte.
    fn whole(number: u32) -> Vec<u8> {
        [&[fuse::WHOLE][..], &number.to_le_bytes()].concat()
    }

    /// Requests that a server grants, each at least once. Its inodes are numbered as they are looked up, from 1 for the
    /// directory, its open files and directories from 0.
    fn granted() -> Vec<u8> {
        let (file, directory, link, new, other, attribute) = (0, 1, 2, 3, 4, 8);
        let read_write = libc::O_RDWR as u8;
        let set = (1 << 0 | 1 << 3 | 1 << 4 | 1 << 5) as u8; // mode, size and times
        let regular = whole(libc::S_IFREG | 0o600);
        let requests: Vec<(u32, u8, Vec<u8>)> = vec![
            (26, 0, vec![7, 38, 0, 0]),
            (17, 1, vec![]),
            (1, 1, vec![file]),      // inode 2
            (1, 1, vec![directory]), // inode 3
            (1, 1, vec![link]),      // inode 4
            (5, 4, vec![]),
            (3, 2, vec![0, 0]),
            (14, 2, vec![read_write, 0]), // file 0
            (16, 2, vec![0, 0, 0, 3, b'n', b'e', b'w']),
            (15, 2, vec![0, 0, 16]),
            (4, 2, vec![set, 0, 5, 9, 9, 1, 1, 0o600_u16 as u8, 0, 0]),
            (43, 2, vec![0, 0, 64, 0]),
            (46, 2, vec![0, 0, libc::SEEK_HOLE as u8]),
            (20, 2, vec![0, 1]),
            (21, 1, [&[0, attribute, 1][..], b"v"].concat()),
            (22, 1, vec![64, attribute]),
            (23, 1, vec![64]),
            (24, 1, vec![attribute]),
            (35, 1, [&[read_write][..], &whole(0o600), &[0, new]].concat()), // inode 5, file 1
            (47, 2, vec![0, 0, 5, 1, 0, 5]),
            (18, 2, vec![0]),
            (8, 3, [&regular[..], &[file]].concat()), // inode 6
            (9, 3, [&whole(0o700)[..], &[other]].concat()),
            (6, 3, vec![link, file]),
            (13, 3, vec![2, new]),
            (12, 1, vec![3, new, directory]),
            (45, 3, vec![1, 0, directory, new]),
            (27, 3, vec![0, 0]), // directory 0
            (28, 3, [&[0, 0][..], &whole(4096)].concat()),
            (30, 3, vec![0, 0]),
            (29, 3, vec![0]),
            (10, 3, vec![file]),
            (11, 3, vec![other]),
            (50, 1, vec![]),
            (36, 0, vec![0]),
            (2, 2, vec![1]),
            (42, 0, vec![2, 5, 1, 6, 1]),
            (38, 0, vec![]),
        ];
        let mut bytes = vec![0];
        for (opcode, node, fields) in requests {
            let index = fuse::LAYOUTS.iter().position(|(known, _)| *known == opcode).expect("a request");
            bytes.extend([index as u8, node, 0]);
            bytes.extend(fields);
        }
        bytes
    }

    /// All but the one that there is not.
    fn every_request() -> BTreeSet<u32> {
        fuse::LAYOUTS.iter().map(|(opcode, _)| *opcode).filter(|opcode| *opcode < 60).collect()
    }

    #[test]
    fn every_request_can_be_granted() {
        assert_eq!(ask(&granted()), every_request());
    }

    #[test]
    fn the_kept_inputs_have_every_request_granted() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/virtiofs");
        let inputs =
            fs::read_dir(corpus).expect("the kept inputs").map(|entry| entry.expect("an entry").path());
        let done: BTreeSet<u32> = inputs.flat_map(|input| ask(&fs::read(input).expect("an input"))).collect();
        assert_eq!(done, every_request());
    }

    /// `cargo test --no-default-features -- --ignored seed`: should the layouts have changed.
    #[test]
    #[ignore = "writes into the corpus"]
    fn seed() {
        let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/virtiofs/every-request");
        fs::write(seed, granted()).expect("the seed");
    }
}
