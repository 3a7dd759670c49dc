//! Volumes: those of the pod and those of the host.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, stage1};

/// Runs a script in busybox with these flags of the pod, which stand before it, and of the app.
fn run(host: &Host, pod: &[&str], app: &[&str], script: &str) -> Finished {
    let busybox = image(BUSYBOX);
    let rest = ["--exec=/bin/sh", "--", "-c", script];
    let arguments: Vec<&str> = [pod, &[busybox.as_str()], app, &rest].concat();
    Process::start(&mut host.run(&arguments)).finish()
}

/// A directory of the host for volumes, and its path.
pub fn directory() -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().display().to_string();
    (directory, path)
}

#[test]
fn an_empty_volume_is_shared_by_the_apps_and_ends_with_the_pod() {
    let host = Host::new();
    let busybox = image(BUSYBOX);
    let arguments = [
        "--volume=v,kind=empty,mode=1750,uid=1000,gid=2000",
        "--mount=volume=v,target=/srv/new/v",
        &busybox,
        "--name=writer",
        "--exec=/bin/sh",
        "--",
        "-c",
        "cd /srv/new/v; stat -c '%a %u %g' .; ls | wc -l; echo said >word.new; mv word.new word; until [ -e heard ]; do sleep 0.1; done",
        "---",
        &busybox,
        "--name=reader",
        "--readonly-rootfs",
        "--mount=volume=v,target=/tmp/../mnt",
        "--exec=/bin/sh",
        "--",
        "-c",
        "until [ -e /mnt/word ]; do sleep 0.1; done; cat /srv/new/v/word; touch /mnt/heard",
    ];
    let output = Process::start(&mut host.run(&arguments)).finish().success().text();
    let mut lines: Vec<&str> =
        output.lines().filter_map(|line| line.split_once(": ").map(|(_, said)| said)).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0", "1750 1000 2000", "said"], "{output}");
}

#[test]
fn what_is_read_only_cannot_be_written() {
    let host = Host::new();
    let pod = ["--volume=v,kind=empty,readOnly=true", "--mount=volume=v,target=/v"];
    let app = ["--mount=volume=v,target=/w"];
    let output = run(&host, &pod, &app, "touch /v/x 2>&1; touch /w/x 2>&1; ls /w").success().text();
    assert_eq!(output.matches("Read-only file system").count(), 2, "{output}");
}

#[test]
fn wrong_volumes_are_refused_before_anything_is_made() {
    let mut cases = vec![
        (vec!["--mount=volume=v,target=/v"], "dangling mount point"),
        (vec!["--volume=v,kind=empty", "--volume=v,kind=empty"], "stands twice"),
    ];
    let gone = vec!["--volume=v,kind=host,source=/nowhere/at/all", "--mount=volume=v,target=/v"];
    let file = vec!["--volume=v,kind=host,source=/etc/passwd", "--mount=volume=v,target=/srv"];
    cases.extend([(gone, "/nowhere/at/all"), (file, "/srv")]);
    if stage1() == "kvm" {
        let device = vec!["--volume=v,kind=host,source=/dev/null", "--mount=volume=v,target=/v"];
        cases.push((device, "--stage1=nspawn"));
    }
    for (flags, expected) in cases {
        let host = Host::new();
        let finished = run(&host, &flags, &[], "exit 0").exited(254);
        assert!(finished.stderr.contains(expected), "{flags:?}: {}", finished.stderr);
        assert!(host.pods().is_empty(), "{flags:?}");
    }
}

/// An OCI image with a volume at a directory that it fills itself.
fn image_with_volume(folder: &Path) -> String {
    let root = folder.join("rootfs");
    for directory in ["bin", "data/inner"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = Path::new(&image("rootfs")).join("bin/busybox");
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    fs::write(root.join("data/inner/file"), "from the image").unwrap();
    std::os::unix::fs::chown(root.join("data"), Some(7), Some(8)).unwrap();
    fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o2770)).unwrap();
    let points = r#"[{"name":"data","path":"/data"},{"name":"other","path":"/other"}]"#;
    let manifest = format!(
        r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/volumes",
        "labels":[{{"name":"os","value":"linux"}},{{"name":"arch","value":"amd64"}}],
        "app":{{"exec":["/bin/sh"],"user":"0","group":"0","mountPoints":{points}}}}}"#
    );
    fs::write(folder.join("manifest"), manifest).unwrap();
    let file = folder.join("volumes.aci").display().to_string();
    let tar =
        Command::new("tar").arg("-cf").arg(&file).arg("-C").arg(folder).args(["manifest", "rootfs"]).status();
    assert!(tar.unwrap().success());
    file
}

#[test]
fn a_mount_point_without_a_volume_begins_with_what_the_image_has() {
    let (folder, _) = directory();
    let (host, aci) = (Host::empty(), image_with_volume(folder.path()));
    let script = "busybox stat -c '%a %u %g' /data; busybox cat /data/inner/file; echo; busybox ls /other | busybox wc -l; \
        busybox grep -c ' /data \\| /other ' /proc/mounts; echo more >/data/new && busybox cat /data/new";
    let mut command = host.run(&[&aci, "--readonly-rootfs", "--exec=/bin/sh", "--", "-c", script]);
    let output = Process::start(&mut command).finish().success().text();
    assert_eq!(output, "2770 7 8\nfrom the image\n0\n2\nmore\n");
}

#[test]
fn directories_and_files_of_the_host() {
    let (host, (folder, source)) = (Host::new(), directory());
    fs::write(folder.path().join("file"), "host").unwrap();
    let flags = [
        &format!("--volume=all,kind=host,source={source}"),
        &format!("--volume=one,kind=host,source={source}/file,readOnly=true"),
        "--mount=volume=all,target=/all",
        "--mount=volume=one,target=/etc/one",
    ]
    .map(String::from);
    let flags = flags.each_ref().map(String::as_str);
    let script = "cat /all/file /etc/one; echo app >/all/new; echo x >/etc/one; chmod 600 /etc/one; echo";
    let finished = run(&host, &flags, &[], script).success();
    assert_eq!(finished.text(), "hosthost\n");
    assert_eq!(finished.stderr.matches("Read-only file system").count(), 2, "{}", finished.stderr);
    assert_eq!(fs::read_to_string(folder.path().join("new")).unwrap(), "app\n");
    assert_eq!(fs::read_to_string(folder.path().join("file")).unwrap(), "host");
}

#[test]
fn host_and_apps_see_what_each_of_them_writes() {
    let (host, (folder, source)) = (Host::new(), directory());
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(Path::new(&image("rootfs")).join("bin/busybox"), folder.path().join("busybox")).unwrap();
    let volume = format!("--volume=v,kind=host,source={source}");
    let busybox = image(BUSYBOX);
    let writer = "cd /v; umask 027; echo one >new; mv new word; ln word again; ln -s word link; mkdir sub; \
        until grep -q more word; do sleep 0.1; done; ./busybox cat link; : >sub/end";
    let reader = "until [ -d /w/sub ]; do sleep 0.1; done; cat /w/word; stat -c '%a %u %g %h' /w/word; \
        : >/w/heard; chown 7:8 /w/heard; chmod 4711 /w/heard; until [ -e /w/sub/end ]; do sleep 0.1; done; \
        rm -r /w/sub; ls /w";
    let arguments = [
        &volume,
        &busybox,
        "--name=writer",
        "--user=1000",
        "--group=1000",
        "--mount=volume=v,target=/v",
        "--exec=/bin/sh",
        "--",
        "-c",
        writer,
        "---",
        &busybox,
        "--name=reader",
        "--mount=volume=v,target=/w",
        "--exec=/bin/sh",
        "--",
        "-c",
        reader,
    ];
    let mut pod = Process::start(&mut host.run(&arguments));
    pod.wait_for_line("reader: 640 1000 1000 2");
    let word = folder.path().join("word");
    let is = fs::metadata(&word).unwrap();
    assert_eq!((is.uid(), is.gid(), is.mode() & 0o7777), (1000, 1000, 0o640));
    fs::write(&word, "one\nmore\n").unwrap();
    let output = pod.finish().success().text();
    let said = |name: &str| {
        let lines = output.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        lines.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(said("writer"), "one more");
    assert_eq!(said("reader"), "again busybox heard link word");
    let heard = fs::metadata(folder.path().join("heard")).unwrap();
    assert_eq!((heard.uid(), heard.gid(), heard.mode() & 0o7777), (7, 8, 0o4711));
    assert_eq!(fs::read_link(folder.path().join("link")).unwrap(), Path::new("word"));
}

/// A mount of the host's; gone with this value.
pub struct Mounted(std::path::PathBuf);

impl Mounted {
    /// A tmpfs at a directory, which is made.
    pub fn at(path: std::path::PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(Some("none"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn mounts_within_a_volume_come_along_read_only_and_later_ones_too() {
    let (host, (folder, source)) = (Host::new(), directory());
    let outer = Mounted::at(folder.path().to_owned());
    let none = None::<&str>;
    mount(none, &outer.0, none, MsFlags::MS_SHARED, none).unwrap();
    let inner = Mounted::at(folder.path().join("inner"));
    fs::write(inner.0.join("file"), "").unwrap();
    fs::create_dir(folder.path().join("later")).unwrap();
    let volume = |more: &str| format!("--volume=v,kind=host,source={source}{more}");
    let target = "--mount=volume=v,target=/v";
    let output =
        run(&host, &[&volume(",readOnly=true"), target], &[], "touch /v/inner/x; ls /v/inner").success();
    assert_eq!(output.text(), "file\n");
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    let output = run(&host, &[&volume(",recursive=false"), target], &[], "ls /v/inner").success();
    assert_eq!(output.text(), "");

    let script = "echo ready; until [ -e /v/later/file ]; do sleep 0.1; done; echo seen";
    let busybox = image(BUSYBOX);
    let volume = volume("");
    let mut command = host.run(&[&volume, target, &busybox, "--exec=/bin/sh", "--", "-c", script]);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("ready");
    let later = Mounted::at(folder.path().join("later"));
    fs::write(later.0.join("file"), "").unwrap();
    assert_eq!(pod.finish().success().text(), "seen\n");
    drop((later, inner, outer));
}

/// Whatever an image or another app makes of the path, the mount stays in the app's root.
#[test]
fn links_lead_no_volume_out_of_the_root() {
    let (host, (folder, source)) = (Host::new(), directory());
    fs::create_dir(folder.path().join("inside")).unwrap();
    symlink("../../../../../../../../../../etc", folder.path().join("inside/up")).unwrap();
    fs::write(folder.path().join("mark"), "").unwrap();
    let flags = [
        format!("--volume=links,kind=host,source={source}/inside"),
        format!("--volume=v,kind=host,source={source}"),
        "--mount=volume=links,target=/links".into(),
        "--mount=volume=v,target=/links/up/made".into(),
    ];
    let flags = flags.each_ref().map(String::as_str);
    assert_eq!(run(&host, &flags, &[], "ls /etc/made").success().text(), "inside\nmark\n");
    assert!(!Path::new("/etc/made").exists());
}

#[test]
fn a_device_of_the_host_can_be_used_as_it_is_mounted() {
    if stage1() != "nspawn" {
        return;
    }
    let (host, (folder, source)) = (Host::new(), directory());
    // /dev/net/tun: who opens it has nothing yet.
    let tun = makedev(10, 200);
    mknod(&folder.path().join("tun"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), tun).unwrap();
    let script = "(: </dev/of/host) && echo read; (: >>/dev/of/host) && echo written; \
        mknod /dev/other c 10 201 && (: </dev/other) || echo refused";
    let target = "--mount=volume=tun,target=/dev/of/host";
    for (more, expected) in [("", "read\nwritten\nrefused\n"), (",readOnly=true", "read\nrefused\n")] {
        let volume = format!("--volume=tun,kind=host,source={source}/tun{more}");
        let finished = run(&host, &[&volume, target], &[], script);
        assert_eq!(finished.text(), expected, "{}", finished.stderr);
    }
    assert!(!run(&host, &[], &[], "mknod /dev/tun c 10 200 && : </dev/tun").stderr.is_empty());
    assert_eq!(fs::metadata(folder.path().join("tun")).unwrap().rdev(), tun);
}
