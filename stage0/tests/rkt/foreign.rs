//! Stage1s of somebody's: an image whose programs only tell how they were called, for every interface version.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::archive::{Archive, MANIFEST};
use crate::host::{Finished, Host, is_root};
use crate::pods::lock;

/// Every program of the stub. `run` exits with 7; what `fail` names fails.
const PROGRAM: &str = r#"#!/bin/sh
echo "program: $0"
echo "arguments: $*"
echo "directory: $(pwd)"
echo "environment: $(env | cut -d= -f1 | grep -v -x -e _ -e PWD -e SHLVL -e OLDPWD | sort | tr '\n' ' ')"
echo "lock: $(readlink /proc/self/fd/"${RKT_LOCK_FD:-none}")"
echo "to enter: $RKT_STAGE1_ENTERCMD $RKT_STAGE1_ENTERPID $RKT_STAGE1_ENTERAPP"
name=${0##*/}
test ! -e fail-"$name" || exit "$(cat fail-"$name")"
case $name in init | enter) exit 7 ;; esac
"#;

const ENTRYPOINTS: [(&str, &str); 9] = [
    ("run", "init"),
    ("enter", "enter"),
    ("gc", "gc"),
    ("stop", "stop"),
    ("attach", "attach"),
    ("app/add", "app-add"),
    ("app/start", "app-start"),
    ("app/stop", "app-stop"),
    ("app/rm", "app-rm"),
];

/// The image of a stub, of an interface version.
fn stub(host: &Host, version: u32) -> String {
    let annotations = ENTRYPOINTS
        .map(|(name, file)| format!(r#"{{"name":"coreos.com/rkt/stage1/{name}","value":"/bin/{file}"}}"#));
    let manifest = format!(
        r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/stub",
        "labels":[{{"name":"os","value":"linux"}},{{"name":"arch","value":"amd64"}},{{"name":"version","value":"{version}"}}],
        "annotations":[{},{{"name":"coreos.com/rkt/stage1/interface-version","value":"{version}"}}]}}"#,
        annotations.join(",")
    );
    let files = ENTRYPOINTS.map(|(_, file)| format!("rootfs/bin/{file}"));
    let archive =
        files.iter().fold(Archive::aci(&manifest), |archive, file| archive.file(file, PROGRAM.as_bytes()));
    host.image(&format!("stub-{version}.aci"), &archive.end())
}

fn app(host: &Host) -> String {
    host.image("image.aci", &Archive::good().file("rootfs/etc/motd", b"hi").end())
}

/// Runs a pod with the stub, which ends at once.
fn run(host: &Host, version: u32, flags: &[&str]) -> (Finished, PathBuf) {
    let stage1 = format!("--stage1-path={}", stub(host, version));
    let finished = host.rkt(&[&["run", &stage1], flags, &[app(host).as_str()]].concat());
    assert_eq!(finished.code, 7, "{}{}", finished.stdout, finished.stderr);
    let pods = host.pods("run");
    (finished, host.data().join("pods/run").join(pods.first().unwrap()))
}

fn uuid(pod: &Path) -> &str {
    pod.file_name().unwrap().to_str().unwrap()
}

#[test]
fn every_version_is_called_by_what_it_knows() {
    if !is_root() {
        return;
    }
    for version in 1..=6 {
        let host = Host::new();
        let (finished, pod) = run(&host, version, &["--debug", "--net=lan"]);
        let (directory, uuid) = (pod.display(), uuid(&pod));
        let hostname = if version > 1 { format!("--hostname=rkt-{uuid} ") } else { String::new() };
        let expected = format!(
            "program: {directory}/stage1/rootfs/bin/init\n\
             arguments: --debug --net=lan --local-config=/etc/rkt {hostname}{uuid}\ndirectory: {directory}\n"
        );
        assert!(finished.stdout.starts_with(&expected), "{}", finished.stdout);
        assert!(finished.stdout.contains(&format!("lock: {directory}\n")), "{}", finished.stdout);
        for variable in ["RKT_LOCK_FD", "RKT_SELINUX_CONTEXT", "RKT_SELINUX_MOUNT_CONTEXT", "PATH"] {
            assert!(finished.stdout.contains(&format!(" {variable} ")), "{}", finished.stdout);
        }
        assert!(!finished.stdout.contains("RKT_SOCKETS") && !finished.stdout.contains("RKT_TIMELINE"));
        host.rkt(&["list"]).success();

        let config = if version > 4 { "--local-config=/c " } else { "" };
        let collected = host.rkt(&["--local-config=/c", "gc", "--grace-period=0s"]).success().stdout;
        assert!(collected.contains(&format!("arguments: {config}{uuid}\n")), "{collected}");
        assert!(host.pods("run").is_empty() && host.pods("exited-garbage").is_empty());
    }
}

#[test]
fn what_a_version_does_not_know_is_refused() {
    if !is_root() {
        return;
    }
    let flags: [(u32, &[&str], &str); 5] = [
        (2, &["--hostname=web"], "--hostname=web"),
        (3, &["--insecure-options=image,paths"], "--disable-paths"),
        (4, &["--dns=none"], "--dns-conf-mode=resolv=none,hosts=default"),
        (5, &[], "--mutable"),
        (6, &["--ipc=private"], "--ipc=private"),
    ];
    let host = Host::new();
    let app = app(&host);
    for version in 1..=6 {
        let stage1 = format!("--stage1-path={}", stub(&host, version));
        for (since, flags, word) in &flags {
            let line = match *word {
                "--mutable" => vec!["app", "sandbox", &stage1],
                _ => [&["run", &stage1], *flags, &[app.as_str()]].concat(),
            };
            let finished = host.rkt(&line);
            if version >= *since {
                assert_eq!(finished.code, 7, "{version}, {line:?}: {}", finished.stderr);
                assert!(finished.stdout.contains(&format!(" {word} ")), "{}", finished.stdout);
            } else {
                let (has, came) =
                    (format!("interface version is {version}"), format!("came with version {since}"));
                // As all errors of app sandbox.
                assert_eq!(finished.code, if *word == "--mutable" { 1 } else { 254 }, "{line:?}");
                for word in [word, "example.com/stub", &has, &came] {
                    assert!(finished.stderr.contains(word), "{word}: {}", finished.stderr);
                }
            }
        }
        host.rkt(&["gc", "--grace-period=0s"]).success();
        assert!(host.pods("prepare").is_empty() && host.pods("embryo").is_empty());
    }
}

#[test]
fn what_is_rkts_own_is_refused() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (stage1, app) = (format!("--stage1={}", stub(&host, 6)), app(&host));
    for (flags, word) in [
        (&["--private-users"][..], "--private-users"),
        (&["--timeline"], "--timeline"),
        (&["--cgroup-parent=/machine.slice"], "--cgroup-parent"),
        (&["--cpu-template=host"], "--cpu-template"),
        (&["--mds-register", "--net=default"], "--mds-register"),
        (&["--exit-policy=until-all"], "rkt/pod/exit-policy"),
        (&["--interactive"], "terminal"),
        (&["--port=web:80"], "\"web\""),
    ] {
        host.rkt(&[&["run", &stage1], flags, &[app.as_str()]].concat()).refused(&[word]);
    }
    for (flag, word) in [
        ("--restart=always", "rkt/app/restart=always"),
        ("--kill-timeout=5s", "kill-timeout"),
        ("--kill-signal=INT", "--kill-signal=SIGINT"),
        ("--log-max-files=2", "rkt/log/max-files"),
    ] {
        host.rkt(&["prepare", &stage1, &app, flag]).refused(&[word, "example.com/stub", "rkt's own"]);
    }
    for place in ["embryo", "prepare", "prepared", "run"] {
        assert!(host.pods(place).is_empty(), "{place}");
    }
}

#[test]
fn the_pods_directory_is_upstreams() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (_, pod) = run(&host, 4, &["--hosts-entry=192.0.2.7=web", "--dns=192.0.2.53", "--hostname=h"]);
    let read =
        |name: &str| fs::read_to_string(pod.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(read("pod").contains("example.com/test"));
    assert!(read("stage1/manifest").contains("interface-version"));
    assert!(host.images().contains(&read("stage1TreeStoreID")));
    let of_app = read("appsinfo/test/manifest");
    assert_eq!((&of_app, of_app.as_str()), (&read("stage1/rootfs/opt/stage2/test/manifest"), MANIFEST));
    let rootfs = pod.join("stage1/rootfs/opt/stage2/test/rootfs");
    assert_eq!(fs::read(rootfs.join("etc/motd")).unwrap(), b"hi");
    assert_eq!(fs::read_link(rootfs.join("etc/mtab")).unwrap(), Path::new("../proc/self/mounts"));
    assert!(read("stage1/rootfs/etc/rkt-hosts").contains("192.0.2.7"));
    assert!(read("stage1/rootfs/etc/rkt-resolv.conf").contains("192.0.2.53"));
    assert_eq!((read("pod-created"), read("pod.lck")), (String::new(), String::new()));
    assert_eq!(fs::metadata(pod.join("pod.lck")).unwrap().permissions().mode() & 0o777, 0o600);
    for directory in ["stage1/rootfs/rkt/status", "stage1/rootfs/rkt/env"] {
        assert!(pod.join(directory).is_dir(), "{directory}");
    }
    // What it writes is told, and the app's tree is exported as it is then.
    fs::write(pod.join("stage1/rootfs/rkt/status/test"), "3").unwrap();
    assert!(host.rkt(&["status", uuid(&pod)]).success().stdout.contains("app-test=3"));
    fs::write(rootfs.join("written"), "x").unwrap();
    let (aci, tree) = (host.path("left.aci"), host.path("left"));
    let [aci, tree] = [&aci, &tree].map(|path| path.to_str().unwrap());
    host.rkt(&["export", uuid(&pod), aci]).success();
    let id = host.rkt(&["fetch", aci]).success().stdout;
    host.rkt(&["image", "extract", "--rootfs-only", id.trim(), tree]).success();
    assert!(host.path("left/written").exists() && host.path("left/etc/motd").exists());
}

#[test]
fn a_prepared_pod_keeps_its_stage1() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let stage1 = format!("--stage1-url=file://{}", stub(&host, 2));
    let prepared = host.rkt(&["prepare", "--quiet", &stage1, &app(&host)]).success().stdout;
    host.rkt(&["image", "gc", "--grace-period=0s"]).success();
    assert_eq!(host.images().len(), 2, "a pod uses both");
    let refused = host.rkt(&["run-prepared", "--ipc=private", prepared.trim()]);
    refused.refused(&["--ipc=private", "came with version 6"]);
    assert_eq!(host.pods("prepared"), [prepared.trim()]);
    let ran = host.rkt(&["run-prepared", "--hostname=web", prepared.trim()]);
    assert_eq!(ran.code, 7, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("arguments: --net=none --local-config=/etc/rkt --hostname=web "),
        "{}",
        ran.stdout
    );
    // It has its own, whatever becomes of the store.
    host.rkt(&["image", "rm", "example.com/stub", "example.com/test"]).success();
    host.rkt(&["rm", prepared.trim()]).success();
    host.rkt(&["image", "gc", "--grace-period=0s"]).success();
    assert!(
        host.pods("run").is_empty() && host.pods("exited-garbage").is_empty() && host.images().is_empty()
    );
}

#[test]
fn a_running_pods_entrypoints() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    for version in [4, 5] {
        let (_, pod) = run(&host, version, &[]);
        let uuid = uuid(&pod);
        let _lock = lock(&pod);
        // The parent of the process to enter, as some stage1s have it.
        let mut parent = Command::new("/bin/sh").args(["-c", "sleep 1000 & wait"]).spawn().unwrap();
        fs::write(pod.join("ppid"), parent.id().to_string()).unwrap();
        let child = wait_for_child(parent.id());
        let entered = host.rkt(&["enter", uuid, "ls", "-l"]);
        assert_eq!(entered.code, 7, "{}", entered.stderr);
        let called =
            format!("arguments: --pid={child} --appname=test -- ls -l\ndirectory: {}\n", pod.display());
        assert!(entered.stdout.contains(&called), "{}", entered.stdout);
        host.rkt(&["enter", "--privileged", uuid, "ls"]).refused(&["--privileged", "rkt's own"]);
        fs::write(pod.join("pid"), "4711\n").unwrap();
        assert!(host.rkt(&["enter", uuid, "ls"]).stdout.contains("--pid=4711 "));
        // SAFETY of the test: the shell's child is ended by its number, which nobody has waited for.
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child), nix::sys::signal::Signal::SIGKILL).unwrap();
        parent.wait().unwrap();

        let stopped = host.rkt(&["stop", "--force", uuid]).success().stdout;
        assert!(stopped.contains(&format!("arguments: --force {uuid}\n")), "{stopped}");
        fs::write(pod.join("fail-stop"), "9").unwrap();
        host.rkt(&["stop", uuid]).refused(&["could not stop", "9"]);
        let attached = host.rkt(&["attach", "--mode=list", uuid]);
        if version == 4 {
            attached.refused(&["attach", "interface version is 4", "version 5"]);
        } else {
            let attached = attached.success().stdout;
            assert!(attached.contains("arguments: --action=list --app=test --debug=false\n"), "{attached}");
            let enter = pod.join("stage1/rootfs/bin/enter");
            assert!(attached.contains(&format!("to enter: {} 4711 test\n", enter.display())), "{attached}");
            let only = "environment: PATH RKT_STAGE1_ENTERAPP RKT_STAGE1_ENTERCMD RKT_STAGE1_ENTERPID \n";
            assert!(attached.contains(only), "{attached}");
        }
        host.rkt(&["status", "--stats", uuid]).refused(&["stats"]);
        drop(_lock);
        host.rkt(&["rm", uuid]).success();
    }
}

fn wait_for_child(parent: u32) -> i32 {
    loop {
        for entry in fs::read_dir("/proc").unwrap() {
            let stat = fs::read_to_string(entry.unwrap().path().join("stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            if fields.get(1) == Some(&parent.to_string().as_str()) {
                return stat.split(' ').next().unwrap().parse().unwrap();
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn apps_come_and_go() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let stage1 = format!("--stage1={}", stub(&host, 5));
    assert_eq!(host.rkt(&["app", "sandbox", &stage1]).code, 7);
    let pod = host.data().join("pods/run").join(host.pods("run").first().unwrap());
    let (uuid, app) = (uuid(&pod), app(&host));
    let pod_lock = lock(&pod);
    fs::write(pod.join("pid"), "4711\n").unwrap();
    let called = |line: &[&str], arguments: &str| {
        let out = host.rkt(&[&["app"], line].concat()).success().stdout;
        assert!(out.contains(&format!("arguments: {arguments}\n")), "{line:?}: {out}");
        assert!(out.contains(&format!(" 4711 {}\n", "web")), "{out}");
    };
    let state = || host.rkt(&["app", "list", "--no-legend", uuid]).success().stdout;
    called(
        &["add", uuid, &app, "--name=web", "--environment=A=1"],
        &format!("--debug=false --uuid={uuid} --app=web"),
    );
    let status = pod.join("stage1/rootfs/rkt/status");
    let environment = fs::read_to_string(pod.join("stage1/rootfs/rkt/env/web")).unwrap();
    assert!(environment.contains("A=1\n") && environment.contains("AC_APP_NAME=web\n"), "{environment}");
    assert!(
        status.join("web-created").exists() && pod.join("stage1/rootfs/opt/stage2/web/rootfs/etc").is_dir()
    );
    assert!(state().contains("created"));
    host.rkt(&["app", "add", uuid, &app, "--name=web"]).refused(&["web"]);
    called(&["start", "--app=web", uuid], "--debug=false --app=web");
    assert!(state().contains("running"), "{}", state());
    called(&["stop", "--app=web", uuid], "--debug=false --app=web");
    fs::write(status.join("web"), "5").unwrap();
    assert!(state().contains("exited"));
    called(&["start", "--app=web", uuid], "--debug=false --app=web");
    assert!(!status.join("web").exists() && state().contains("running"));

    // What fails leaves things as they were.
    fs::write(pod.join("fail-app-add"), "1").unwrap();
    host.rkt(&["app", "add", uuid, &app, "--name=late"]).refused(&["could not add"]);
    assert!(!state().contains("late") && !pod.join("stage1/rootfs/opt/stage2/late").exists());
    fs::write(pod.join("fail-app-stop"), "1").unwrap();
    host.rkt(&["app", "rm", "--app=web", uuid]).refused(&["could not stop"]);
    assert!(state().contains("web"));
    // It is not running: that is how systemctl says so.
    fs::write(pod.join("fail-app-stop"), "5").unwrap();
    called(&["rm", "--app=web", uuid], "--debug=false --app=web");
    let left = ["stage1/rootfs/opt/stage2/web", "appsinfo/web", "stage1/rootfs/rkt/env/web"];
    assert!(state().is_empty() && left.iter().all(|path| !pod.join(path).exists()));
    assert!(!status.join("web-created").exists() && !status.join("web-started").exists());
    fs::remove_file(pod.join("fail-app-add")).unwrap();
    called(&["add", uuid, &app, "--name=web"], &format!("--debug=false --uuid={uuid} --app=web"));
    drop(pod_lock);
    host.rkt(&["app", "rm", "--app=web", uuid]).success();
    assert!(state().is_empty());
    host.rkt(&["rm", uuid]).success();
}

#[test]
fn a_failing_gc_keeps_the_pod_and_mounts_do_not() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (_, pod) = run(&host, 1, &[]);
    let uuid = uuid(&pod).to_owned();
    fs::write(pod.join("fail-gc"), "3").unwrap();
    host.rkt(&["rm", &uuid]).refused(&["gc of pod", "exit status 3"]);
    let pod = host.data().join("pods/exited-garbage").join(&uuid);
    fs::remove_file(pod.join("fail-gc")).unwrap();
    // Left by a stage1 that was killed.
    let kept = host.path("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "x").unwrap();
    let inside = pod.join("stage1/rootfs/opt/stage2/test/rootfs/etc");
    let bind = nix::mount::MsFlags::MS_BIND;
    let mounted = nix::mount::mount(Some(&kept), &inside, None::<&str>, bind, None::<&str>).is_ok();
    host.rkt(&["gc", "--grace-period=0s"]).success();
    assert!(!pod.exists() && kept.join("file").exists(), "mounted: {mounted}");
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&uuid), "{mounts}");
}

#[test]
fn every_way_to_name_one() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (path, app) = (stub(&host, 6), app(&host));
    let local = host.path("local");
    fs::create_dir_all(local.join("paths.d")).unwrap();
    fs::create_dir_all(local.join("stage1.d")).unwrap();
    let configure = |kind: &str, rest: &str| {
        let json = format!(r#"{{"rktKind":"{kind}","rktVersion":"v1",{rest}}}"#);
        fs::write(local.join(format!("{kind}.d/x.json")), json).unwrap();
    };
    let local_flag = format!("--local-config={}", local.display());
    let runs = |flags: &[&str]| {
        let finished = host.rkt(&[&[local_flag.as_str(), "run"], flags, &[app.as_str()]].concat());
        assert_eq!(finished.code, 7, "{flags:?}: {}", finished.stderr);
        assert!(finished.stdout.contains("/stage1/rootfs/bin/init\n"), "{flags:?}: {}", finished.stdout);
    };
    let refused = |flags: &[&str], words: &[&str]| {
        host.rkt(&[&[local_flag.as_str(), "run"], flags, &[app.as_str()]].concat()).refused(words);
    };
    refused(&["--stage1-name=example.com/stub:6"], &["example.com/stub:6", "not there yet"]);
    refused(&["--stage1-hash=sha512-00"], &["sha512-00"]);
    refused(&["--stage1-path=/nowhere.aci"], &["/nowhere.aci"]);
    refused(&["--stage1-from-dir=stub.aci"], &["/usr/lib/rkt/stage1-images/stub.aci"]);
    refused(&[&format!("--stage1={app}")], &["example.com/test", "is no stage1"]);
    assert!(!host.images().iter().any(|id| id.contains("stub")) && host.images().is_empty());
    configure("stage1", r#""name":"example.com/stub","version":"6""#);
    refused(&[], &["example.com/stub:6", "no location"]);
    configure(
        "stage1",
        r#""name":"example.com/stub","version":"6","location":"https://example.com/stub.aci""#,
    );
    refused(&[], &["https://example.com/stub.aci", "not there yet"]);
    configure("stage1", &format!(r#""name":"example.com/stub","version":"7","location":"{path}""#));
    refused(&[], &["example.com/stub:7", "example.com/stub:6"]);
    configure("stage1", &format!(r#""name":"example.com/stub","version":"6","location":"{path}""#));
    runs(&[]);
    let id = host.rkt(&["fetch", &path]).success().stdout;
    let hash = format!("--stage1-hash={}", &id[..30]);
    for flag in ["--stage1-name=example.com/stub", "--stage1=example.com/stub:6", &hash] {
        runs(&[flag]);
    }
    let (by_path, by_url) = (format!("--stage1-path={path}"), format!("--stage1-url=file://{path}"));
    runs(&[&by_path]);
    runs(&[&by_url]);
    configure("paths", &format!(r#""stage1-images":"{}""#, Path::new(&path).parent().unwrap().display()));
    runs(&["--stage1-from-dir=stub-6.aci"]);
    let ours = host.rkt(&["run", "--stage1=nspawn", &app]);
    assert!(ours.stdout.contains("timeline: unset"), "{}", ours.stdout);
}
