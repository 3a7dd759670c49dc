//! The files of a log: `1.log`, `2.log`, ... The last one is written, and when it is full the next one is begun; the
//! oldest make room. None is ever renamed, so a reader that follows goes from number to number.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use ::pod::control::Stream;
use ::pod::log::{MAX_HEAD_BYTES, encode};
use ::pod::streams::LogLimits;

/// How much is written at once.
const BUFFER_BYTES: usize = 64 << 10;

/// The files of one log.
#[derive(Debug)]
pub struct Files {
    directory: PathBuf,
    limits: LogLimits,
    /// The last file, and its length.
    current: Option<(File, u64)>,
    /// Its number.
    number: u64,
    /// Records on their way to it.
    buffer: Vec<u8>,
}

impl Files {
    /// In `directory`, which is made when there is something to write.
    pub fn new(directory: PathBuf, limits: LogLimits) -> Self {
        Self { directory, limits, current: None, number: 0, buffer: Vec::new() }
    }

    /// Adds a record; an error tells that records are lost.
    pub fn record(&mut self, stamp: &str, stream: Stream, ends_line: bool, content: &[u8]) -> io::Result<()> {
        let length = self.current.as_ref().map_or(0, |(_, length)| *length) + self.buffer.len() as u64;
        let most = (content.len() + MAX_HEAD_BYTES) as u64;
        if self.current.is_none() || length + most > self.limits.max_bytes {
            self.flush()?;
            self.begin_next()?;
        } else if self.buffer.len() + content.len() + MAX_HEAD_BYTES > BUFFER_BYTES {
            self.flush()?;
        }
        encode(stamp, stream, ends_line, content, &mut self.buffer);
        Ok(())
    }

    /// Writes what is on its way; an error tells that it is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some((file, length)) = &mut self.current else { return Ok(()) };
        let (written, result) = write(file, &self.buffer);
        let whole = self.buffer.iter().take(written).rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *length += whole as u64;
        self.buffer.clear();
        if whole < written {
            // Half a record would be taken for one with what follows.
            file.set_len(*length)?;
        }
        result
    }

    /// Begins the next file. On a full disk the oldest file goes first, for there is no room for another.
    fn begin_next(&mut self) -> io::Result<()> {
        if self.number == 0 {
            fs::DirBuilder::new().recursive(true).mode(0o750).create(&self.directory)?;
        }
        // If this fails, the next record tries again.
        self.current = None;
        let next = self.number + 1;
        if let Some(oldest) = next.checked_sub(self.limits.max_files).filter(|oldest| *oldest > 0) {
            match fs::remove_file(self.path(oldest)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Appended to, so that after a cut the next record is written at the end.
        let mut options = File::options();
        let file = options.append(true).create_new(true).mode(0o640).open(self.path(next))?;
        self.current = Some((file, 0));
        self.number = next;
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.log"))
    }
}

/// Writes as much as there is room for; how much that was.
fn write(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::pod::log::{MAX_CONTENT_BYTES, decode};
    use ::pod::streams::MIN_LOG_BYTES;

    fn names(files: &Files) -> Vec<String> {
        let entries = fs::read_dir(&files.directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_oldest_make_room() {
        let home = tempfile::tempdir().unwrap();
        let limits = LogLimits { max_bytes: MIN_LOG_BYTES, max_files: 3 };
        let mut files = Files::new(home.path().join("logs/web"), limits);
        for _ in 0..100 {
            files.record("2016-01-26T14:23:34.000000007Z", Stream::Stdout, true, &[b'x'; 7000]).unwrap();
        }
        files
            .record("2016-01-26T14:23:34.000000007Z", Stream::Stdout, false, &[b'x'; MAX_CONTENT_BYTES])
            .unwrap();
        files.flush().unwrap();
        assert_eq!(names(&files), ["10.log", "11.log", "12.log"]);
        for name in names(&files) {
            let content = fs::read(files.directory.join(name)).unwrap();
            assert!(content.len() as u64 <= MIN_LOG_BYTES);
            let lines = content.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n');
            assert!(lines.into_iter().all(|line| decode(line).is_some()));
        }
    }

    #[test]
    fn what_cannot_be_written_is_lost_and_no_more() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("web");
        fs::write(&directory, "in the way").unwrap();
        let mut files = Files::new(directory.clone(), LogLimits::default());
        let mut record = |content: &[u8]| {
            let recorded = files.record("2016-01-26T14:23:34Z", Stream::Stdout, true, content);
            recorded.and(files.flush())
        };
        assert!(record(b"lost").is_err());
        fs::remove_file(&directory).unwrap();
        record(b"kept").unwrap();
        assert_eq!(fs::read(directory.join("1.log")).unwrap(), b"2016-01-26T14:23:34Z stdout F kept\n");
    }
}
