//! Apps of ended VM pods become images by way of a throw-away guest, which nobody trusts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::export::{export, output};
use crate::harness::{Aci, Archive, Entry, Host, Process, stage1, wait_until};

/// An ended VM pod that has written something; nothing elsewhere.
fn ended() -> Option<Host> {
    let host = (stage1() == "kvm").then(Host::new)?;
    host.sh("echo new >/new").success();
    Some(host)
}

fn scratch(host: &Host) -> PathBuf {
    host.pods()[0].join("scratch.ext4")
}

/// An export fails with these words, and leaves nothing.
fn fails(host: &Host, words: &str) {
    let directory = tempfile::tempdir().unwrap();
    let error = export(host, &[], &output(&directory)).exited(254).stderr;
    assert!(error.contains(words), "{words}: {error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// All kinds of changes, with times that do not depend on when it runs.
const CHANGES: &str = "set -e; cd /srv; mkdir -p d/e; echo f >d/e/f; echo other >>kept/file; rm -r emptied removed; ln -s nowhere dangling; \
    ln d/e/f d/g; mknod d/pipe p; mknod d/null c 1 3; chown 7:8 d/e d/e/f; chmod 4751 d/e/f; chmod 1777 d; \
    rm /capable; mkdir /capable; touch /capable/in; seq 1 30000 >d/numbers; truncate -s 1M d/hole; \
    mv /moved /moved-away; find /srv /capable /moved-away -exec touch -h -d '2001-02-03 04:05:06' {} +; touch -d '2001-02-03 04:05:06' / /bin";

/// The same writes give the same image, whatever the isolation.
#[test]
fn both_isolations_leave_the_same() {
    if stage1() != "kvm" {
        return;
    }
    let app = serde_json::json!({ "exec": ["/bin/sh"], "user": "0", "group": "0" });
    let entries = ["capable", "moved", "replaced"].map(|path| Entry::program(path, b"#!/bin/sh\n"));
    let aci = Aci::new(app, &entries);
    let exported = |isolation: &str| {
        let (host, directory) = (Host::empty(), tempfile::tempdir().unwrap());
        let mut command = host.rkt();
        command.args([
            "run",
            &format!("--stage1={isolation}"),
            "--hostname=h",
            &aci.path(),
            "--",
            "-c",
            CHANGES,
        ]);
        Process::start(&mut command).finish().success();
        export(&host, &[], &output(&directory)).success();
        Archive::read(&output(&directory)).entries
    };
    let [mut of_namespaces, mut of_vm] = ["nspawn", "kvm"].map(exported);
    for entries in [&mut of_namespaces, &mut of_vm] {
        assert_eq!(entries["rootfs/srv/d/e/f"].owner, (7, 8));
        assert_eq!(entries["rootfs/srv/d/g"].target, b"rootfs/srv/d/e/f");
        assert!(!entries.contains_key("rootfs/srv/removed") && entries.contains_key("rootfs/capable/in"));
        // What rkt has made has the time of its making.
        for name in
            ["dev", "etc", "etc/hostname", "etc/hosts", "etc/mtab", "proc", "run", "sys", "tmp", "moved"]
        {
            if let Some(entry) = entries.get_mut(&format!("rootfs/{name}")) {
                entry.mtime = (0, None);
            }
        }
    }
    let names = |entries: &std::collections::BTreeMap<String, _>| entries.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&of_namespaces), names(&of_vm));
    for (name, entry) in &of_namespaces {
        // The contents are long.
        assert!(entry == &of_vm[name], "{name} differs: {:?} {:?}", entry.mtime, of_vm[name].mtime);
    }
}

#[test]
fn the_pods_disk_is_only_read() {
    let Some(host) = ended() else { return };
    let look = || (fs::metadata(scratch(&host)).unwrap().modified().unwrap(), head(&scratch(&host)));
    let (before, directory) = (look(), tempfile::tempdir().unwrap());
    export(&host, &[], &output(&directory)).success();
    assert_eq!(look(), before);
    assert_eq!(Archive::read(&output(&directory)).entries["rootfs/new"].content, b"new\n");
}

/// The part of the disk that has the file system's own data.
fn head(scratch: &Path) -> Vec<u8> {
    let mut head = vec![0; 4 << 20];
    std::os::unix::fs::FileExt::read_exact_at(&fs::File::open(scratch).unwrap(), &mut head, 0).unwrap();
    head
}

fn overwrite(scratch: &Path, offset: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(scratch).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
}

#[test]
fn disks_that_are_damaged() {
    let Some(host) = ended() else { return };
    let good = head(&scratch(&host));
    // Everything but the superblock: the root directory is nowhere.
    overwrite(&scratch(&host), 4096, &vec![0x5a; good.len() - 4096]);
    fails(&host, "cannot read what app \"busybox\" has left");
    overwrite(&scratch(&host), 0, &vec![0xa5; good.len()]);
    fails(&host, "mount ext4 on /scratch");
    fs::File::create(scratch(&host)).unwrap();
    fails(&host, "cannot read what app \"busybox\" has left");
    // As it ends before it has one.
    fs::remove_file(scratch(&host)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    export(&host, &[], &output(&directory)).success();
    assert!(!Archive::read(&output(&directory)).entries.contains_key("rootfs/new"));
}

/// The processes below one.
fn descendants(process: Pid) -> Vec<Pid> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| Pid::from_raw(child.parse().unwrap()));
    children.flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

#[test]
fn nothing_is_left_of_an_export_that_is_ended() {
    let Some(host) = ended() else { return };
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = host.rkt();
        command.arg("export").arg(host.uuid()).arg(output(&directory));
        let exporting = Process::start(&mut command);
        let mut below = Vec::new();
        wait_until("a machine", || {
            below = descendants(exporting.pid());
            below.len() >= 2
        });
        exporting.signal(signal);
        assert_ne!(exporting.finish().code, 0);
        wait_until("ended", || below.iter().all(|process| !Path::new(&format!("/proc/{process}")).exists()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{signal}");
    }
    let spare = host.path().join("cas/tmp");
    assert_eq!(fs::read_dir(spare).unwrap().count(), 0);
}

/// A guest that has been taken over says what it wants: here a script in the place of the stage1 that passes it on.
#[test]
fn guests_that_lie() {
    let Some(host) = ended() else { return };
    let tools = tempfile::tempdir().unwrap();
    let (entrypoint, aci) = (host.pods()[0].join("stage1/rootfs/export"), tools.path().join("aci"));
    let says = |script: &str| {
        let program = tools.path().join("says");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(&entrypoint).unwrap();
        symlink(&program, &entrypoint).unwrap();
    };
    let pack = |change: &str| {
        let root = tools.path().join("root");
        let manifest = r#"{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/forged",
            "labels":[{"name":"os","value":"linux"},{"name":"arch","value":"amd64"}]}"#;
        fs::create_dir_all(root.join("rootfs/a")).unwrap();
        fs::write(root.join("manifest"), manifest).unwrap();
        let script = format!("cd {} && {{ {change}; }}", root.display());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{script}");
    };
    let tar = |arguments: &str| format!("tar -P -cf {0} {arguments}", aci.display());
    for (script, words) in [
        ("exec yes", "cannot take what app \"busybox\" has left"),
        ("exit 0", "cannot take what app"),
        ("exit 3", "the stage1 could not export the pod (exit status: 3)"),
    ] {
        says(script);
        fails(&host, words);
    }
    let cat = format!("exec cat {}", aci.display());
    for (change, words) in [
        ("--transform=s,rootfs/a,rootfs/../../evil, manifest rootfs", "\"..\""),
        ("--transform=s,rootfs/a,etc/passwd, manifest rootfs", "nothing but manifest and rootfs"),
        ("-z manifest rootfs", "cannot take what app"),
        ("rootfs", "there is no manifest"),
    ] {
        pack(&tar(change));
        says(&cat);
        fails(&host, words);
    }
    // Its tree is the guest's, its name is not.
    pack(&tar("manifest rootfs"));
    let directory = tempfile::tempdir().unwrap();
    export(&host, &[], &output(&directory)).success();
    let entries = Archive::read(&output(&directory)).entries;
    assert!(entries.contains_key("rootfs/a"));
    assert!(!String::from_utf8_lossy(&entries["manifest"].content).contains("forged"));
}
