//! Apps' logs: what passes through the pod's parent is written to files in the pod's directory (`pod::log`), and to
//! journald where there is one. Nothing is synced, and what cannot be written is lost: no log stops an app.

mod files;
mod journal;
mod parts;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::SystemTime;

use ::pod::abi::PodDirectory;
use ::pod::control::Stream;
use ::pod::log::stamp;
use ::pod::streams::LogLimits;
use ::pod::types::AcName;
use relay::Observer;
use uuid::Uuid;

use self::files::Files;
use self::journal::{Journal, SOCKET};
use self::parts::Parts;
use crate::Error;
use crate::error::report;

/// The log of one app.
#[derive(Debug)]
pub struct AppLog {
    app: AcName,
    files: Files,
    journal: Option<Journal>,
    /// What has been said to be lost: records of the files, and of the journal.
    said: [bool; 2],
}

/// What shows one of the app's streams to its log.
#[derive(Debug)]
pub struct LoggedStream {
    log: Rc<RefCell<AppLog>>,
    stream: Stream,
    parts: Parts,
}

impl AppLog {
    /// The log of `app`, of which nothing is made before there is something to write.
    pub fn new(directory: &PodDirectory, pod: Uuid, app: &AcName, limits: LogLimits) -> Self {
        Self {
            app: app.clone(),
            files: Files::new(directory.log(app), limits),
            journal: Journal::find(Path::new(SOCKET), pod, app),
            said: [false; 2],
        }
    }

    fn record(&mut self, stamp: &str, stream: Stream, ends_line: bool, content: &[u8]) {
        if let Err(error) = self.files.record(stamp, stream, ends_line, content) {
            self.complain(0, "in its files", error);
        }
        let sent = self.journal.as_mut().map(|journal| journal.send(stream, ends_line, content));
        if let Some(Err(error)) = sent {
            self.complain(1, "in the journal", error);
        }
    }

    fn flush(&mut self) {
        if let Err(error) = self.files.flush() {
            self.complain(0, "in its files", error);
        }
    }

    /// Says once that records are lost.
    fn complain(&mut self, which: usize, place: &'static str, source: io::Error) {
        if let Some(said) = self.said.get_mut(which)
            && !std::mem::replace(said, true)
        {
            report(&Error::Log { app: self.app.clone(), place, source });
        }
    }
}

impl LoggedStream {
    /// Of a stream of the app whose log it is.
    pub fn new(log: Rc<RefCell<AppLog>>, stream: Stream) -> Self {
        Self { log, stream, parts: Parts::default() }
    }
}

impl Observer for LoggedStream {
    fn observe(&mut self, bytes: &[u8]) {
        let mut log = self.log.borrow_mut();
        let (now, stream) = (stamp(SystemTime::now()), self.stream);
        self.parts.push(bytes, &mut |content, ends_line| log.record(&now, stream, ends_line, content));
        log.flush();
    }
}

impl Drop for LoggedStream {
    /// The rest of a line that never ended.
    fn drop(&mut self) {
        let mut log = self.log.borrow_mut();
        let (now, stream) = (stamp(SystemTime::now()), self.stream);
        self.parts.finish(&mut |content, ends_line| log.record(&now, stream, ends_line, content));
        log.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::pod::log::{MAX_CONTENT_BYTES, decode};

    /// What of a log's records is of `stream`, put together again, and how many there are.
    fn read(directory: &PodDirectory, app: &AcName, wanted: Stream) -> (Vec<u8>, usize) {
        let mut names: Vec<u64> = std::fs::read_dir(directory.log(app))
            .unwrap()
            .map(|entry| {
                entry.unwrap().file_name().to_str().unwrap().strip_suffix(".log").unwrap().parse().unwrap()
            })
            .collect();
        names.sort_unstable();
        let (mut all, mut count) = (Vec::new(), 0);
        for name in names {
            let bytes = std::fs::read(directory.log(app).join(format!("{name}.log"))).unwrap();
            for line in bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n') {
                let record = decode(line).unwrap();
                assert!(record.content.len() <= MAX_CONTENT_BYTES);
                if record.stream == wanted {
                    all.extend_from_slice(record.content);
                    all.extend(record.ends_line.then_some(b'\n'));
                    count += 1;
                }
            }
        }
        (all, count)
    }

    #[test]
    fn every_byte_is_logged_whatever_it_is() {
        let home = tempfile::tempdir().unwrap();
        let (directory, app) = (PodDirectory::new(home.path()), "web".parse().unwrap());
        let log =
            AppLog::new(&directory, Uuid::nil(), &app, LogLimits { max_bytes: 100_000, max_files: 1000 });
        let log = Rc::new(RefCell::new(log));
        let mut streams =
            [Stream::Stdout, Stream::Stderr].map(|stream| LoggedStream::new(Rc::clone(&log), stream));
        let mut state = 1u32;
        let out: Vec<u8> = (0..1_000_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Long stretches without a line feed.
                if state >> 16 == 7 { b'\n' } else { (state >> 24) as u8 }
            })
            .collect();
        let forged = b"2016-01-26T14:23:34.000000007Z stdout F forged\n\nno end";
        for (number, chunk) in out.chunks(7_777).enumerate() {
            streams[0].observe(chunk);
            if number == 5 {
                streams[1].observe(forged);
            }
        }
        drop(streams);
        assert!(read(&directory, &app, Stream::Stdout).0 == out);
        assert_eq!(read(&directory, &app, Stream::Stderr), (forged.to_vec(), 3));
    }
}
