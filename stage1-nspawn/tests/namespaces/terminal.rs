//! An app with a terminal, driven through a pty as a person would.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal;
use nix::sys::termios::{LocalFlags, tcgetattr};
use serde_json::json;

use crate::pod::{Pod, Running, shell, text};

pub struct Session {
    pub pod: Running,
    screen: File,
    slave: std::os::fd::OwnedFd,
    seen: String,
}

impl Session {
    fn start(directory: &Pod, arguments: &[&str]) -> Self {
        Self::of(&mut directory.command(arguments))
    }

    /// A command on a terminal.
    pub fn of(command: &mut Command) -> Self {
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let side = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = command.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let (screen, slave) = (File::from(pty.master), pty.slave);
        Self { pod: Running(child), screen, slave, seen: String::new() }
    }

    pub fn type_in(&mut self, keys: &str) {
        self.screen.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until `wanted` is on the screen.
    pub fn expect(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let mut bytes = [0; 4096];
            let mut set = [nix::poll::PollFd::new(self.screen.as_fd(), nix::poll::PollFlags::POLLIN)];
            assert_eq!(nix::poll::poll(&mut set, 20_000u16).unwrap(), 1, "{wanted:?} not in {:?}", self.seen);
            let count = self.screen.read(&mut bytes).unwrap();
            self.seen.push_str(&text(&bytes[..count]));
        }
        let end = self.seen.find(wanted).unwrap() + wanted.len();
        self.seen.drain(..end);
    }

    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the call reads one winsize.
        assert_eq!(unsafe { libc::ioctl(self.screen.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }, 0);
        self.pod.signal(Signal::SIGWINCH);
    }

    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }
}

#[test]
fn a_shell_session() {
    let section = json!({"exec": ["/bin/sh"], "environment": [{"name": "PS1", "value": "> "}]});
    let directory = Pod::new().with("app", section);
    let mut session = Session::start(&directory, &["--interactive"]);
    session.expect("> ");
    assert!(session.is_raw());
    session.type_in("test -t 0 && test -t 1 && test -t 2 && echo all of$((1+1)) terminals\n");
    session.expect("all of2 terminals");
    session.type_in("stty size; tty\n");
    session.expect("33 99");
    session.resize(44, 111);
    session.type_in("stty size\n");
    session.expect("44 111");
    // Said by the job itself: before it is in the foreground, Ctrl-C is the shell's, which takes it for nothing.
    session.type_in("sh -c 'echo asleep$((3+3)); exec sleep 1000'\n");
    session.expect("asleep6");
    session.type_in("\x03");
    session.expect("> ");
    session.type_in("echo still$((2+2))\n");
    session.expect("still4");
    session.type_in("exit 7\n");
    assert_eq!(session.pod.exit_code(), 7);
    assert!(!session.is_raw(), "the terminal is as it was");
}

#[test]
fn the_terminal_is_restored_when_the_pod_is_stopped() {
    let directory = shell("echo ready; sleep 1000");
    let mut session = Session::start(&directory, &["--interactive"]);
    session.expect("ready");
    assert!(session.is_raw());
    session.pod.signal(Signal::SIGTERM);
    assert_eq!(session.pod.exit_code(), 143);
    assert!(!session.is_raw());
}

#[test]
fn the_end_of_input_is_a_key() {
    let directory = shell("echo ready; cat; echo done$((1+1))");
    let mut session = Session::start(&directory, &["--interactive"]);
    session.expect("ready");
    session.type_in("line\n\x04");
    session.expect("done2");
    assert_eq!(session.pod.exit_code(), 0);
}

#[test]
fn without_interactive_an_app_does_not_get_the_terminal() {
    let directory = shell("test -t 0 || test -t 1 || test -t 2 || echo none; read x; echo got $x");
    let mut session = Session::start(&directory, &[]);
    session.expect("none");
    assert!(!session.is_raw());
    session.type_in("words\n");
    session.expect("got words");
    assert_eq!(session.pod.exit_code(), 0);
}

#[test]
fn the_terminal_can_be_opened_by_its_names() {
    let script = "for name in /dev/tty $(busybox tty); do echo opened $name >$name || exit 1; done";
    let directory = shell(script);
    let mut session = Session::start(&directory, &["--interactive"]);
    session.expect("opened /dev/tty");
    session.expect("opened /dev/pts/");
    assert_eq!(session.pod.exit_code(), 0);
}
