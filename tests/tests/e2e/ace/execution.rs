//! "Execution": which program, and why not.

use serde_json::json;

use super::{run, run_at};
use crate::harness::{Entry, Host};

const TELL: &[u8] = b"#!/bin/sh\necho $0 \"$@\"\n";

/// Absolute, from the working directory, in PATH with its relative directories, and by a symbolic link.
#[test]
fn where_the_program_is_looked_for() {
    let entries = [Entry::program("srv/tools/tell", TELL), Entry::program("opt/bin/tell-too", TELL)];
    let app = |exec: &[&str]| {
        json!({
            "exec": exec, "user": "0", "group": "0", "workingDirectory": "/srv",
            "environment": [{ "name": "PATH", "value": "/opt/bin:tools:/bin" }],
        })
    };
    let host = Host::empty();
    for (exec, said) in [
        (&["/srv/tools/tell", "a", "b c"][..], "/srv/tools/tell a b c\n"),
        (&["./tools/tell"][..], "./tools/tell\n"),
        (&["tools/tell", ""][..], "tools/tell \n"),
        (&["tell-too"][..], "/opt/bin/tell-too\n"),
        (&["tell"][..], "tools/tell\n"),
    ] {
        assert_eq!(run_at(&host, app(exec), &entries, &[]).success().text(), said, "{exec:?}");
    }
    let appended = run_at(&host, app(&["tell-too", "x"]), &entries, &["--", "y", "-z"]);
    assert_eq!(appended.success().text(), "/opt/bin/tell-too x y -z\n");
    let replaced = run_at(&host, app(&["tell-too", "x"]), &entries, &["--exec=tell", "--", "y"]);
    assert_eq!(replaced.success().text(), "tools/tell y\n");
}

/// An ELF64 program of this machine number that asks for this interpreter.
fn elf(machine: u16, interpreter: &str) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut bytes = vec![0; HEADERS as usize];
    bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20..24].copy_from_slice(&1u32.to_le_bytes());
    bytes[32..40].copy_from_slice(&64u64.to_le_bytes());
    for (place, value) in [(52, 64u16), (54, 56), (56, 1)] {
        bytes[place..place + 2].copy_from_slice(&value.to_le_bytes());
    }
    bytes[64..68].copy_from_slice(&3u32.to_le_bytes());
    bytes[72..80].copy_from_slice(&HEADERS.to_le_bytes());
    let length = interpreter.len() as u64 + 1;
    bytes[96..104].copy_from_slice(&length.to_le_bytes());
    bytes[104..112].copy_from_slice(&length.to_le_bytes());
    bytes.extend(interpreter.as_bytes());
    bytes.push(0);
    bytes
}

/// The error names the file that is to blame.
#[test]
fn why_a_program_cannot_be_executed() {
    let (foreign, incomplete) = (elf(183, "/lib/ld.so"), elf(62, "/lib/ld-missing.so"));
    let data = Entry { mode: 0o644, ..Entry::program("data", b"x") };
    let entries = [
        Entry::program("foreign", &foreign),
        Entry::program("incomplete", &incomplete),
        Entry::program("script", b"#!/no/shell -e\n"),
        Entry::program("script-of-foreign", b"#!/foreign\n"),
        Entry::program("script-of-data", b"#!/data\n"),
        Entry::program("text", b"hello\n"),
        data,
    ];
    let host = Host::empty();
    for (program, words) in [
        ("/nothing", &["/nothing", "not in the image"][..]),
        ("nothing", &["nothing", "PATH"][..]),
        ("/data", &["/data", "not executable"][..]),
        ("/srv", &["/srv", "not a file"][..]),
        ("/foreign", &["/foreign", "aarch64"][..]),
        ("/incomplete", &["/incomplete", "/lib/ld-missing.so", "not in the image"][..]),
        ("/script", &["/script", "/no/shell", "not in the image"][..]),
        ("/script-of-foreign", &["/foreign", "aarch64"][..]),
        ("/script-of-data", &["/data", "not executable"][..]),
        ("/text", &["/text", "architecture"][..]),
    ] {
        let app = json!({ "exec": [program], "user": "0", "group": "0" });
        let finished = run_at(&host, app, &entries, &[]).exited(254);
        for word in words {
            assert!(finished.stderr.contains(word), "{program}: {word}: {}", finished.stderr);
        }
    }
}

/// An empty exec, or none, needs --exec.
#[test]
fn an_image_without_a_command() {
    let app = json!({ "exec": [], "user": "0", "group": "0" });
    assert!(run(app.clone(), &[], &[]).exited(254).stderr.contains("--exec"));
    run(app, &[], &["--exec=/bin/true"]).success();
}
