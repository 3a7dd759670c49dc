//! Programs in VMs may stand still for good: the emulation has a guest take an interrupt twice now and then, a timer's in the middle of the
//! first, which waits for its own lock (`tests/kvm-host`). So nothing waits for them for long, and what stood still is repeated.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Error;

/// Four times what anything takes by a clock that counts instructions.
pub const LIMIT: Duration = Duration::from_secs(4);
/// How often a measurement is repeated before the benchmark gives up.
pub const REPEATS: usize = 8;
const ASK_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a command to its end, without input; nothing, if that does not come, and an error if it fails.
pub fn run_for_a_while(command: &mut Command) -> Result<Option<Output>, Error> {
    run_within(LIMIT, command)
}

fn run_within(limit: Duration, command: &mut Command) -> Result<Option<Output>, Error> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = child.spawn().map_err(|error| format!("{command:?}: {error}"))?;
    if !ends(limit, &mut child)? {
        child.kill()?;
        child.wait()?;
        return Ok(None);
    }
    // What it prints is a line.
    let output = child.wait_with_output()?;
    match output.status.success() {
        true => Ok(Some(output)),
        false => Err(format!("{command:?}: {}", output.status).into()),
    }
}

fn ends(limit: Duration, child: &mut Child) -> Result<bool, Error> {
    let begin = Instant::now();
    while child.try_wait()?.is_none() {
        if begin.elapsed() > limit {
            return Ok(false);
        }
        sleep(ASK_INTERVAL);
    }
    Ok(true)
}

/// The first line that comes; nothing, if none does.
pub fn first_line(from: &mut (impl Read + AsFd)) -> Result<Option<String>, Error> {
    first_line_within(LIMIT, from)
}

fn first_line_within(limit: Duration, from: &mut (impl Read + AsFd)) -> Result<Option<String>, Error> {
    let (begin, mut line) = (Instant::now(), Vec::new());
    while !line.ends_with(b"\n") {
        let Some(left) = limit.checked_sub(begin.elapsed()) else { return Ok(None) };
        let mut set = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        if poll(&mut set, PollTimeout::try_from(left)?)? == 0 {
            return Ok(None);
        }
        let mut byte = [0];
        if from.read(&mut byte)? == 0 {
            break;
        }
        line.extend(byte);
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn who_ends_and_who_does_not() {
        let output = run_for_a_while(Command::new("echo").arg("here")).unwrap().unwrap();
        assert_eq!(output.stdout, b"here\n");
        assert!(run_for_a_while(&mut Command::new("false")).is_err());
        assert!(run_within(SHORT, Command::new("sleep").arg("1000")).unwrap().is_none());
    }

    #[test]
    fn a_line_and_no_more() {
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; echo more; exec sleep 1000"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.as_mut().unwrap();
        assert_eq!(first_line(stdout).unwrap().as_deref(), Some("ready\n"));
        assert_eq!(first_line(stdout).unwrap().as_deref(), Some("more\n"));
        assert_eq!(first_line_within(SHORT, stdout).unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
