//! Reads an app's log while it is written: goes from file to file as they are numbered, and past what is removed.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pod::control::Stream;
use pod::log::{MAX_CONTENT_BYTES, MAX_HEAD_BYTES, decode};

/// How much is read at once: several of the longest records.
const CHUNK_BYTES: usize = 64 << 10;
/// More than any record has.
const MAX_RECORD_BYTES: usize = MAX_CONTENT_BYTES + 2 * MAX_HEAD_BYTES;

/// A record of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was written.
    pub time: SystemTime,
    /// Which output it is of.
    pub stream: Stream,
    /// Whether the line ends with it.
    pub ends_line: bool,
    /// Without the line feed.
    pub content: Vec<u8>,
    /// Where it stands.
    pub position: Position,
}

/// A place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file's number.
    file: u64,
    /// The offset of a record in it, in bytes.
    offset: u64,
}

/// A log, and how far it is read.
#[derive(Debug)]
pub struct LogReader {
    /// Found by its descriptor, for the pod may be moved meanwhile.
    directory: File,
    file: Option<File>,
    /// Of what is buffered and not taken yet.
    position: Position,
    buffer: Vec<u8>,
    /// How much of the buffer is taken.
    taken: usize,
}

impl LogReader {
    /// At the beginning of the log in `directory`.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let directory = File::open(directory)?;
        Ok(Self { directory, file: None, position: Position::default(), buffer: Vec::new(), taken: 0 })
    }

    /// Where its files are, wherever that is by now.
    pub fn directory(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd()))
    }

    /// Where the next record will be.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes to a place; if its file is gone, to the beginning of the next one.
    pub fn seek(&mut self, position: Position) -> io::Result<()> {
        self.forget();
        self.file = None;
        // As if the file before had been read.
        self.position = Position { file: position.file.saturating_sub(1), offset: 0 };
        if let Some(file) = self.open_file(position.file)? {
            (self.file, self.position) = (Some(file), position);
        }
        Ok(())
    }

    /// The next record; `None` if there is none yet.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        loop {
            if let Some(record) = self.take() {
                return Ok(Some(record));
            }
            if self.has_line() || self.fill()? {
                continue;
            }
            let Some(next) = self.next_file()? else { return Ok(None) };
            // What was written before the next file was begun.
            if self.fill()? {
                continue;
            }
            // One that was removed meanwhile is passed over.
            self.file = self.open_file(next)?;
            self.position = Position { file: next, offset: 0 };
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.taken..).unwrap_or_default()
    }

    fn has_line(&self) -> bool {
        self.rest().contains(&b'\n')
    }

    /// The next buffered line, if it is a record.
    fn take(&mut self) -> Option<Record> {
        let position = self.position;
        let rest = self.buffer.get(self.taken..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let record = decode(rest.get(..length).unwrap_or_default()).map(|record| Record {
            time: record.time,
            stream: record.stream,
            ends_line: record.ends_line,
            content: record.content.to_vec(),
            position,
        });
        self.taken += length + 1;
        self.position.offset += length as u64 + 1;
        record
    }

    /// Reads on until there is a whole line; `false` at the end of the file.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(false) };
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let mut chunk = [0; CHUNK_BYTES];
        while !self.buffer.contains(&b'\n') {
            if self.buffer.len() > MAX_RECORD_BYTES {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a record has no end"));
            }
            let count = file.read_at(&mut chunk, self.position.offset + self.buffer.len() as u64)?;
            if count == 0 {
                // The beginning of a record may be taken back, on a full disk.
                self.forget();
                return Ok(false);
            }
            self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
        Ok(true)
    }

    fn forget(&mut self) {
        self.buffer.clear();
        self.taken = 0;
    }

    /// The number of the file after the present one.
    fn next_file(&self) -> io::Result<Option<u64>> {
        let entries = fs::read_dir(self.directory()).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = match entries {
            // The pod is being removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other?,
        };
        let number = |name: &OsStr| name.to_str()?.strip_suffix(".log")?.parse::<u64>().ok();
        let numbers = entries.iter().filter_map(|entry| number(&entry.file_name()));
        Ok(numbers.filter(|number| *number > self.position.file).min())
    }

    fn open_file(&self, number: u64) -> io::Result<Option<File>> {
        match File::open(self.directory().join(format!("{number}.log"))) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    struct Log(tempfile::TempDir);

    impl Log {
        fn new() -> (Self, LogReader) {
            let log = Self(tempfile::tempdir().unwrap());
            let reader = LogReader::open(log.0.path()).unwrap();
            (log, reader)
        }

        fn write(&self, number: u64, text: &str) {
            let path = self.0.path().join(format!("{number}.log"));
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn remove(&self, number: u64) {
            fs::remove_file(self.0.path().join(format!("{number}.log"))).unwrap();
        }
    }

    fn line(text: &str) -> String {
        format!("2026-11-25T17:00:00.000000000Z stdout F {text}\n")
    }

    fn all(reader: &mut LogReader) -> Vec<String> {
        let records = std::iter::from_fn(|| reader.next().unwrap());
        records.map(|record| String::from_utf8(record.content).unwrap()).collect()
    }

    #[test]
    fn from_file_to_file() {
        let (log, mut reader) = Log::new();
        assert!(all(&mut reader).is_empty());
        log.write(9, &line("one"));
        assert_eq!(all(&mut reader), ["one"]);
        log.write(9, &line("two"));
        log.write(10, &line("three"));
        log.write(11, &line("four"));
        log.remove(9);
        assert_eq!(all(&mut reader), ["two", "three", "four"]);
        log.write(12, &line("lost"));
        log.write(13, &line("five"));
        log.remove(12);
        assert_eq!(all(&mut reader), ["five"]);
    }

    #[test]
    fn a_log_that_is_removed_has_no_more() {
        let (log, mut reader) = Log::new();
        log.write(1, &line("one"));
        fs::remove_dir_all(log.0.path()).unwrap();
        assert!(all(&mut reader).is_empty());
    }

    #[test]
    fn half_a_record_is_none() {
        let (log, mut reader) = Log::new();
        log.write(1, &(line("one") + "2026-11-25T17:00"));
        assert_eq!(all(&mut reader), ["one"]);
        log.write(1, ":00Z stdout F two\nnonsense\n");
        assert_eq!(all(&mut reader), ["two"]);
        // Taken back, as on a full disk.
        log.write(1, "2026");
        assert!(all(&mut reader).is_empty());
        let file = File::options().write(true).open(log.0.path().join("1.log")).unwrap();
        file.set_len(file.metadata().unwrap().len() - 4).unwrap();
        log.write(1, &line("three"));
        log.write(2, &line("four"));
        assert_eq!(all(&mut reader), ["three", "four"]);
        log.write(2, &"x".repeat(MAX_RECORD_BYTES + 1));
        assert!(reader.next().is_err());
    }

    #[test]
    fn back_to_a_place() {
        let (log, mut reader) = Log::new();
        log.write(1, &(line("one") + &line("two")));
        log.write(2, &line("three"));
        let records: Vec<Record> = std::iter::from_fn(|| reader.next().unwrap()).collect();
        reader.seek(records[1].position).unwrap();
        assert_eq!(all(&mut reader), ["two", "three"]);
        reader.seek(records[2].position).unwrap();
        assert_eq!(all(&mut reader), ["three"]);
        log.remove(1);
        reader.seek(records[1].position).unwrap();
        assert_eq!(all(&mut reader), ["three"], "the rest of what is gone");
        reader.seek(Position { file: 2, offset: 1000 }).unwrap();
        assert!(all(&mut reader).is_empty(), "the end");
    }
}
