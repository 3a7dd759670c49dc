//! A single app's standard streams are the caller's, byte for byte.

use std::io::{Read, Seek};
use std::process::Stdio;

use crate::harness::{Host, Process};

const MB: usize = 1_000_000;

/// Noise that the app repeats, each time after its number: lost, doubled and swapped bytes show wherever they are. The
/// app must do no more than copy, since an emulated processor may run these tests.
#[test]
fn two_hundred_megabytes_of_output() {
    const ROUNDS: usize = 25;
    let host = Host::new();
    let part = noise(200 * MB / ROUNDS);
    let script = format!("cat >/tmp/part; for n in $(seq {ROUNDS}); do echo $n; cat /tmp/part; done");
    let process = Process::start_with_input(&mut host.shell(&[], &script), part.clone());
    let output = process.finish().success().stdout;
    let mut rest = output.as_slice();
    for number in 1..=ROUNDS {
        let wanted = [format!("{number}\n").as_bytes(), &part].concat();
        assert!(
            rest.starts_with(&wanted),
            "round {number} differs, {} of {} bytes left",
            rest.len(),
            output.len()
        );
        rest = &rest[wanted.len()..];
    }
    assert_eq!(rest, b"");
}

#[test]
fn fifty_megabytes_of_input_come_back() {
    let host = Host::new();
    let input = noise(50 * MB);
    let process = Process::start_with_input(&mut host.shell(&[], "cat"), input.clone());
    let output = process.finish().success().stdout;
    assert_eq!(output.len(), input.len());
    assert!(output == input, "the bytes differ");
}

#[test]
fn errors_are_apart_from_output() {
    let finished = Host::new().sh("echo out; echo err >&2").success();
    assert_eq!((finished.text().as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn files_are_read_and_written() {
    let host = Host::new();
    let mut file = tempfile::tempfile().unwrap();
    let mut command = host.shell(&[], "wc -c; echo end");
    command.stdin(std::fs::File::open(crate::harness::image("key")).unwrap());
    let status = command.stdout(file.try_clone().unwrap()).status().unwrap();
    assert!(status.success());
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "33\nend\n");
}

/// The app sees that nobody reads its output, as it would without a pod around it.
#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    let host = Host::new();
    let mut command = host.shell(&[], "yes");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 4096];
    child.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
    drop(child.stdout.take());
    assert_ne!(child.wait().unwrap().code(), Some(0));
}

/// Bytes without a pattern.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
