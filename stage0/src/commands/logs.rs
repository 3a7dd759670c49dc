//! `rkt logs`: what apps have written, as they have written it.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::fs::File;
use std::io::{self, BufWriter, PipeReader, Stderr, Stdout, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::SystemTime;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use pod::abi::PodDirectory;
use pod::control::Stream;
use pod::streams::StreamModes;
use pod::types::AcName;

use super::Outcome;
use crate::cli::{Globals, LogsFlags, PodChoice};
use crate::log_reader::{LogReader, Record};
use crate::pods::{self, Pod, Pods};

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the pod has no app \"{0}\"; it has {1}")]
    NoApp(AcName, String),
    #[error(
        "there is no log of {0}: the output went where that of rkt run did; to have a log, run apps with --stdout=log \
        --stderr=log (with --stdout=inherit,log for both)"
    )]
    NoLog(String),
}

/// Prints the logs of a pod's apps.
pub fn logs(globals: &Globals, choice: &PodChoice, flags: &LogsFlags) -> Outcome {
    let pods = Pods::new(&globals.directory);
    let Wanted { apps, mut logs, follower } =
        pods.follow(pods.choose(choice)?, |pod| Wanted::open(pod, flags))?;
    if let Some(count) = flags.tail {
        logs.skip_to_last(count)?;
    }
    let mut printer = Printer::new(&apps);
    loop {
        let goes_on = match &follower {
            Some(follower) => !follower.has_ended()?,
            None => false,
        };
        while let Some((app, record)) = logs.next()? {
            printer.print(app, &record)?;
        }
        if !goes_on {
            break;
        }
        printer.flush()?;
        if let Some(follower) = &follower
            && !follower.wait()?
        {
            return Ok(ExitCode::SUCCESS);
        }
    }
    printer.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// What is to be printed, by open files: wherever the pod is by then.
struct Wanted {
    apps: Vec<AcName>,
    /// Theirs.
    logs: Merged,
    /// If there may be more.
    follower: Option<Follower>,
}

impl Wanted {
    fn open(pod: &Pod, flags: &LogsFlags) -> Result<Self, Box<dyn Error>> {
        let apps = logged_apps(pod, flags)?;
        let directory = PodDirectory::new(&pod.path);
        let open = |app: &AcName| {
            let path = directory.log(app);
            let reader = LogReader::open(&path).map_err(pods::Error::io("open", &path))?;
            Ok(Log { reader, next: None })
        };
        let logs = Merged {
            logs: apps.iter().map(open).collect::<Result<_, pods::Error>>()?,
            since: flags.since.unwrap_or(SystemTime::UNIX_EPOCH),
        };
        let follower = flags.follow.then(|| Follower::new(pod, &logs)).transpose();
        let follower = follower.map_err(pods::Error::io("follow the logs in", &pod.path))?;
        Ok(Self { apps, logs, follower })
    }
}

/// The apps that have logs and are wanted.
fn logged_apps(pod: &Pod, flags: &LogsFlags) -> Result<Vec<AcName>, Box<dyn Error>> {
    let manifest = pod.manifest()?;
    let mut logged = Vec::new();
    for app in manifest.apps.iter().filter(|app| flags.app.as_ref().is_none_or(|wanted| app.name == *wanted))
    {
        if StreamModes::of(app, true, false)?.has_log() {
            logged.push(app.name.clone());
        }
    }
    match &flags.app {
        Some(app) if !manifest.apps.iter().any(|other| other.name == *app) => {
            let names = manifest.apps.iter().map(|app| app.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(Refused::NoApp(app.clone(), names).into())
        }
        Some(app) if logged.is_empty() => Err(Refused::NoLog(format!("app \"{app}\"")).into()),
        None if logged.is_empty() => Err(Refused::NoLog(format!("pod \"{}\"", pod.uuid)).into()),
        _ => Ok(logged),
    }
}

struct Log {
    reader: LogReader,
    next: Option<Record>,
}

/// Several logs, by time.
struct Merged {
    logs: Vec<Log>,
    since: SystemTime,
}

impl Merged {
    /// The next record, and the index of its log.
    fn next(&mut self) -> io::Result<Option<(usize, Record)>> {
        for log in &mut self.logs {
            while log.next.as_ref().is_none_or(|record| record.time < self.since) {
                log.next = log.reader.next()?;
                if log.next.is_none() {
                    break;
                }
            }
        }
        let times =
            self.logs.iter().enumerate().filter_map(|(index, log)| Some((log.next.as_ref()?.time, index)));
        let Some((_, index)) = times.min() else { return Ok(None) };
        Ok(self.logs.get_mut(index).and_then(|log| Some((index, log.next.take()?))))
    }

    /// Goes to where the last `count` lines begin. Of a line that began before them, and goes on among them, that part is
    /// shown, too.
    fn skip_to_last(&mut self, count: usize) -> io::Result<()> {
        let (mut begins, mut unfinished) = (VecDeque::new(), HashSet::new());
        while let Some((log, record)) = self.next()? {
            let stream = (log, record.stream);
            if !unfinished.remove(&stream) {
                begins.push_back((log, record.position));
            }
            if !record.ends_line {
                unfinished.insert(stream);
            }
            if begins.len() > count {
                begins.pop_front();
            }
        }
        for (index, log) in self.logs.iter_mut().enumerate() {
            let first = begins.iter().find(|(log, _)| *log == index);
            let end = log.reader.position();
            log.reader.seek(first.map_or(end, |(_, position)| *position))?;
        }
        Ok(())
    }
}

/// Waits for more, until the pod has ended.
struct Follower {
    inotify: Inotify,
    /// At its end once nobody holds the pod's lock any more, by which it lives.
    ended: PipeReader,
}

impl Follower {
    fn new(pod: &Pod, logs: &Merged) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        for log in &logs.logs {
            inotify
                .add_watch(&log.reader.directory(), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE)?;
        }
        let (ended, end) = io::pipe()?;
        let lock = File::open(&pod.path)?;
        std::thread::spawn(move || {
            // Whatever becomes of it: there is nothing more to wait for. The lock is let go of at once.
            let _ = lock.lock_shared();
            drop((lock, end));
        });
        Ok(Self { inotify, ended })
    }

    /// Whether all is written that will be.
    fn has_ended(&self) -> io::Result<bool> {
        let mut set = [PollFd::new(self.ended.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut set, PollTimeout::ZERO)? > 0)
    }

    /// Waits until there may be more, or there will be none; `false` if nobody reads what is printed.
    fn wait(&self) -> io::Result<bool> {
        let (stdout, nothing) = (io::stdout(), PollFlags::empty());
        let mut set = [
            PollFd::new(stdout.as_fd(), nothing),
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut set, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [reader, ..] = set.map(|fd| fd.revents().unwrap_or(nothing));
        // Only that something has happened is of interest.
        let _ = self.inotify.read_events();
        Ok(!reader.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
    }
}

/// Prints records to the streams that they are of. Among several apps, each line says whose it is.
struct Printer<'a> {
    apps: &'a [AcName],
    stdout: Output<Stdout>,
    stderr: Output<Stderr>,
}

struct Output<W: Write> {
    writer: BufWriter<W>,
    /// The app whose line has begun and not ended.
    begun: Option<usize>,
}

impl<'a> Printer<'a> {
    fn new(apps: &'a [AcName]) -> Self {
        Self { apps, stdout: Output::new(io::stdout()), stderr: Output::new(io::stderr()) }
    }

    fn print(&mut self, app: usize, record: &Record) -> io::Result<()> {
        let name = self.apps.get(app).filter(|_| self.apps.len() > 1);
        // Both may be the same terminal.
        match record.stream {
            Stream::Stderr => {
                self.stdout.writer.flush()?;
                self.stderr.print(app, name, record)
            }
            Stream::Stdin | Stream::Stdout => {
                self.stderr.writer.flush()?;
                self.stdout.print(app, name, record)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.writer.flush()?;
        self.stderr.writer.flush()
    }

    /// Among several apps a line that did not end is ended; that of a single one is left as it is.
    fn finish(&mut self) -> io::Result<()> {
        if self.apps.len() > 1 {
            self.stdout.end_line()?;
            self.stderr.end_line()?;
        }
        self.flush()
    }
}

impl<W: Write> Output<W> {
    fn new(to: W) -> Self {
        Self { writer: BufWriter::new(to), begun: None }
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.begun.take().is_some() { self.writer.write_all(b"\n") } else { Ok(()) }
    }

    fn print(&mut self, app: usize, name: Option<&AcName>, record: &Record) -> io::Result<()> {
        if self.begun != Some(app) {
            self.end_line()?;
            if let Some(name) = name {
                write!(self.writer, "{name}: ")?;
            }
        }
        self.writer.write_all(&record.content)?;
        self.begun = Some(app);
        if record.ends_line { self.end_line() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_reader::Position;

    fn log(directory: &std::path::Path, name: &str, lines: &[&str]) -> Log {
        let directory = directory.join(name);
        std::fs::create_dir(&directory).unwrap();
        let text: String = lines.iter().map(|line| format!("2026-11-25T17:00:{line}\n")).collect();
        std::fs::write(directory.join("1.log"), text).unwrap();
        Log { reader: LogReader::open(&directory).unwrap(), next: None }
    }

    fn merged(directory: &std::path::Path) -> Merged {
        let one = ["00Z stdout F a", "02Z stdout P b", "02Z stderr F e", "04Z stdout F c"];
        let logs =
            vec![log(directory, "one", &one), log(directory, "two", &["01Z stdout F x", "03Z stdout P y"])];
        Merged { logs, since: SystemTime::UNIX_EPOCH }
    }

    fn contents(merged: &mut Merged) -> String {
        let mut all = Vec::new();
        while let Some((_, record)) = merged.next().unwrap() {
            all.extend(record.content);
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn by_time() {
        let home = tempfile::tempdir().unwrap();
        let mut merged = merged(home.path());
        assert_eq!(contents(&mut merged), "axbeyc");
        merged.logs.iter_mut().for_each(|log| log.reader.seek(Position::default()).unwrap());
        merged.since = pod::log::parse_time("2026-11-25 17:00:03").unwrap();
        assert_eq!(contents(&mut merged), "yc");
    }

    #[test]
    fn the_last_lines() {
        for (count, wanted) in [(0, ""), (1, "y"), (2, "eyc"), (3, "beyc"), (4, "xbeyc"), (9, "axbeyc")] {
            let home = tempfile::tempdir().unwrap();
            let mut merged = merged(home.path());
            merged.skip_to_last(count).unwrap();
            assert_eq!(contents(&mut merged), wanted, "{count}");
        }
    }

    #[test]
    fn lines_of_several_apps_are_not_mixed() {
        let mut output = Output::new(Vec::new());
        let apps: [AcName; 2] = ["one".parse().unwrap(), "two".parse().unwrap()];
        for (app, ends_line, content) in
            [(0, false, "a"), (0, true, "b"), (0, false, "c"), (1, true, "x"), (0, true, "d")]
        {
            let record = Record {
                time: SystemTime::UNIX_EPOCH,
                stream: Stream::Stdout,
                ends_line,
                content: content.into(),
                position: Position::default(),
            };
            output.print(app, Some(&apps[app]), &record).unwrap();
        }
        assert_eq!(output.writer.into_inner().unwrap(), b"one: ab\none: c\ntwo: x\none: d\n");
    }
}
