//! What comes with a filter of system calls and what does not: other ways into the kernel, privileges, errors. Where a
//! shell cannot make the call, programs of a few instructions do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::confinement::{KILLED, confined, no_new_privileges, remove};
use crate::pod::{Pod, shell, text};

/// Where an app of this file has its program.
const PROGRAM: &str = "/bin/program";

/// An app that consists of this program.
fn program(content: &[u8], mode: u32, user: &str, isolators: Value) -> Pod {
    let section = json!({"exec": [PROGRAM], "user": user, "group": user, "isolators": isolators});
    let pod = Pod::new().with("app", section);
    let path = pod.tree("app").join(PROGRAM.trim_start_matches('/'));
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    pod
}

/// The smallest program of x86-64 with this code (elf(5)).
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    [2u16, 62].iter().for_each(|half| file.extend(half.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    [BASE + HEADERS, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    // One segment, readable and executable.
    [1u32, 5].iter().for_each(|half| file.extend(half.to_le_bytes()));
    [0, BASE, BASE, size, size, 0x1000].iter().for_each(|word: &u64| file.extend(word.to_le_bytes()));
    file.extend(code);
    file
}

fn retain(calls: &[&str]) -> Value {
    json!({"name": "os/linux/seccomp-retain-set", "value": {"set": calls}})
}

/// A 64-bit program may make 32-bit system calls, whose numbers mean other things: 20, getpid there, is writev here.
#[test]
fn calls_of_another_architecture_are_deadly() {
    #[rustfmt::skip]
    let code = [
        0xb8, 20, 0, 0, 0, // mov eax, 20
        0xcd, 0x80,        // int 0x80
        0x31, 0xff,        // xor edi, edi
        0xb8, 60, 0, 0, 0, // mov eax, exit
        0x0f, 0x05,        // syscall
    ];
    for (arguments, status) in [(&[][..], KILLED), (&["--disable-seccomp"][..], 0)] {
        let pod = program(&elf(&code), 0o755, "0", json!([remove(&["mkdir"], Some("EPERM"))]));
        let output = pod.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?} {}", text(&output.stderr));
    }
}

/// The x32 ABI's are the usual numbers and 2^30. Most kernels do not have them either, but a retain-set would be deadly if
/// the filter had no answer of its own.
#[test]
fn calls_of_x32_do_not_exist() {
    #[rustfmt::skip]
    let code = [
        0xb8, 39, 0, 0, 0x40, // mov eax, x32's getpid
        0x0f, 0x05,           // syscall
        0xf7, 0xd8,           // neg eax
        0x89, 0xc7,           // mov edi, eax
        0xb8, 60, 0, 0, 0,    // mov eax, exit
        0x0f, 0x05,           // syscall
    ];
    for set in [retain(&["getpid"]), remove(&["mkdir"], Some("EPERM"))] {
        let output = program(&elf(&code), 0o755, "0", json!([set])).run();
        assert_eq!(output.status.code(), Some(Errno::ENOSYS as i32), "{set} {}", text(&output.stderr));
    }
}

/// A filter does not come with no_new_privs: that is the app's own choice.
#[test]
fn set_user_id_programs_work() {
    #[rustfmt::skip]
    let code = [
        0xb8, 107, 0, 0, 0, // mov eax, geteuid
        0x0f, 0x05,         // syscall
        0x89, 0xc7,         // mov edi, eax
        0xb8, 60, 0, 0, 0,  // mov eax, exit
        0x0f, 0x05,         // syscall
    ];
    for (isolators, user) in [(json!([]), 0), (json!([no_new_privileges()]), 33)] {
        let output = program(&elf(&code), 0o4755, "33", isolators).run();
        assert_eq!(output.status.code(), Some(user), "{}", text(&output.stderr));
    }
}

/// The capability that installing a filter takes ends with the execution.
#[test]
fn a_filter_leaves_no_privileges_behind() {
    const NONE: &str = "0000000000000000";
    const DEFAULT: &str = "00000000a80425fb";
    let script = "grep ^Cap /proc/self/status | cut -f2 | tr '\\n' ' '";
    for (user, kept) in [("0", DEFAULT), ("33", NONE)] {
        for isolators in [json!([]), json!([no_new_privileges()])] {
            let output = confined(user, script, isolators.clone()).run();
            // Inheritable, permitted, effective, bounding, ambient.
            let expected = format!("{NONE} {kept} {kept} {DEFAULT} {NONE} ");
            assert_eq!(text(&output.stdout), expected, "{user} {isolators} {}", text(&output.stderr));
        }
    }
}

#[test]
fn event_handlers_are_under_the_same_filter() {
    let handlers = json!([{"name": "pre-start", "exec": ["/bin/sh", "-c", "mkdir /made; echo handler $?"]}]);
    let section = |isolators: Value| json!({"exec": ["/bin/echo", "ran"], "eventHandlers": handlers, "isolators": isolators});
    let refused = json!([remove(&["mkdir"], Some("EACCES"))]);
    for (isolators, status) in [(json!([]), 0), (refused, 1)] {
        let output = Pod::new().with("app", section(isolators)).run();
        assert_eq!(text(&output.stdout), format!("handler {status}\nran\n"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_told_from_behind_a_filter() {
    let output = program(b"no program", 0o755, "0", json!([])).run();
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(254) && stderr.contains(PROGRAM), "{output:?}");
}

#[test]
fn a_kernel_that_takes_no_filters_needs_consent() {
    let pod = shell("echo ran");
    let without = |arguments: &[&str]| {
        let mut command = pod.command(arguments);
        // SAFETY: it does nothing but system calls, with paths that need no memory of the heap.
        unsafe { command.pre_exec(hide_filters) };
        command.output().unwrap()
    };
    let output = without(&[]);
    let stderr = text(&output.stderr);
    assert!(output.status.code() == Some(254) && output.stdout.is_empty(), "{output:?}");
    assert!(
        stderr.contains("CONFIG_SECCOMP_FILTER") && stderr.contains("--insecure-options=seccomp"),
        "{stderr}"
    );
    assert!(!pod.path("subcgroup").exists() && !pod.path("pid").exists(), "before the pod is made");
    let output = without(&["--disable-seccomp"]);
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
}

/// An app that says it may make every call has no filter to install.
#[test]
fn a_pod_without_filters_needs_no_kernel_that_takes_them() {
    let pod = confined("0", "echo ran", json!([retain(&["@appc.io/all"])]));
    let mut command = pod.command(&[]);
    // SAFETY: as above.
    unsafe { command.pre_exec(hide_filters) };
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "ran\n", "{}", text(&output.stderr));
}

/// As on a kernel without them.
fn hide_filters() -> std::io::Result<()> {
    let (none, slave) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE);
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, slave, none)?;
    Ok(mount(none, "/proc/sys/kernel/seccomp", Some("tmpfs"), MsFlags::empty(), none)?)
}
