//! A session on a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{Aci, BUSYBOX, Host, Process, image, wait_until};

const LIMIT: Duration = Duration::from_secs(600);

mod ioctl {
    nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, libc::winsize);
    nix::ioctl_write_int_bad!(take_terminal, libc::TIOCSCTTY);
}

/// A process on a terminal that the test types at.
pub struct Session {
    master: File,
    child: Child,
    /// The terminal's settings before the process had it.
    before: Termios,
    screen: String,
    seen: String,
}

impl Session {
    /// Starts a command on a terminal of this size.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let slave = || pty.slave.try_clone().unwrap();
        command.stdin(slave()).stdout(slave()).stderr(slave());
        // SAFETY: both calls may be made between fork and exec, and touch no memory of ours.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                ioctl::take_terminal(0, 0)?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        Self { master: pty.master.into(), child, before, screen: String::new(), seen: String::new() }
    }

    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits for `wanted` to appear, and forgets everything up to it.
    pub fn expect(&mut self, wanted: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.screen.contains(wanted) {
            assert!(Instant::now() < deadline, "no \"{wanted}\" on the screen: {:?}", self.screen);
            if !self.read() {
                panic!("ended without \"{wanted}\" on the screen: {:?}", self.screen);
            }
        }
        let (before, after) = self.screen.split_once(wanted).unwrap();
        (self.seen, self.screen) = (before.to_owned(), after.to_owned());
    }

    /// What stood before that.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// Takes what has come within a second; false at the end of the session.
    fn read(&mut self) -> bool {
        let mut readable = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
        if poll(&mut readable, PollTimeout::from(1000u16)).unwrap() == 0 {
            return true;
        }
        let mut bytes = [0; 4096];
        // A terminal that its last user has closed reads as EIO.
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.screen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    pub fn resize(&mut self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is open, and the size lives until the call returns.
        unsafe { ioctl::set_window_size(self.master.as_raw_fd(), &size) }.unwrap();
    }

    pub fn finish(mut self) -> i32 {
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            self.read();
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap();
            }
        }
        panic!("not finished: {:?}", self.screen);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_shell_session() {
    let host = Host::new();
    let command = host.run(&["--interactive", &image(BUSYBOX), "--exec=/bin/sh"]);
    let mut session = Session::start(command, 24, 80);
    session.expect("# ");
    // The answer is not in what the terminal echoes.
    session.type_in("echo $((6 * 7))\n");
    session.expect("\n42\r\n");
    session.type_in("tty; stty size\n");
    session.expect("/dev/");
    session.expect("24 80\r\n");

    session.resize(43, 132);
    // The new size travels beside what is typed.
    session.type_in("until [ \"$(stty size)\" = '43 132' ]; do sleep 0.1; done; echo re''sized\n");
    session.expect("resized\r\n");

    // What says that it waits has the terminal by then: a Ctrl-C between a shell's echo and its next command is the
    // shell's own.
    session.type_in("sh -c \"echo wai''ting; exec sleep 1000\"\n");
    session.expect("waiting\r\n");
    session.type_in("\x03");
    session.expect("# ");
    session.type_in("echo interrupted with $?\n");
    session.expect("interrupted with 130\r\n");
    session.type_in("exit 9\n");
    assert_eq!(session.finish(), 9);
}

#[test]
fn the_callers_terminal_is_as_before() {
    let host = Host::new();
    let command = host.run(&["--interactive", &image(BUSYBOX), "--exec=/bin/true"]);
    let session = Session::start(command, 24, 80);
    let before = session.before.clone();
    let master = session.master.try_clone().unwrap();
    assert_eq!(session.finish(), 0);
    let after = tcgetattr(&master).unwrap();
    assert_eq!(before.local_flags, after.local_flags);
    assert_eq!(before.output_flags, after.output_flags);
}

/// What a terminal is told to make a line empty.
const CLEAR: &str = "\r\x1b[2K";

fn large_image() -> Aci {
    Aci::with_hole(json!({ "exec": ["/bin/true"], "user": "0", "group": "0" }), ("data", 64 << 20), &[])
}

/// Begins to fetch an image on a terminal, and stops in the midst of it for longer than anybody waits without being told.
fn interrupted_import(host: &Host, aci: &str) -> Session {
    let mut command = host.rkt();
    command.args(["fetch", aci]).env("TERM", "xterm");
    let session = Session::start(command, 24, 80);
    let imports = || std::fs::read_dir(host.path().join("cas/tmp")).into_iter().flatten();
    wait_until("importing", || imports().flatten().any(|import| import.path().join("image.erofs").exists()));
    session.signal(Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(600));
    session.signal(Signal::SIGCONT);
    session
}

#[test]
fn a_long_import_is_shown_until_its_end() {
    let host = Host::empty();
    let aci = large_image();
    let mut session = interrupted_import(&host, &aci.path());
    session.expect("test.aci [");
    session.expect("MiB of 6");
    session.expect("test.aci: writing to disk");
    let piped = Process::start(Host::empty().rkt().args(["fetch", &aci.path()])).finish().success();
    assert_eq!(piped.stderr, "");
    // Nothing is left of it on the screen.
    session.expect(&format!("{CLEAR}{}\r\n", piped.text().trim()));
    assert_eq!(session.finish(), 0);
}

#[test]
fn an_error_is_not_written_into_what_is_shown_of_an_import() {
    let host = Host::empty();
    let aci = large_image();
    std::fs::File::options().write(true).open(aci.path()).unwrap().set_len(64 << 20).unwrap();
    let mut session = interrupted_import(&host, &aci.path());
    session.expect("test.aci [");
    session.expect(&format!("{CLEAR}fetch: cannot import"));
    assert_eq!(session.finish(), 254);
}
