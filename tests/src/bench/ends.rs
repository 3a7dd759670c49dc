//! Where a program of the benchmark runs, at one end of a network or at the other.

use std::path::Path;
use std::process::Command;

use crate::Bench;
use crate::bridge::{BRIDGE, FREE, LIMITED, configuration, limits};
use crate::sleeping::SLEEPS;

/// What `tests/bench` has made: the tools and `/sender` beside busybox.
const IMAGE: &str = "reading.aci";

/// One end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The machine that the benchmark runs on.
    Host,
    /// A namespace on the bridge.
    Namespace,
    /// Another one, with the limits of a pod.
    Limited,
    /// A pod of an isolation.
    Pod(&'static str),
    /// A VM of another VMM, if it is there.
    Firecracker,
}

/// A shell's command at an end, in a pod of its own if that is a pod; none at one that has no shell from here.
pub fn shell(bench: &Bench, end: End, address: Option<&str>, line: &str) -> Option<Command> {
    let shell = ["/bin/sh", "-c", line];
    let mut command = Command::new("ip");
    match end {
        End::Host => command = Command::new("env"),
        End::Namespace => _ = command.args(["netns", "exec", FREE]),
        End::Limited => {
            command = Command::new("sh");
            command.args(["-c", "echo $$ >\"$0\" && exec ip netns exec \"$@\""]).arg(limits()).arg(LIMITED);
        }
        End::Pod(isolation) => {
            let address = address.map(|address| format!(":IP={address}")).unwrap_or_default();
            return Some(pod(bench, isolation, &[&format!("--net={BRIDGE}{address}")], &shell));
        }
        End::Firecracker => return None,
    }
    command.args(shell);
    Some(command)
}

/// A pod on the bridge that does nothing until it is [asked](enter); its UUID goes to that file.
pub fn idle_pod(bench: &Bench, isolation: &str, uuid: &Path) -> Command {
    let (net, uuid) = (format!("--net={BRIDGE}"), format!("--uuid-file-save={}", uuid.display()));
    pod(bench, isolation, &[&net, &uuid], &SLEEPS)
}

/// A shell's command in such a pod.
pub fn enter(bench: &Bench, uuid: &str, line: &str) -> Command {
    let mut command = bench.rkt();
    command.args(["enter", uuid, "/bin/sh", "-c", line]);
    command
}

/// A program in a pod, with these options of `run`.
pub fn pod(bench: &Bench, isolation: &str, options: &[&str], exec: &[&str]) -> Command {
    let mut command = bench.rkt();
    command.arg(format!("--local-config={}", configuration(bench).display()));
    command.args(["run", "--stage1", isolation]).args(options).arg(bench.images.join(IMAGE));
    if let Some((program, arguments)) = exec.split_first() {
        command.arg(format!("--exec={program}")).arg("--").args(arguments);
    }
    command
}
