//! One sink and what is carried to it.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags};

use crate::ends::{Sink, nothing_yet};
use crate::lines::Lines;

/// How much is read at once: as much as a pipe holds.
const CHUNK_BYTES: usize = 64 << 10;

/// Is shown what comes from a source, as it comes; dropped when nothing more will.
pub trait Observer: std::fmt::Debug {
    /// Sees the next bytes. The source's writer waits for it.
    fn observe(&mut self, bytes: &[u8]);
}

/// Changes what comes from a source before it is carried on.
pub trait Filter: std::fmt::Debug {
    /// Takes what has come, and appends what goes on to `output`.
    fn push(&mut self, input: &[u8], output: &mut Vec<u8>);
    /// Nothing more will come: appends what was kept back.
    fn finish(&mut self, output: &mut Vec<u8>);
}

/// Where bytes come from.
#[derive(Debug)]
pub struct Source {
    fd: OwnedFd,
    filter: Option<Box<dyn Filter>>,
    observers: Vec<Box<dyn Observer>>,
}

impl Source {
    /// Bytes as they are.
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, filter: None, observers: Vec::new() }
    }

    /// Lines, each with a name before it.
    pub fn named(fd: OwnedFd, name: &str) -> Self {
        Self::new(fd).filtered(Box::new(Lines::new(name)))
    }

    /// One whose bytes are changed.
    pub fn filtered(self, filter: Box<dyn Filter>) -> Self {
        Self { filter: Some(filter), ..self }
    }

    /// One that shows its bytes to these, too.
    pub fn observed(self, observers: Vec<Box<dyn Observer>>) -> Self {
        Self { observers, ..self }
    }

    /// Reads once into `pending`; whether the source has ended.
    fn read(&mut self, pending: &mut Vec<u8>) -> nix::Result<bool> {
        let mut chunk = [0; CHUNK_BYTES];
        let count = match nix::unistd::read(&self.fd, &mut chunk) {
            Ok(0) => return Ok(true),
            // The master side of a terminal that no process has open any more.
            Err(Errno::EIO) => return Ok(true),
            other => other.or_else(nothing_yet)?,
        };
        let bytes = chunk.get(..count).unwrap_or_default();
        self.observers.iter_mut().for_each(|observer| observer.observe(bytes));
        match &mut self.filter {
            Some(filter) => filter.push(bytes, pending),
            None => pending.extend_from_slice(bytes),
        }
        Ok(false)
    }

    fn finish(&mut self, pending: &mut Vec<u8>) {
        if let Some(filter) = &mut self.filter {
            filter.finish(pending);
        }
    }
}

/// Carries bytes from sources to one sink. Several sources share a sink, rather than having a carrier each, so that no
/// line of one is torn by another's.
///
/// In every round of its loop the owner calls [`Carrier::interests`], polls, and hands [`Carrier::advance`] the answers
/// in the same order.
#[derive(Debug)]
pub struct Carrier {
    sources: Vec<Source>,
    sink: Option<Sink>,
    pending: Vec<u8>,
    written: usize,
    /// Whether the sink stays without sources.
    lasting: bool,
}

impl Carrier {
    /// Carries from `sources` to `sink`; ends when all sources have.
    pub fn new(sources: Vec<Source>, sink: Sink) -> Self {
        Self { sources, sink: Some(sink), pending: Vec::new(), written: 0, lasting: false }
    }

    /// Carries to `sink` from sources that come and go; ends when nobody takes it any more.
    pub fn lasting(sink: Sink) -> Self {
        Self { lasting: true, ..Self::new(Vec::new(), sink) }
    }

    /// How many sources there are.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// One source that came later.
    pub fn add(&mut self, source: Source) {
        if self.sink.is_some() {
            self.sources.push(source);
        }
    }

    /// Whether everything is delivered, or nobody takes it any more.
    pub fn is_done(&self) -> bool {
        self.sink.is_none()
    }

    /// Adds what to wait for.
    pub fn interests<'a>(&'a self, set: &mut Vec<PollFd<'a>>) {
        let Some(sink) = &self.sink else { return };
        let idle = self.pending.is_empty();
        // Asked for nothing, poll still tells when the reader has gone.
        set.push(PollFd::new(sink.fd(), if idle { PollFlags::empty() } else { PollFlags::POLLOUT }));
        if idle {
            set.extend(self.sources.iter().map(|source| PollFd::new(source.fd.as_fd(), PollFlags::POLLIN)));
        }
    }

    /// Does what `answers` allow; takes as many as [`Carrier::interests`] added.
    pub fn advance(&mut self, answers: &mut impl Iterator<Item = PollFlags>) {
        if self.sink.is_none() {
            return;
        }
        let sink_ready = answers.next().unwrap_or(PollFlags::empty());
        let reader_gone =
            sink_ready.intersects(PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL);
        let idle = self.pending.is_empty();
        let sources = if idle { self.sources.len() } else { 0 };
        let ready: Vec<bool> = answers.take(sources).map(|answer| !answer.is_empty()).collect();
        if sink_ready.contains(PollFlags::POLLOUT) {
            self.write();
        } else if reader_gone {
            self.abandon();
        } else if idle {
            self.read(&ready);
            // Most often the sink has room: trying saves a round. One that might block is asked first.
            if self.pending.is_empty() || self.sink.as_ref().is_some_and(Sink::never_blocks) {
                self.write();
            }
        }
    }

    fn read(&mut self, ready: &[bool]) {
        let mut ready = ready.iter();
        let pending = &mut self.pending;
        self.sources.retain_mut(|source| {
            if !ready.next().is_some_and(|ready| *ready) {
                return true;
            }
            // A source that cannot be read has ended.
            let ended = source.read(pending).unwrap_or(true);
            if ended {
                source.finish(pending);
            }
            !ended
        });
    }

    fn write(&mut self) {
        let Some(sink) = &self.sink else { return };
        let rest = self.pending.get(self.written..).unwrap_or_default();
        if !rest.is_empty() {
            match sink.write(rest) {
                Ok(count) => self.written += count,
                Err(_) => return self.abandon(),
            }
        }
        if self.written >= self.pending.len() {
            self.pending.clear();
            self.written = 0;
            if self.sources.is_empty()
                && !self.lasting
                && let Some(sink) = self.sink.take()
            {
                sink.finish();
            }
        }
    }

    /// Nobody reads any more: closes the sources, so that their writers learn of it.
    fn abandon(&mut self) {
        self.sources.clear();
        self.pending = Vec::new();
        self.sink = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use nix::poll::{PollTimeout, poll};
    use nix::unistd::pipe;

    use crate::SinkEnd;

    /// Drives a carrier as its owners do, until `done`; fails when nothing happens for long.
    fn drive(carrier: &mut Carrier, mut done: impl FnMut(&Carrier) -> bool) {
        while !done(carrier) {
            let mut set = Vec::new();
            carrier.interests(&mut set);
            assert!(poll(&mut set, PollTimeout::from(10_000u16)).unwrap() > 0, "nothing happens");
            let answers: Vec<_> = set.iter().map(|fd| fd.revents().unwrap()).collect();
            carrier.advance(&mut answers.into_iter());
        }
    }

    fn between(source: impl Into<OwnedFd>, sink: impl Into<OwnedFd>, end: SinkEnd) -> Carrier {
        Carrier::new(vec![Source::new(source.into())], Sink::new(sink.into(), end).unwrap())
    }

    #[test]
    fn every_byte_arrives_though_the_reader_is_slow() {
        let (read, write) = pipe().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        let sent: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let writer = std::thread::spawn(move || std::fs::File::from(write).write_all(&sent).unwrap());
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let mut piece = [0; 777];
            while let count @ 1.. = far.read(&mut piece).unwrap() {
                all.extend_from_slice(&piece[..count]);
            }
            all
        });
        drive(&mut between(read, near, SinkEnd::Close), Carrier::is_done);
        writer.join().unwrap();
        assert!(reader.join().unwrap() == expected);
    }

    #[test]
    fn a_slow_reader_slows_the_writer_down() {
        let (read, write) = pipe().unwrap();
        let (_far, near) = UnixStream::pair().unwrap();
        let writer = std::fs::File::from(write);
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        let mut carrier = between(read, near, SinkEnd::Close);
        let mut stuck = 0;
        while stuck < 10 {
            stuck += u32::from((&writer).write(&[0; 4096]).is_err());
            let mut set = Vec::new();
            carrier.interests(&mut set);
            poll(&mut set, PollTimeout::ZERO).unwrap();
            let answers: Vec<_> = set.iter().map(|fd| fd.revents().unwrap()).collect();
            carrier.advance(&mut answers.into_iter());
        }
        assert!(carrier.pending.len() <= CHUNK_BYTES, "{}", carrier.pending.len());
    }

    #[test]
    fn a_writer_learns_that_nobody_reads() {
        let (read, write) = pipe().unwrap();
        let (far, near) = UnixStream::pair().unwrap();
        drop(far);
        drive(&mut between(read, near, SinkEnd::Close), Carrier::is_done);
        assert!(std::fs::File::from(write).write(b"x").is_err(), "without a byte having been needed");
    }

    #[derive(Debug)]
    struct Seen(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

    impl Observer for Seen {
        fn observe(&mut self, bytes: &[u8]) {
            self.0.borrow_mut().extend_from_slice(bytes);
        }
    }

    #[test]
    fn what_is_carried_is_shown_as_it_came() {
        let ((read, write), (far, to)) = (pipe().unwrap(), pipe().unwrap());
        let seen = std::rc::Rc::default();
        let source = Source::named(read, "a").observed(vec![Box::new(Seen(std::rc::Rc::clone(&seen)))]);
        let mut carrier = Carrier::new(vec![source], Sink::new(to, SinkEnd::Close).unwrap());
        std::fs::File::from(write).write_all(b"one\ntwo").unwrap();
        drive(&mut carrier, Carrier::is_done);
        let mut all = String::new();
        std::fs::File::from(far).read_to_string(&mut all).unwrap();
        assert_eq!((all.as_str(), seen.borrow().as_slice()), ("a: one\na: two\n", &b"one\ntwo"[..]));
        assert_eq!(std::rc::Rc::strong_count(&seen), 1, "nothing more will come");
    }

    #[test]
    fn a_lasting_sink_outlives_its_sources() {
        let (far, to) = pipe().unwrap();
        let mut carrier = Carrier::lasting(Sink::new(to, SinkEnd::Close).unwrap());
        let mut far = std::fs::File::from(far);
        for word in [&b"one"[..], b"two"] {
            let (read, write) = pipe().unwrap();
            std::fs::File::from(write).write_all(word).unwrap();
            carrier.add(Source::new(read));
            drive(&mut carrier, |carrier| carrier.sources.is_empty());
            let mut bytes = [0; 3];
            far.read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, word);
        }
        drop(far);
        drive(&mut carrier, Carrier::is_done);
    }

    #[test]
    fn the_end_of_one_direction_leaves_the_other() {
        let (read, write) = pipe().unwrap();
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut other_direction = near.try_clone().unwrap();
        std::fs::File::from(write).write_all(b"last").unwrap();
        drive(&mut between(read, near, SinkEnd::HalfClose), Carrier::is_done);
        let mut all = String::new();
        far.read_to_string(&mut all).unwrap();
        assert_eq!(all, "last");
        far.write_all(b"still").unwrap();
        other_direction.read_exact(&mut [0; 5]).unwrap();
    }

    #[test]
    fn named_lines_of_two_sources_are_not_torn() {
        let ((one, to_one), (two, to_two)) = (pipe().unwrap(), pipe().unwrap());
        let (mut far, near) = UnixStream::pair().unwrap();
        let sources = vec![Source::named(one, "one"), Source::named(two, "two")];
        let mut carrier = Carrier::new(sources, Sink::new(near.into(), SinkEnd::Close).unwrap());
        let writers = [to_one, to_two].map(|write| {
            std::thread::spawn(move || {
                let mut file = std::fs::File::from(write);
                (0..20_000).for_each(|_| file.write_all(b"0123456789\n").unwrap());
            })
        });
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            far.read_to_string(&mut all).unwrap();
            all
        });
        drive(&mut carrier, Carrier::is_done);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let all = reader.join().unwrap();
        let count = |line| all.lines().filter(|found| *found == line).count();
        assert_eq!(
            (count("one: 0123456789"), count("two: 0123456789"), all.lines().count()),
            (20_000, 20_000, 40_000)
        );
    }
}
