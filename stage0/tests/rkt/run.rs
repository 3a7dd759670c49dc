//! From the command line to the exec of the stage1.

use std::fs;

use crate::archive::{Archive, MANIFEST};
use crate::host::{Host, is_root};

fn image(host: &Host) -> String {
    host.image("image.aci", &Archive::good().end())
}

#[test]
fn the_stage1_is_called_by_its_interface() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let save = host.path("uuid");
    let save_flag = format!("--uuid-file-save={}", save.display());
    let finished = host.rkt(&[
        "--debug",
        "--insecure-options=image,paths",
        "run",
        "--net=host",
        "--hostname=web",
        "--timeline",
        &save_flag,
        &image(&host),
        "--memory=64M",
        "--name=first",
        "--",
        "--net",
        "---",
        &image(&host),
    ]);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    let uuid = fs::read_to_string(&save).unwrap();
    let pod = host.data().join("pods/run").join(&uuid);
    let directory = pod.display();
    assert!(finished.stdout.contains(&format!(
        "arguments: --debug --net=host --local-config=/etc/rkt --hostname=web --disable-paths {uuid}\ndirectory: {directory}\nlock: {directory}\n"
    )), "{}", finished.stdout);
    let timeline = finished.stdout.lines().find_map(|line| line.strip_prefix("timeline: ")).unwrap();
    let times: Vec<u64> =
        timeline.split(',').map(|mark| mark.split_once('=').unwrap().1.parse().unwrap()).collect();
    assert!(times.len() == 3 && times.is_sorted(), "{timeline}");

    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(pod.join("pod")).unwrap()).unwrap();
    let names: Vec<_> = manifest["apps"].as_array().unwrap().iter().map(|app| &app["name"]).collect();
    assert_eq!(names, ["first", "test"]);
    let app = &manifest["apps"][0]["app"];
    assert_eq!(app["exec"], serde_json::json!(["/bin/app", "--net"]));
    assert_eq!(app["isolators"][0]["value"]["limit"], "64000000");
    assert!(pod.join("appsinfo/first/image.erofs").exists() && pod.join("appsinfo/test/manifest").exists());
    assert!(pod.join("stage1/rootfs/rkt/status").is_dir() && pod.join("pod-created").exists());
}

#[test]
fn nothing_is_made_for_what_cannot_run() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let path = image(&host);
    for (arguments, words) in [
        (&["run", "--interactive", &path][..], &["terminal"][..]),
        (&["run", "--stage1=kvm", "--net=host", &path], &["--net=host", "VM"]),
        (&["run", "--stage1=kvm", "--net=lan", &path], &["networks not found: lan"]),
        (&["run", "--net=lan", &path], &["networks not found: lan", "/etc/rkt/net.d"]),
        (&["run", "--port=web:80", &path], &["\"web\""]),
        (&["run", "--stage1=kvm", &path], &["stage1-kvm", "bin"]),
        (&["run", "nothing"], &["\"nothing\" matches nothing"]),
        (&["run", "/nowhere/image.aci"], &["/nowhere/image.aci"]),
        (&["run", "/dev/null"], &["/dev/null"]),
        (&["run", "--uuid-file-save=/nowhere/uuid", &path], &["/nowhere/uuid"]),
        (&["run", "--timeline=/nowhere/start.svg", &path], &["timeline", "/nowhere/start.svg"]),
        (&["run", "--stage1=fly", "--timeline=start.svg", &path], &["--timeline=start.svg", "--stage1=fly"]),
        (&["run", "--cpu-template=x86-64-v2", &path], &["--cpu-template=x86-64-v2", "--stage1=nspawn"]),
        (&["run", "--stage1=fly", "--cpu-template=host", &path], &["--cpu-template=host", "--stage1=fly"]),
        (&["run", &path, &path], &["\"test\" stands twice"]),
    ] {
        host.rkt(arguments).refused(words).refused(&["run: "]);
        assert!(host.pods("run").is_empty() && host.pods("prepare").is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_timeline_is_drawn_where_the_caller_means() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let directory = host.path("charts");
    fs::create_dir(&directory).unwrap();
    let mut command = host.command(&["run", "--timeline=start.svg", &image(&host)]);
    let output = command.current_dir(&directory).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let told = format!("drawn into: {}\n", directory.canonicalize().unwrap().join("start.svg").display());
    assert!(stdout.contains(&told), "{stdout}");
    let printed = host.rkt(&["run", "--timeline", &image(&host)]);
    assert!(printed.stdout.contains("drawn into: unset\n"), "{}", printed.stdout);
}

#[test]
fn kvm_is_never_replaced() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    host.install("stage1-kvm", "#!/bin/sh\nexit 9\n");
    let path = image(&host);
    host.rkt(&["run", "--stage1=kvm", &path]).refused(&["vmlinux", "--stage1=kvm", "make build"]);
    assert!(!host.data().exists());
}

#[test]
fn a_failing_exec_leaves_no_pod() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    host.install("stage1-nspawn", "#!/no/such/interpreter\n");
    host.rkt(&["run", &image(&host)]).refused(&["cannot execute", "stage1/rootfs/init"]);
    assert!(host.pods("run").is_empty() && host.pods("embryo").is_empty());
}

#[test]
fn isolators_are_checked_before_anything_is_made() {
    if !is_root() {
        return;
    }
    for (isolator, value, expected) in [
        ("selinux-context", r#"{"type":"t"}"#, "missing field `user`"),
        ("landlock", r#"{"read":["usr"]}"#, "absolute path"),
        ("seccomp-retain-set", r#"{"set":["raed"]}"#, "\"raed\" is not the name of a system call"),
        ("seccomp-remove-set", r#"{"set":["execve"]}"#, "cannot be started"),
        ("rlimits", r#"[{"name":"LOCKS","soft":1,"hard":1}]"#, "does not enforce"),
    ] {
        let host = Host::new();
        let isolators = format!(r#""isolators":[{{"name":"os/linux/{isolator}","value":{value}}}],"user""#);
        let manifest = MANIFEST.replace("\"user\"", &isolators);
        let path = host.image("image", &Archive::aci(&manifest).file("rootfs/bin/app", b"").end());
        host.rkt(&["run", &path]).refused(&[expected]);
        assert!(host.images().is_empty() && host.pods("run").is_empty());
    }
}
