//! The virtio-fs server, asked by a guest that knows FUSE and means harm. It must not leave its directory.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Once;

use arbitrary::{Arbitrary, Unstructured};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use virtiofs::Server;

const OUTSIDE: &[u8] = b"what is outside of the directory";
/// No file may become longer: the fuzzer would fill the disk.
const FILE_BYTES: u64 = 16 << 20;

#[derive(Arbitrary, Debug)]
enum Field {
    /// A small number: a handle, a node, a size, an offset.
    Small(u8),
    Word(u32),
    Long(u64),
    Name(Name),
    Bytes(Vec<u8>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Name {
    File,
    Directory,
    Link,
    New,
    Other,
    Parent,
    Up,
    Absolute,
}

impl Name {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::File => b"file\0",
            Self::Directory => b"directory\0",
            Self::Link => b"link\0",
            Self::New => b"new\0",
            Self::Other => b"other\0",
            Self::Parent => b"..\0",
            Self::Up => b"../outside\0",
            Self::Absolute => b"/etc/passwd\0",
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Message {
    opcode: u8,
    node: u8,
    /// Root, or not.
    user: bool,
    /// Added to the length that the message states.
    excess: i8,
    fields: Vec<Field>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for field in &self.fields {
            match field {
                Field::Small(value) => body.extend(u64::from(*value).to_le_bytes()),
                Field::Word(value) => body.extend(value.to_le_bytes()),
                Field::Long(value) => body.extend(value.to_le_bytes()),
                Field::Name(name) => body.extend(name.bytes()),
                Field::Bytes(bytes) => body.extend(bytes),
            }
        }
        let length = (40 + body.len() as u32).wrapping_add_signed(self.excess.into());
        let user = u32::from(self.user) * 1000;
        let mut message = length.to_le_bytes().to_vec();
        message.extend(u32::from(self.opcode % 56).to_le_bytes());
        message.extend(7_u64.to_le_bytes());
        message.extend(u64::from(self.node % 8).to_le_bytes());
        [user, user, 1, 0].iter().for_each(|word| message.extend(word.to_le_bytes()));
        message.extend(body);
        message
    }
}

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
    let Some((choice, messages)) = data.split_first() else { return };
    let Ok(messages) = Vec::<Message>::arbitrary_take_rest(Unstructured::new(messages)) else { return };
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
    for message in messages {
        if let Some(reply) = server.answer(&message.bytes()) {
            let stated = reply.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
            assert_eq!(stated, Some(reply.len()), "a reply states its length");
            assert!(!reply.windows(OUTSIDE.len()).any(|part| part == OUTSIDE), "what is outside was read");
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
}
