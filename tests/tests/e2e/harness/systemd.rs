//! A host whose init is systemd (`tests/systemd`), with cgroups, a message bus and nothing else of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::{Finished, Process, variable};

/// From outside, a process is in none of its cgroups; systemd-run sees to those of cgroup v2, and of v1 only to some.
const ENTER_CGROUPS: &str = "cd /sys/fs/cgroup && \
    if [ -d systemd ]; then for own in */cgroup.procs; do echo $$ >$own; done; fi; cd / && exec \"$@\"";

/// A systemd that runs until it is dropped.
pub struct Systemd {
    /// Ends when its standard input does.
    child: Child,
    init: String,
}

impl Systemd {
    /// Boots it.
    pub fn boot() -> Self {
        let mut child = Command::new(variable("RKT_TEST_SYSTEMD"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let init = line.trim().to_owned();
        assert!(!init.is_empty(), "systemd has not booted");
        Self { child, init }
    }

    /// Runs a script there, outside of all units.
    pub fn sh(&self, script: &str) -> Finished {
        Process::start(self.inside().args(["/bin/sh", "-c", script])).finish()
    }

    /// The command there, in a unit that systemd-run makes with these options.
    pub fn in_unit(&self, options: &[&str], command: &Command) -> Command {
        let mut inside = self.inside();
        inside.args(["systemd-run", "--quiet"]).args(options).arg("--");
        inside.arg(command.get_program()).args(command.get_args());
        inside
    }

    /// The command there, in a session: not alone in its unit.
    pub fn in_session(&self, command: &Command) -> Command {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "\"$@\"; exit $?", "sh"]).arg(command.get_program()).args(command.get_args());
        self.in_unit(&["--scope", "--unit=session-1", "--slice=user.slice"], &shell)
    }

    /// The beginning of a command there.
    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init)).args(["--pid", "--mount", "--cgroup"]);
        command.args(["/bin/sh", "-c", ENTER_CGROUPS, "sh"]);
        command
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().ok();
    }
}
