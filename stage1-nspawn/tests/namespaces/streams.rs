//! Standard streams, byte for byte.

use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::pod::{Pod, Running, shell, text};

/// A megabyte that repeats itself nowhere.
fn block() -> Vec<u8> {
    let mut state = 1u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(1_000_000).collect()
}

/// That block again and again, each time after its number, so that none can be missing.
fn blocks(count: usize) -> impl Iterator<Item = Vec<u8>> {
    let block = block();
    (1..=count).map(move |number| [format!("{number}\n").into_bytes(), block.clone()].concat())
}

fn digest(chunks: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    chunks.fold(Sha256::new(), |hash, chunk| hash.chain_update(chunk)).finalize().to_vec()
}

fn chunks(mut reader: impl Read) -> impl Iterator<Item = Vec<u8>> {
    std::iter::from_fn(move || {
        let mut chunk = vec![0; 1 << 16];
        let count = reader.read(&mut chunk).unwrap();
        chunk.truncate(count);
        (count > 0).then_some(chunk)
    })
}

#[test]
fn two_hundred_megabytes_out() {
    let directory = shell("for i in $(seq 1 200); do echo $i; cat /block; done");
    std::fs::write(directory.tree("app").join("block"), block()).unwrap();
    let mut pod = directory.start();
    assert_eq!(digest(chunks(pod.0.stdout.take().unwrap())), digest(blocks(200)));
    assert_eq!(pod.exit_code(), 0);
}

#[test]
fn fifty_megabytes_in_and_out() {
    let directory = shell("cat");
    let command = &mut directory.command(&[]);
    let mut pod = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut input = pod.0.stdin.take().unwrap();
    let writer = std::thread::spawn(move || blocks(50).for_each(|block| input.write_all(&block).unwrap()));
    assert_eq!(digest(chunks(pod.0.stdout.take().unwrap())), digest(blocks(50)));
    writer.join().unwrap();
    assert_eq!(pod.exit_code(), 0);
}

#[test]
fn a_reader_that_leaves_early() {
    let directory = shell("yes");
    let mut pod = directory.start();
    let mut output = pod.0.stdout.take().unwrap();
    output.read_exact(&mut [0; 100]).unwrap();
    drop(output);
    assert_eq!(pod.exit_code(), 128 + 13, "SIGPIPE");
}

#[test]
fn the_caller_learns_that_the_app_has_closed_its_streams() {
    let directory = shell("echo last; exec >/dev/null </dev/null; sleep 1000");
    let command = &mut directory.command(&[]);
    let mut pod = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(text(&chunks(pod.0.stdout.take().unwrap()).flatten().collect::<Vec<_>>()), "last\n");
    let mut input = pod.0.stdin.take().unwrap();
    crate::pod::wait_until("nobody reads", || input.write_all(b"x").is_err());
}

fn two(first: &str, second: &str) -> Pod {
    let app = |script| json!({"exec": ["/bin/sh", "-c", script]});
    Pod::new().with("one", app(first)).with("two", app(second))
}

#[test]
fn lines_of_several_apps_have_names() {
    let output = two("cat; echo a; echo e >&2; printf tail", "echo b").run();
    let mut lines: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["one: a", "one: tail", "two: b"]);
    assert_eq!(text(&output.stderr), "one: e\n");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn no_byte_of_several_apps_is_lost() {
    let directory = two("seq 1 400000", "seq 1 400000");
    let mut pod = directory.start();
    let output: Vec<u8> = chunks(pod.0.stdout.take().unwrap()).flatten().collect();
    for name in ["one: ", "two: "] {
        let lines = output
            .split_inclusive(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(name.as_bytes()));
        let wanted = (1..=400_000).map(|number| format!("{number}\n").into_bytes());
        assert_eq!(digest(lines.map(<[u8]>::to_vec)), digest(wanted), "{name}");
    }
    assert_eq!(pod.exit_code(), 0);
}

#[test]
fn a_reader_of_several_apps_that_leaves_early() {
    let directory = two("yes", "sleep 1000");
    let mut pod = directory.start();
    let mut output = pod.0.stdout.take().unwrap();
    output.read_exact(&mut [0; 100]).unwrap();
    drop(output);
    assert_eq!(pod.exit_code(), 128 + 13);
}
