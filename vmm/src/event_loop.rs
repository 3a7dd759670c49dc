//! The one I/O thread: an epoll loop that runs the handlers of the active devices.
//!
//! Other threads talk to it through a [`LoopHandle`]: commands go through a channel, and an eventfd wakes the loop.
//! A handler only ever runs on the loop's thread, so taking it off the loop and waiting for that is enough to know
//! that nothing of the device runs any more.
//!
//! A handler that has to wait for a time tells the loop, which bounds its wait for events by it: a timer takes no descriptor and
//! no further system call.

use std::collections::BTreeMap;
use std::io;
use std::ops::Bound;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// What a handler may do to its own descriptors, and the loop's clock. Tokens are the handler's own; the loop tells handlers apart.
pub trait Registry {
    /// Watches `fd` for `events`, reported with `token`.
    fn add(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()>;
    /// Changes what `fd` is watched for.
    fn modify(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()>;
    /// Stops watching `fd`; call it before the descriptor is closed.
    fn remove(&mut self, fd: RawFd) -> io::Result<()>;
    /// The time since the loop was made.
    fn now(&self) -> Duration;
    /// Has [`EventHandler::wake`] called once, when [`Registry::now`] has reached `at`; of several times the first counts.
    fn wake_at(&mut self, at: Duration);
}

/// Why a handler cannot go on: the device is taken off the loop and marked as needing a reset; the machine runs on.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// The driver broke the queue's rules.
    #[error("the driver broke the rules of queue {queue}: {reason}")]
    Queue {
        /// The queue's index.
        queue: usize,
        /// What was wrong.
        reason: String,
    },
    /// A host descriptor failed.
    #[error("{what}")]
    Host {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// The running half of a device. It must bound its work per call: handle a limited number of buffers, then return
/// (a notify descriptor that is not drained fires again).
pub trait EventHandler: Send {
    /// Called once on the I/O thread, to watch the first descriptors.
    fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError>;
    /// Called when a descriptor that was added with `token` is ready.
    fn handle(
        &mut self,
        token: u32,
        events: EventSet,
        registry: &mut dyn Registry,
    ) -> Result<(), HandlerError>;
    /// Called at the time that was asked for with [`Registry::wake_at`]. What has asked for another one that has not come
    /// asks again.
    fn wake(&mut self, _registry: &mut dyn Registry) -> Result<(), HandlerError> {
        Ok(())
    }
}

/// What is called, on the I/O thread, when a handler fails; the handler is gone by then.
pub type OnFailure = Box<dyn FnOnce(HandlerError) + Send>;

/// Names a handler on the loop. An id is never used twice, so a late event cannot reach another handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkerId(u32);

/// The id of the loop's own wake-up descriptor.
const WAKE: WorkerId = WorkerId(0);
/// How many events are taken from the kernel at once.
const EVENTS_PER_WAIT: usize = 32;
/// How often the loop looks for events once it has been stopped.
const TURNS_AFTER_STOP: usize = 16;
const FOREVER: i32 = -1;
const NOT_AT_ALL: i32 = 0;

enum Command<E> {
    Add { handler: Box<dyn EventHandler>, on_failure: OnFailure, reply: Sender<WorkerId> },
    Remove { id: WorkerId, reply: Sender<()> },
    Stop(E),
}

/// Gives the loop its commands, from any thread but the loop's own.
pub struct LoopHandle<E> {
    commands: Sender<Command<E>>,
    wake: Arc<EventFd>,
}

impl<E> Clone for LoopHandle<E> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), wake: Arc::clone(&self.wake) }
    }
}

/// Where handlers run, to those that only start and end them.
pub trait Workers: Send {
    /// Puts `handler` on the loop and waits until it has been started. `None` if the loop has ended.
    fn add(&self, handler: Box<dyn EventHandler>, on_failure: OnFailure) -> Option<WorkerId>;
    /// Takes a handler off the loop and waits until it has been dropped.
    fn remove(&self, id: WorkerId);
}

impl<E: Send> Workers for LoopHandle<E> {
    fn add(&self, handler: Box<dyn EventHandler>, on_failure: OnFailure) -> Option<WorkerId> {
        let (reply, answer) = channel();
        self.send(Command::Add { handler, on_failure, reply })?;
        answer.recv().ok()
    }

    fn remove(&self, id: WorkerId) {
        let (reply, answer) = channel();
        if self.send(Command::Remove { id, reply }).is_some() {
            // An error means that the loop has ended, and the handler with it.
            let _done = answer.recv();
        }
    }
}

impl<E> LoopHandle<E> {
    /// Ends the loop with `outcome`; the first call counts.
    pub fn stop(&self, outcome: E) {
        let _ended_already = self.send(Command::Stop(outcome));
    }

    fn send(&self, command: Command<E>) -> Option<()> {
        self.commands.send(command).ok()?;
        self.wake.write(1).ok()
    }
}

struct Worker {
    handler: Box<dyn EventHandler>,
    on_failure: OnFailure,
    /// What it watches. The kernel forgets a closed descriptor only when its last duplicate is closed, and devices
    /// watch duplicates; so the loop has to know them to take them off.
    watched: Vec<RawFd>,
    /// When it wants to be woken.
    wake_at: Option<Duration>,
}

/// The loop itself. It runs where [`EventLoop::run`] is called, and `E` is what it is stopped with.
pub struct EventLoop<E> {
    epoll: Epoll,
    started: Instant,
    wake: Arc<EventFd>,
    commands: Receiver<Command<E>>,
    sender: Sender<Command<E>>,
    workers: BTreeMap<WorkerId, Worker>,
    last_id: WorkerId,
}

impl<E> EventLoop<E> {
    /// A loop with nothing on it.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let wake = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        epoll.ctl(ControlOperation::Add, wake.as_raw_fd(), event(EventSet::IN, WAKE, 0))?;
        let (sender, commands) = channel();
        let started = Instant::now();
        Ok(Self { epoll, started, wake, commands, sender, workers: BTreeMap::new(), last_id: WAKE })
    }

    /// A handle for other threads.
    pub fn handle(&self) -> LoopHandle<E> {
        LoopHandle { commands: self.sender.clone(), wake: Arc::clone(&self.wake) }
    }

    /// Runs handlers until [`LoopHandle::stop`]. What the guest had notified of by then is still handled, within
    /// bounds: its last words must not be lost because it reset right after them. All handlers are dropped with the loop.
    pub fn run(mut self) -> io::Result<E> {
        let outcome = loop {
            let turn = self.turn(self.patience())?;
            self.wake_workers();
            if let (_, Some(outcome)) = turn {
                break outcome;
            }
        };
        for _ in 0..TURNS_AFTER_STOP {
            if self.turn(NOT_AT_ALL)?.0 == 0 {
                break;
            }
        }
        Ok(outcome)
    }

    /// How long events may be waited for, in whole milliseconds: never shorter than until the first handler wants to be
    /// woken, which would be looking at the clock again and again.
    fn patience(&self) -> i32 {
        let Some(first) = self.workers.values().filter_map(|worker| worker.wake_at).min() else {
            return FOREVER;
        };
        let wait = first.saturating_sub(self.started.elapsed());
        i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
    }

    /// Wakes the handlers whose time has come, each at most once.
    fn wake_workers(&mut self) {
        let mut last = WAKE;
        while let Some(id) = self.due_after(last) {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.wake_at = None;
            }
            self.dispatch(id, |handler, registry| handler.wake(registry));
            last = id;
        }
    }

    /// The next handler, in the order of their ids, that is to be woken now. The clock is only looked at if one wants to be.
    fn due_after(&self, last: WorkerId) -> Option<WorkerId> {
        let later = self.workers.range((Bound::Excluded(last), Bound::Unbounded));
        let is_due = |at: Duration| at <= self.started.elapsed();
        later.filter(|(_, worker)| worker.wake_at.is_some_and(is_due)).map(|(id, _)| *id).next()
    }

    /// Waits at most `timeout_ms` for events and handles them; how many there were, and the outcome if told to stop.
    fn turn(&mut self, timeout_ms: i32) -> io::Result<(usize, Option<E>)> {
        let mut ready = [EpollEvent::default(); EVENTS_PER_WAIT];
        let count = match self.epoll.wait(timeout_ms, &mut ready) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            result => result?,
        };
        let mut outcome = None;
        for event in ready.iter().take(count) {
            let (id, token) = (WorkerId((event.data() >> 32) as u32), event.data() as u32);
            if id == WAKE {
                outcome = outcome.or(self.obey());
            } else {
                self.dispatch(id, |handler, registry| handler.handle(token, event.event_set(), registry));
            }
        }
        Ok((count, outcome))
    }

    /// Carries out the waiting commands; the outcome if one of them was to stop.
    fn obey(&mut self) -> Option<E> {
        // Drained first: a command sent from here on wakes the loop again. An empty counter is no error.
        let _nothing_to_drain = self.wake.read();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop(outcome) => return Some(outcome),
                Command::Remove { id, reply } => {
                    self.take_off(id);
                    let _nobody_waits = reply.send(());
                }
                Command::Add { handler, on_failure, reply } => {
                    if let Some(id) = self.put_on(handler, on_failure) {
                        let _nobody_waits = reply.send(id);
                    }
                }
            }
        }
        None
    }

    fn put_on(&mut self, handler: Box<dyn EventHandler>, on_failure: OnFailure) -> Option<WorkerId> {
        // Ids last for four thousand million activations; after that devices no longer start.
        let id = WorkerId(self.last_id.0.checked_add(1)?);
        self.last_id = id;
        self.workers.insert(id, Worker { handler, on_failure, watched: Vec::new(), wake_at: None });
        self.dispatch(id, |handler, registry| handler.start(registry));
        Some(id)
    }

    /// Calls a handler, and takes it off the loop if it fails. An event of a handler that is gone is ignored.
    fn dispatch<F>(&mut self, id: WorkerId, call: F)
    where
        F: FnOnce(&mut dyn EventHandler, &mut dyn Registry) -> Result<(), HandlerError>,
    {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Worker { handler, watched, wake_at, .. } = worker;
        let mut watch = Watch { epoll: &self.epoll, started: self.started, id, watched, wake_at };
        if let Err(error) = call(handler.as_mut(), &mut watch)
            && let Some(on_failure) = self.take_off(id)
        {
            on_failure(error);
        }
    }

    /// Stops watching a handler's descriptors, then drops it.
    fn take_off(&mut self, id: WorkerId) -> Option<OnFailure> {
        let worker = self.workers.remove(&id)?;
        for fd in worker.watched {
            // A handler that closed the last duplicate of a descriptor has taken it off already.
            let _gone_already = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
        Some(worker.on_failure)
    }
}

/// The registry of one handler.
struct Watch<'a> {
    epoll: &'a Epoll,
    started: Instant,
    id: WorkerId,
    watched: &'a mut Vec<RawFd>,
    wake_at: &'a mut Option<Duration>,
}

impl Registry for Watch<'_> {
    fn add(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Add, fd, event(events, self.id, token))?;
        self.watched.push(fd);
        Ok(())
    }

    fn modify(&mut self, fd: RawFd, events: EventSet, token: u32) -> io::Result<()> {
        self.epoll.ctl(ControlOperation::Modify, fd, event(events, self.id, token))
    }

    fn remove(&mut self, fd: RawFd) -> io::Result<()> {
        self.watched.retain(|watched| *watched != fd);
        self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn wake_at(&mut self, at: Duration) {
        *self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

fn event(events: EventSet, id: WorkerId, token: u32) -> EpollEvent {
    EpollEvent::new(events, u64::from(id.0) << 32 | u64::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Reports every call; fails when its descriptor holds `poison`.
    struct Probe {
        fd: EventFd,
        calls: Sender<(u32, u64)>,
    }

    const POISON: u64 = 13;

    impl EventHandler for Probe {
        fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
            registry.add(self.fd.as_raw_fd(), EventSet::IN, 7).unwrap();
            Ok(())
        }

        fn handle(
            &mut self,
            token: u32,
            _events: EventSet,
            _registry: &mut dyn Registry,
        ) -> Result<(), HandlerError> {
            let value = self.fd.read().unwrap();
            self.calls.send((token, value)).unwrap();
            if value == POISON {
                return Err(HandlerError::Queue { queue: 0, reason: "poison".into() });
            }
            Ok(())
        }
    }

    struct Running {
        handle: LoopHandle<u8>,
        thread: std::thread::JoinHandle<io::Result<u8>>,
    }

    fn start() -> Running {
        let events = EventLoop::new().unwrap();
        Running { handle: events.handle(), thread: std::thread::spawn(|| events.run()) }
    }

    fn probe() -> (EventFd, Receiver<(u32, u64)>, Box<Probe>) {
        let fd = EventFd::new(EFD_NONBLOCK).unwrap();
        let (calls, seen) = channel();
        (fd.try_clone().unwrap(), seen, Box::new(Probe { fd, calls }))
    }

    fn no_failure() -> OnFailure {
        Box::new(|error| panic!("unexpected: {error}"))
    }

    #[test]
    fn two_handlers_with_equal_tokens_get_their_own_events() {
        let Running { handle, thread } = start();
        let (first, first_seen, first_probe) = probe();
        let (second, second_seen, second_probe) = probe();
        handle.add(first_probe, no_failure()).unwrap();
        handle.add(second_probe, no_failure()).unwrap();
        first.write(1).unwrap();
        second.write(2).unwrap();
        assert_eq!(first_seen.recv_timeout(PATIENCE), Ok((7, 1)));
        assert_eq!(second_seen.recv_timeout(PATIENCE), Ok((7, 2)));
        handle.stop(42);
        assert_eq!(thread.join().unwrap().unwrap(), 42);
    }

    #[test]
    fn a_removed_handler_is_dropped_and_its_duplicate_no_longer_watched() {
        let Running { handle, thread } = start();
        let (fd, seen, removed) = probe();
        let id = handle.add(removed, no_failure()).unwrap();
        handle.remove(id);
        // The duplicate keeps the counter alive: were it still watched, the loop would spin on it.
        fd.write(1).unwrap();
        assert!(seen.recv_timeout(PATIENCE).is_err());
        assert!(matches!(seen.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)));
        handle.remove(id);
        handle.stop(0);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_failing_handler_is_taken_off_and_reported_and_the_others_go_on() {
        let Running { handle, thread } = start();
        let (bad, _bad_seen, bad_probe) = probe();
        let (good, good_seen, good_probe) = probe();
        let (failures, failed) = channel();
        handle.add(bad_probe, Box::new(move |error| failures.send(error.to_string()).unwrap())).unwrap();
        handle.add(good_probe, no_failure()).unwrap();
        bad.write(POISON).unwrap();
        let report = failed.recv_timeout(PATIENCE).unwrap();
        assert_eq!(report, "the driver broke the rules of queue 0: poison");
        good.write(5).unwrap();
        assert_eq!(good_seen.recv_timeout(PATIENCE), Ok((7, 5)));
        handle.stop(0);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn what_was_ready_before_the_stop_is_still_handled() {
        let Running { handle, thread } = start();
        let (fd, seen, last_words) = probe();
        handle.add(last_words, no_failure()).unwrap();
        fd.write(3).unwrap();
        handle.stop(0);
        thread.join().unwrap().unwrap();
        assert_eq!(seen.recv(), Ok((7, 3)));
    }

    /// Asks to be woken after some time, twice, and tells when it is.
    struct Alarm {
        after: [Duration; 2],
        wakes: Sender<Duration>,
    }

    impl EventHandler for Alarm {
        fn start(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
            let now = registry.now();
            for after in self.after {
                registry.wake_at(now + after);
            }
            Ok(())
        }

        fn handle(&mut self, _: u32, _: EventSet, _: &mut dyn Registry) -> Result<(), HandlerError> {
            panic!("it watches nothing")
        }

        fn wake(&mut self, registry: &mut dyn Registry) -> Result<(), HandlerError> {
            let _test_ended = self.wakes.send(registry.now());
            Ok(())
        }
    }

    #[test]
    fn handlers_are_woken_at_the_first_time_that_they_asked_for_and_once() {
        let Running { handle, thread } = start();
        let (wakes, woken) = channel();
        let started = Instant::now();
        let alarm = |milliseconds: [u64; 2]| {
            Box::new(Alarm { after: milliseconds.map(Duration::from_millis), wakes: wakes.clone() })
        };
        handle.add(alarm([3_600_000, 30]), no_failure()).unwrap();
        handle.add(alarm([60, 60]), no_failure()).unwrap();
        let late = handle.add(alarm([3_600_000, 3_600_000]), no_failure()).unwrap();
        let first = woken.recv_timeout(PATIENCE).unwrap();
        assert!(first >= Duration::from_millis(30));
        let second = woken.recv_timeout(PATIENCE).unwrap();
        assert!(second >= Duration::from_millis(60) && started.elapsed() >= Duration::from_millis(60));
        handle.remove(late);
        assert!(woken.recv_timeout(Duration::from_millis(50)).is_err(), "each is woken once");
        handle.stop(0);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn a_handler_that_is_taken_off_is_not_woken() {
        let Running { handle, thread } = start();
        let (wakes, woken) = channel();
        let alarm = Alarm { after: [Duration::from_millis(50); 2], wakes };
        let id = handle.add(Box::new(alarm), no_failure()).unwrap();
        handle.remove(id);
        assert_eq!(woken.recv_timeout(PATIENCE), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
        handle.stop(0);
        thread.join().unwrap().unwrap();
    }

    #[test]
    fn commands_to_an_ended_loop_do_not_wait() {
        let Running { handle, thread } = start();
        handle.stop(1);
        thread.join().unwrap().unwrap();
        let (_fd, _seen, late) = probe();
        assert_eq!(handle.add(late, no_failure()), None);
        handle.remove(WorkerId(1));
        handle.stop(2);
    }
}
