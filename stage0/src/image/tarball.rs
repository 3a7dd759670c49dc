//! Reads tar archives: ustar, GNU and PAX, as one forward pass that allocates nothing by what an archive merely claims.
//!
//! An own reader rather than the `tar` crate's, because every image is hostile and that one (0.4.46) splits PAX records
//! at newlines instead of by their length: a binary attribute breaks it, and a value can forge another record
//! (composefs/tar-rs#428, #452). It reads long names without bound or, raw, does not honour a PAX size. Here long names
//! and PAX records are bounded, damaged numbers and checksums are errors that name the entry, and a missing end is noticed.

mod error;
mod header;
mod pax;

use std::io::{self, Read};

use erofs::{Metadata, Special};
use pack::quote;

pub use error::Error;
use header::{BLOCK_BYTES, Header};

/// The most bytes that one long name or one set of PAX records may have.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;
/// How many extension headers may precede an entry; writers use at most three.
const MAX_EXTENSIONS: u32 = 16;

/// A stream that can pass over bytes, cheaply where it is a file.
pub trait Input: Read {
    /// Passes over exactly `bytes`.
    fn skip(&mut self, bytes: u64) -> io::Result<()>;
}

/// A stream that passes over bytes by reading them.
pub struct Stream<R>(pub R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Input for Stream<R> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.0.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A device or a pipe.
    Special(Special),
}

/// An archive's entry.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it stands in the archive.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner, permissions, time and the extended attributes that are kept.
    pub metadata: Metadata,
    /// Where its data begins in the archive.
    pub data_offset: u64,
}

impl Entry {
    /// The name for messages.
    pub fn display_name(&self) -> String {
        quote(&self.name)
    }
}

/// A tar archive; reading from it yields the data of the entry that [`Archive::next_entry`] last returned.
pub struct Archive<R> {
    input: R,
    /// Bytes consumed so far.
    offset: u64,
    /// Bytes left of the current entry's data.
    data_left: u64,
    /// Zeros after the current entry's data.
    padding: u64,
    /// PAX records that hold for all further entries.
    global: pax::Records,
    /// The last entry, for messages.
    last: Option<String>,
    ended: bool,
}

/// What extension headers say about the entry after them.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: pax::Records,
}

impl<R: Input> Archive<R> {
    /// An archive from its first byte.
    pub fn new(input: R) -> Self {
        Self {
            input,
            offset: 0,
            data_left: 0,
            padding: 0,
            global: pax::Records::default(),
            last: None,
            ended: false,
        }
    }

    /// The next entry; passes over what is left of the current one. `None` after the end marker, and where the input
    /// ends between two entries: whoever needs the marker asks [`Archive::has_end_marker`].
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut extensions = Extensions::default();
        for _ in 0..MAX_EXTENSIONS {
            let Some(header) = self.next_header()? else { return Ok(None) };
            match header.type_flag() {
                b'L' => extensions.long_name = Some(self.long_text(&header)?),
                b'K' => extensions.long_link = Some(self.long_text(&header)?),
                b'x' => extensions.records = pax::parse(&self.extension(&header)?)?,
                b'g' => self.global = pax::parse(&self.extension(&header)?)?,
                b'V' => self.expect_data(header.size().map_err(|what| self.damaged(what))?),
                _ => return self.entry(&header, extensions).map(Some),
            }
        }
        Err(self.damaged("more than 16 extension headers in a row"))
    }

    /// Whether the archive has ended as tar archives do, with a block of zeros.
    pub fn has_end_marker(&self) -> bool {
        self.ended
    }

    /// The error for an archive that ends without its marker.
    pub fn truncated(&self) -> Error {
        Error::Truncated { offset: self.offset, after: self.last.clone() }
    }

    /// The input, to read what is left of it.
    pub fn into_input(self) -> R {
        self.input
    }

    fn entry(&mut self, header: &Header, extensions: Extensions) -> Result<Entry, Error> {
        let Extensions { long_name, long_link, records } = extensions;
        let records = self.global.clone().overridden_by(records);
        let name = records.path().or(long_name).unwrap_or_else(|| header.name());
        let link = records.link_path().or(long_link).unwrap_or_else(|| header.link_name());
        let of_entry = |what: String| Error::Entry { entry: quote(&name), what };
        let size = match records.size().map_err(of_entry)? {
            Some(size) => size,
            None => header.size().map_err(|_| of_entry("its size is not a number".into()))?,
        };
        if records.is_sparse() {
            return Err(of_entry("it is sparse; pack the archive without --sparse".into()));
        }
        let kind = kind(header, &name, link, size).map_err(of_entry)?;
        let mut metadata = header.metadata().map_err(of_entry)?;
        records.apply(&mut metadata).map_err(of_entry)?;
        if !matches!(kind, Kind::File(_) | Kind::Directory) {
            metadata.xattrs.clear();
        }
        self.last = Some(quote(&name));
        // Links, directories and devices have no data, whatever their size field says.
        self.expect_data(if let Kind::File(size) = kind { size } else { 0 });
        Ok(Entry { name, kind, metadata, data_offset: self.offset })
    }

    fn next_header(&mut self) -> Result<Option<Header>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.skip_data()?;
        let mut block = [0; BLOCK_BYTES];
        let length = self.fill(&mut block)?;
        if length == 0 {
            return Ok(None);
        }
        if length < block.len() {
            return Err(self.truncated());
        }
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let header = Header::new(block);
        if header.checksum_matches() { Ok(Some(header)) } else { Err(self.damaged("wrong checksum")) }
    }

    /// Passes over the data of the current entry, and the zeros after it.
    fn skip_data(&mut self) -> Result<(), Error> {
        let bytes = self.data_left.saturating_add(self.padding);
        if bytes == 0 {
            return Ok(());
        }
        self.input.skip(bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => self.truncated(),
            _ => self.unreadable(source),
        })?;
        self.offset = self.offset.saturating_add(bytes);
        self.expect_data(0);
        Ok(())
    }

    fn expect_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = (BLOCK_BYTES as u64 - size % BLOCK_BYTES as u64) % BLOCK_BYTES as u64;
    }

    fn long_text(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let mut text = self.extension(header)?;
        text.truncate(text.iter().position(|byte| *byte == 0).unwrap_or(text.len()));
        Ok(text)
    }

    /// The data of an extension header.
    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, Error> {
        let size = header.size().map_err(|what| self.damaged(what))?;
        if size > MAX_EXTENSION_BYTES {
            return Err(self.damaged("a name or a set of PAX records of more than 1 MiB"));
        }
        self.expect_data(size);
        let mut data = Vec::new();
        match self.by_ref().read_to_end(&mut data) {
            Ok(length) if length as u64 == size => Ok(data),
            Ok(_) => Err(self.truncated()),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    fn fill(&mut self, block: &mut [u8]) -> Result<usize, Error> {
        let mut length = 0;
        while let Some(rest) = block.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(count) => {
                    length += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.unreadable(error)),
            }
        }
        Ok(length)
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read { offset: self.offset, after: self.last.clone(), source }
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { offset: self.offset, after: self.last.clone(), what: what.into() }
    }
}

impl<R: Input> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.data_left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.input.read(buffer.get_mut(..length).unwrap_or_default())?;
        self.data_left -= count as u64;
        self.offset += count as u64;
        Ok(count)
    }
}

fn kind(header: &Header, name: &[u8], link: Vec<u8>, size: u64) -> Result<Kind, String> {
    Ok(match header.type_flag() {
        // Archives older than POSIX mark a directory by the slash at its end only.
        0 | b'0' if name.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' => Kind::File(size),
        b'1' => Kind::HardLink(link),
        b'2' => Kind::Symlink(link),
        b'3' => {
            let (major, minor) = header.device()?;
            Kind::Special(Special::Character { major, minor })
        }
        b'4' => {
            let (major, minor) = header.device()?;
            Kind::Special(Special::Block { major, minor })
        }
        b'5' => Kind::Directory,
        b'6' => Kind::Special(Special::Fifo),
        b'S' => return Err("it is sparse; pack the archive without --sparse".into()),
        other => return Err(format!("its type {:?} is not supported", char::from(other))),
    })
}

#[cfg(test)]
mod tests;
