//! FUSE requests out of a fuzzer's bytes: the layouts are those of Linux (include/uapi/linux/fuse.h), what stands in them is
//! anything. So every request is one byte away, and the bytes behind it are its fields in their order.

/// One field of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 32 bits.
    Word,
    /// 64 bits.
    Long,
    /// The 32 bits that say how long the [`Part::Data`] are.
    Length,
    /// Zeros.
    Zeros(u8),
    /// A name, with its zero.
    Name,
    /// Bytes.
    Data,
}

use Part::{Data, Length, Long, Name, Word, Zeros};

/// What is valid, the handle, the size, the times in seconds and nanoseconds, the mode, the owner and the group.
#[rustfmt::skip]
const SETATTR: [Part; 15] = [
    Word, Zeros(4), Long, Long, Zeros(8), Long, Long, Zeros(8), Word, Word, Zeros(4), Word, Zeros(4), Word, Word,
];

/// The requests by their numbers, and one that there is not.
pub const LAYOUTS: &[(u32, &[Part])] = &[
    (1, &[Name]),                                          // LOOKUP
    (2, &[Long]),                                          // FORGET
    (3, &[Word, Zeros(4), Long]),                          // GETATTR
    (4, &SETATTR),                                         // SETATTR
    (5, &[]),                                              // READLINK
    (6, &[Name, Name]),                                    // SYMLINK
    (8, &[Word, Zeros(12), Name]),                         // MKNOD
    (9, &[Word, Zeros(4), Name]),                          // MKDIR
    (10, &[Name]),                                         // UNLINK
    (11, &[Name]),                                         // RMDIR
    (12, &[Long, Name, Name]),                             // RENAME
    (13, &[Long, Name]),                                   // LINK
    (14, &[Word, Word]),                                   // OPEN
    (15, &[Long, Long, Word, Zeros(20)]),                  // READ
    (16, &[Long, Long, Length, Word, Zeros(16), Data]),    // WRITE
    (17, &[]),                                             // STATFS
    (18, &[Long, Zeros(16)]),                              // RELEASE
    (20, &[Long, Word, Zeros(4)]),                         // FSYNC
    (21, &[Length, Word, Name, Data]),                     // SETXATTR
    (22, &[Word, Zeros(4), Name]),                         // GETXATTR
    (23, &[Word, Zeros(4)]),                               // LISTXATTR
    (24, &[Name]),                                         // REMOVEXATTR
    (26, &[Word, Word, Word, Word]),                       // INIT
    (27, &[Word, Word]),                                   // OPENDIR
    (28, &[Long, Long, Word, Zeros(20)]),                  // READDIR
    (29, &[Long, Zeros(16)]),                              // RELEASEDIR
    (30, &[Long, Word, Zeros(4)]),                         // FSYNCDIR
    (35, &[Word, Word, Zeros(4), Word, Name]),             // CREATE
    (36, &[Long]),                                         // INTERRUPT
    (38, &[]),                                             // DESTROY
    (42, &[Word, Zeros(4), Long, Long, Long, Long]),       // BATCH_FORGET
    (43, &[Long, Long, Long, Word, Zeros(4)]),             // FALLOCATE
    (45, &[Long, Word, Zeros(4), Name, Name]),             // RENAME2
    (46, &[Long, Long, Word, Zeros(4)]),                   // LSEEK
    (47, &[Long, Long, Long, Long, Long, Long, Zeros(8)]), // COPY_FILE_RANGE
    (50, &[Zeros(8)]),                                     // SYNCFS
    (63, &[Data]),
];

/// What names there are: those of the directory, new ones, those that lead out of it, and those of attributes.
const NAMES: &[&[u8]] = &[
    b"file\0",
    b"directory\0",
    b"link\0",
    b"new\0",
    b"other\0",
    b"..\0",
    b"../outside\0",
    b"/etc/passwd\0",
    b"user.a\0",
    b"security.capability\0",
];

/// From here on a number's first byte says that all of it follows; below, it is the number.
pub const WHOLE: u8 = 0xf0;
/// Flags of a message: from whom it is, and whether it is damaged.
const BY_USER: u8 = 1;
const DAMAGED: u8 = 2;

/// What is left of the fuzzer's bytes; zeros follow them.
struct Source<'a>(&'a [u8]);

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(self.0.len().min(N));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }

    fn number(&mut self, bytes: usize) -> u64 {
        match self.byte() {
            WHOLE.. if bytes == 4 => u32::from_le_bytes(self.array()).into(),
            WHOLE.. => u64::from_le_bytes(self.array()),
            small => small.into(),
        }
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[usize::from(self.byte()) % NAMES.len()]
    }

    fn data(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (data, rest) = self.0.split_at(length);
        self.0 = rest;
        data.to_vec()
    }
}

/// The messages that are in a fuzzer's bytes, each with its request's number.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let mut source = Source(bytes);
    std::iter::from_fn(move || (!source.0.is_empty()).then(|| message(&mut source)))
}

fn message(source: &mut Source) -> (u32, Vec<u8>) {
    let (opcode, parts) = LAYOUTS[usize::from(source.byte()) % LAYOUTS.len()];
    let [node, flags] = source.array();
    let mut body = Vec::new();
    let mut length = None;
    for part in parts {
        match part {
            Word => body.extend((source.number(4) as u32).to_le_bytes()),
            Long => body.extend(source.number(8).to_le_bytes()),
            Zeros(count) => body.resize(body.len() + usize::from(*count), 0),
            Name => body.extend(source.name()),
            Length => {
                length = Some(body.len());
                body.extend([0; 4]);
            }
            Data => {
                let data = source.data();
                if let Some(at) = length {
                    body[at..at + 4].copy_from_slice(&(data.len() as u32).to_le_bytes());
                }
                body.extend(data);
            }
        }
    }
    let user = u32::from(flags & BY_USER) * 1000;
    let mut stated = 40 + body.len() as u32;
    if flags & DAMAGED != 0 {
        damage(&mut body, &mut stated, source);
    }
    let mut message = stated.to_le_bytes().to_vec();
    message.extend(opcode.to_le_bytes());
    message.extend(7_u64.to_le_bytes());
    message.extend(u64::from(node % 16).to_le_bytes());
    [user, user, 1, 0].iter().for_each(|word| message.extend(word.to_le_bytes()));
    message.extend(body);
    (opcode, message)
}

/// Cuts the body, changes one byte of it, and has the message state a length that need not be its own.
fn damage(body: &mut Vec<u8>, stated: &mut u32, source: &mut Source) {
    let [cut, at, byte, excess] = source.array();
    body.truncate(body.len() - usize::from(cut).min(body.len()));
    if let Some(damaged) = body.get_mut(usize::from(at)) {
        *damaged = byte;
    }
    *stated = (40 + body.len() as u32).wrapping_add_signed(excess.cast_signed().into());
}
