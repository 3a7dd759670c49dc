//! Where the apps' output goes besides the caller's streams: to logs, and to whoever is attached.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use ::pod::control::Stream;
use relay::{Listener, Observer, Standing};

use super::caller::StreamedApp;
use crate::logs::{AppLog, LoggedStream};
use crate::pod::Pod;

/// The logs, and the audiences of the streams that can be attached to.
#[derive(Debug, Default)]
pub struct Outlets {
    /// Of each app that has one, by its number.
    logs: HashMap<u16, Rc<RefCell<AppLog>>>,
    audiences: HashMap<(u16, Stream), Audience>,
}

/// Those who are attached to a stream.
#[derive(Clone, Debug, Default)]
struct Audience(Rc<RefCell<Hall>>);

#[derive(Debug, Default)]
struct Hall {
    listeners: Vec<Rc<Listener>>,
    /// The stream has ended.
    over: bool,
}

/// What shows a stream to its audience.
#[derive(Debug)]
struct Speaker(Audience);

impl Outlets {
    /// Opens the log of an app that asks for one.
    pub fn open_log(&mut self, pod: &Pod, number: u16, app: &StreamedApp) {
        if app.modes.has_log() {
            let log = AppLog::new(&pod.directory, pod.arguments.uuid, &app.name, app.modes.log);
            self.logs.insert(number, Rc::new(RefCell::new(log)));
        }
    }

    /// Forgets an app. What still comes from it is still seen by those who see it.
    pub fn close(&mut self, number: u16) {
        self.logs.remove(&number);
        self.audiences.retain(|(app, _), _| *app != number);
    }

    /// Who sees an app's stream.
    pub fn observers(&mut self, number: u16, app: &StreamedApp, stream: Stream) -> Vec<Box<dyn Observer>> {
        let mut observers: Vec<Box<dyn Observer>> = Vec::new();
        let mode = app.modes.output(stream);
        if mode.log
            && let Some(log) = self.logs.get(&number)
        {
            observers.push(Box::new(LoggedStream::new(Rc::clone(log), stream)));
        }
        if mode.stream || mode.terminal {
            let audience = self.audiences.entry((number, stream)).or_default();
            observers.push(Box::new(Speaker(audience.clone())));
        }
        observers
    }

    /// Adds a listener to a stream; `false` if that has ended.
    pub fn listen(&self, number: u16, stream: Stream, listener: &Rc<Listener>) -> bool {
        let Some(Audience(hall)) = self.audiences.get(&(number, stream)) else { return false };
        let mut hall = hall.borrow_mut();
        // Those who have gone are noticed when there is something to show, which may be never.
        hall.listeners.retain(|listener| listener.standing() == Standing::Listening);
        if !hall.over {
            hall.listeners.push(Rc::clone(listener));
        }
        !hall.over
    }
}

impl Observer for Speaker {
    fn observe(&mut self, bytes: &[u8]) {
        let Audience(hall) = &self.0;
        hall.borrow_mut().listeners.retain(|listener| {
            listener.offer(bytes);
            listener.standing() == Standing::Listening
        });
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let Audience(hall) = &self.0;
        let mut hall = hall.borrow_mut();
        hall.over = true;
        hall.listeners.drain(..).for_each(|listener| listener.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    use ::pod::plan::Stdio;
    use ::pod::streams::StreamModes;
    use relay::{Sink, SinkEnd};

    fn listener() -> (std::fs::File, Rc<Listener>) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (read.into(), Rc::new(Listener::new(Sink::new(write, SinkEnd::Close).unwrap())))
    }

    fn app() -> StreamedApp {
        let modes = StreamModes { stdout: "stream".parse().unwrap(), ..StreamModes::default() };
        StreamedApp { name: "web".parse().unwrap(), stdio: Stdio::Streams(vec![Stream::Stdout]), modes }
    }

    #[test]
    fn who_comes_and_goes_leaves_nothing() {
        let mut outlets = Outlets::default();
        assert!(!outlets.listen(0, Stream::Stdout, &listener().1), "there is no such stream");
        let mut speakers = outlets.observers(0, &app(), Stream::Stdout);
        for _ in 0..100 {
            let (_far, gone) = listener();
            assert!(outlets.listen(0, Stream::Stdout, &gone));
            gone.leave();
        }
        let Audience(hall) = &outlets.audiences[&(0, Stream::Stdout)];
        assert!(hall.borrow().listeners.len() <= 1, "the app says nothing");
        let (mut far, stays) = listener();
        assert!(outlets.listen(0, Stream::Stdout, &stays));
        speakers.iter_mut().for_each(|speaker| speaker.observe(b"word"));
        drop(speakers);
        assert!(!outlets.listen(0, Stream::Stdout, &listener().1), "it has ended");
        assert_eq!(stays.standing(), Standing::Gone);
        drop(stays);
        let mut text = String::new();
        far.read_to_string(&mut text).unwrap();
        assert_eq!(text, "word");
    }
}
