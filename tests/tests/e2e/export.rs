//! Apps of ended pods become images.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Archive, BUSYBOX, Finished, Host, Process, effort, image, stage1};

/// Changes of every kind: what is new, what is another's, what is gone, and a directory in place of another.
const CHANGES: &str = "echo new >/new; chown 1000:1000 /new; chmod 4711 /new; rm /bin/vi; rm -r /srv/kept; mkdir /srv/kept; \
    echo mine >/srv/kept/other; ln /srv/kept/other /srv/link; ln -s nowhere /srv/dangling; echo x >>/srv/emptied/new";
/// What is to be seen of them.
const LOOK: &str = "cat /new; stat -c '%u:%g %a' /new; ls /bin/vi; find /srv | sort; \
    [ /srv/kept/other -ef /srv/link ] && readlink /srv/dangling";

pub fn export(host: &Host, flags: &[&str], output: &Path) -> Finished {
    let mut command = host.rkt();
    command.arg("export").args(flags).arg(host.uuid()).arg(output);
    Process::start(&mut command).finish()
}

pub fn output(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("exported.aci")
}

fn look(path: &Path) -> Finished {
    let host = Host::empty();
    let mut command: Command =
        host.run(&[path.to_str().unwrap(), "--exec=/bin/sh", "--", "-c", &format!("{LOOK}; exit 0")]);
    Process::start(&mut command).finish().success()
}

/// What an app has written is its image's afterwards.
fn written_is_exported(flags: &[&str]) {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    Process::start(&mut host.shell(flags, CHANGES)).finish().success();
    let path = output(&directory);
    export(&host, &[], &path).success();
    let seen = look(&path);
    let expected = "new\n1000:1000 4711\n/srv\n/srv/dangling\n/srv/emptied\n/srv/emptied/file\n/srv/emptied/new\n\
        /srv/kept\n/srv/kept/other\n/srv/link\n/srv/removed\nnowhere\n";
    assert_eq!(seen.text(), expected);
    assert!(seen.stderr.contains("/bin/vi: No such file"), "{}", seen.stderr);
    assert!(export(&host, &[], &path).exited(254).stderr.contains("--overwrite"));
    let before = std::fs::read(&path).unwrap();
    export(&host, &["--overwrite", "--app=busybox"], &path).success();
    assert_eq!(std::fs::read(&path).unwrap(), before, "the same pod, another archive");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn what_was_written() {
    written_is_exported(&[]);
}

#[test]
fn what_users_of_its_own_have_written() {
    if stage1() != "kvm" {
        written_is_exported(&["--private-users"]);
    }
}

#[test]
fn nothing_was_written() {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    host.sh("true").success();
    export(&host, &[], &output(&directory)).success();
    let host = Host::empty();
    let path = output(&directory);
    let finished = Process::start(&mut host.run(&[path.to_str().unwrap()])).finish().success();
    assert_eq!(finished.text(), "hello from busybox in /srv\n");
}

/// Who exports a pod finds it again where gc moves it meanwhile.
#[test]
fn a_pod_that_is_marked_meanwhile() {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    host.sh("echo changed >>/etc/profile").success();
    let (path, uuid) = (output(&directory), host.uuid());
    let [ended, marked] = ["run", "exited-garbage"].map(|place| host.path().join("pods").join(place));
    std::fs::create_dir_all(&marked).unwrap();
    let [ended, marked] = [ended.join(&uuid), marked.join(&uuid)];
    for moment in (0..20_000).step_by(effort(100, 4_000)) {
        let mut command = host.rkt();
        let exported = Process::start(command.args(["export", "--overwrite", &uuid]).arg(&path));
        std::thread::sleep(Duration::from_micros(moment));
        std::fs::rename(&ended, &marked).unwrap();
        exported.finish().success();
        std::fs::rename(&marked, &ended).unwrap();
    }
}

#[test]
fn what_is_not_exported() {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    let two = [image(BUSYBOX), image(BUSYBOX)];
    let script = "echo ready; read x; exit 0";
    let mut command = host.run(&[
        &two[0],
        "--name=a",
        "--stdin=stream",
        "--exec=/bin/sh",
        "--",
        "-c",
        script,
        "---",
        &two[1],
        "--name=b",
    ]);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("a: ready");
    let refused = |flags: &[&str], output: &Path, word: &str| {
        let error = export(&host, flags, output).exited(254).stderr;
        assert!(error.starts_with("export: ") && error.contains(word), "{error}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    };
    refused(&["--app=a"], &output(&directory), "only what has ended");
    pod.signal(nix::sys::signal::Signal::SIGKILL);
    pod.finish();
    refused(&["--app=a"], &directory.path().join("exported.tar"), ".aci");
    refused(&[], &output(&directory), "name one with --app");
    refused(&["--app=c"], &output(&directory), "\"c\"");
}

/// What is in a directory of its own, and what volumes hold, is not the layer's.
#[test]
fn volumes_are_not_exported() {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    let script = "echo secret >/data/secret; echo kept >/kept; cp /kept /tmp/kept";
    let volume = "--mnt-volume=name=data,target=/data,kind=empty";
    Process::start(&mut host.shell(&[volume], script)).finish().success();
    let path = output(&directory);
    export(&host, &[], &path).success();
    let entries = Archive::read(&path).entries;
    for (name, is_there) in [("rootfs/kept", true), ("rootfs/tmp/kept", true), ("rootfs/data/secret", false)]
    {
        assert_eq!(entries.contains_key(name), is_there, "{name}");
    }
}

#[test]
fn each_app_has_its_own() {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    let busybox = image(BUSYBOX);
    let mut command = host.run(&["--exit-policy=until-all"]);
    for name in ["a", "b"] {
        let script = format!("echo {name} >/mine");
        command.args([&busybox, &format!("--name={name}"), "--exec=/bin/sh", "--", "-c", &script, "---"]);
    }
    Process::start(&mut command).finish().success();
    for name in ["a", "b"] {
        let path = output(&directory);
        export(&host, &["--overwrite", &format!("--app={name}")], &path).success();
        assert_eq!(Archive::read(&path).entries["rootfs/mine"].content, format!("{name}\n").as_bytes());
    }
}

/// A pod that is killed has what reached its disk.
#[test]
fn what_a_killed_pod_has_synced() {
    let (host, directory) = (Host::new(), tempfile::tempdir().unwrap());
    let script = "echo synced >/synced; rm /bin/vi; sync; echo ready; while :; do head -c 100000 /dev/zero >>/growing; done";
    let mut pod = Process::start(&mut host.shell(&[], script));
    pod.wait_for_line("ready");
    pod.signal(nix::sys::signal::Signal::SIGKILL);
    pod.finish();
    let path = output(&directory);
    export(&host, &[], &path).success();
    let entries = Archive::read(&path).entries;
    assert_eq!(entries["rootfs/synced"].content, b"synced\n");
    assert!(entries.contains_key("rootfs/bin/sh") && !entries.contains_key("rootfs/bin/vi"));
}
