//! Pods whose apps come and go: `rkt app sandbox`, `add`, `start`, `stop` and `rm`.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Aci, BUSYBOX, Finished, Host, Process, image, sizes, stage1, wait_until};

/// A running sandbox.
struct Sandbox {
    host: Host,
    pod: Process,
    uuid: String,
}

impl Sandbox {
    fn start(flags: &[&str]) -> Self {
        let host = Host::new();
        let stage1 = format!("--stage1={}", stage1());
        let pod = Process::start(host.rkt().args(["app", "sandbox", &stage1]).args(flags));
        wait_until("the pod runs", || {
            host.path().join("pods/run").read_dir().is_ok_and(|mut run| run.next().is_some())
        });
        let uuid = host.uuid();
        let sandbox = Self { host, pod, uuid };
        sandbox.rkt(&["status", "--wait-ready", &sandbox.uuid]).success();
        sandbox
    }

    fn rkt(&self, arguments: &[&str]) -> Finished {
        Process::start(self.host.rkt().args(arguments)).finish()
    }

    /// Adds a shell script.
    fn add(&self, name: &str, flags: &[&str], script: &str) -> Finished {
        let (image, name) = (image(BUSYBOX), format!("--name={name}"));
        let words =
            [&["app", "add", &self.uuid, &image, &name, "--exec=/bin/sh"], flags, &["--", "-c", script]];
        self.rkt(&words.concat())
    }

    fn app(&self, action: &str, name: &str) -> Finished {
        self.rkt(&["app", action, &self.uuid, &format!("--app={name}")])
    }

    /// The apps and their states: `NAME STATE`, a line each.
    fn apps(&self) -> String {
        let text = self.rkt(&["app", "list", "--no-legend", &self.uuid]).success().text();
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
    }

    fn directory(&self) -> PathBuf {
        self.host.path().join("pods/run").join(&self.uuid)
    }

    fn stop(self) -> (Host, Finished) {
        self.rkt(&["stop", &self.uuid]).success();
        (self.host, self.pod.finish())
    }
}

const ENDLESS: &str = "trap 'exit 0' TERM; echo here; while :; do sleep 0.1; done";

#[test]
fn apps_come_and_go_and_come_again() {
    let mut sandbox = Sandbox::start(&[]);
    assert_eq!(sandbox.apps(), "");
    let before = sizes(&sandbox.directory());
    sandbox.add("web", &[], ENDLESS).success();
    assert_eq!(sandbox.apps(), "web created\n");
    sandbox.app("start", "web").success();
    sandbox.pod.wait_for_line("web: here");
    sandbox.add("job", &[], "touch /mine; exit 3").success();
    sandbox.app("start", "job").success();
    wait_until("the job has ended", || sandbox.apps().contains("job exited"));
    // Its end ends nothing else.
    assert!(sandbox.apps().contains("web running"), "{}", sandbox.apps());
    let status = sandbox.app("status", "job").success().text();
    for line in ["state=exited\n", "\nexit_code=3\n", "\ncreated_at=", "\nstarted_at=", "\nfinished_at="] {
        assert!(status.contains(line), "{line:?}: {status}");
    }
    let uuid = sandbox.uuid.clone();
    let seen = sandbox.rkt(&["enter", "--app=web", &uuid, "/bin/sh", "-c", "ls /mine; echo $AC_APP_NAME"]);
    assert_eq!(seen.text(), "web\n");
    sandbox.app("rm", "job").success();
    assert_eq!(sandbox.apps(), "web running\n");
    sandbox.app("stop", "web").success();
    sandbox.app("start", "web").success();
    sandbox.pod.wait_for_line("web: here");
    // One that runs is ended.
    sandbox.app("rm", "web").success();
    assert_eq!(sandbox.apps(), "");
    let after = sizes(&sandbox.directory());
    let new = after.keys().filter(|path| !before.contains_key(*path)).collect::<Vec<_>>();
    assert!(new.is_empty(), "left behind: {new:?}");
    // The same name, but nothing of what had it before.
    sandbox.add("job", &[], "ls /mine 2>/dev/null || echo new").success();
    sandbox.app("start", "job").success();
    sandbox.pod.wait_for_line("job: new");
    let (_host, finished) = sandbox.stop();
    finished.success();
}

#[test]
fn what_the_user_notes_of_pod_and_apps() {
    let flags = ["--annotation=example.com/of=pod", "--user-annotation=why=a test", "--user-label=tier=all"];
    let sandbox = Sandbox::start(&flags);
    sandbox.add("web", &["--user-annotation=why=web", "--user-label=tier=front"], ENDLESS).success();
    let status = sandbox.rkt(&["status", "--format=json", &sandbox.uuid]).success().text();
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["user_annotations"], json!({ "why": "a test" }), "{status}");
    assert_eq!(status["user_labels"], json!({ "tier": "all" }), "{status}");
    assert_eq!(status["apps"][0]["user_annotations"], json!({ "why": "web" }), "{status}");
    assert_eq!(status["apps"][0]["user_labels"], json!({ "tier": "front" }), "{status}");
    let manifest = sandbox.rkt(&["cat-manifest", &sandbox.uuid]).success().text();
    assert!(manifest.contains("example.com/of"), "{manifest}");
    let twice = sandbox.add("b", &["--user-label=a=1", "--user-label=a=2"], "").exited(254).stderr;
    assert!(twice.contains("\"a\" is set twice by --user-label"), "{twice}");
    sandbox.stop().1.success();
}

#[test]
fn what_is_wrong_leaves_the_pod_as_it_was() {
    let sandbox = Sandbox::start(&["--volume=data,kind=empty"]);
    sandbox.add("web", &[], ENDLESS).success();
    sandbox.app("start", "web").success();
    let before = sizes(&sandbox.directory());
    let refused = |finished: Finished, expected: &str| {
        let stderr = finished.exited(254).stderr;
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    };
    refused(sandbox.add("web", &[], "exit 0"), "\"web\" stands twice");
    let (uuid, busybox) = (sandbox.uuid.clone(), image(BUSYBOX));
    let missing = sandbox.rkt(&["app", "add", &uuid, &busybox, "--name=a", "--exec=/no/such"]);
    refused(missing, "/no/such is not in the image");
    refused(sandbox.add("a", &["--mount=volume=none,target=/x"], ""), "volume \"none\" not found");
    refused(sandbox.add("a", &["--stdin=inherit"], ""), "--stdin=inherit");
    refused(sandbox.add("a", &["--mnt-volume=name=v,kind=host,source=/no/such,target=/x"], ""), "/no/such");
    refused(sandbox.add("a", &["--net=host"], ""), "unknown flag --net");
    refused(sandbox.rkt(&["app", "add", &uuid]), "takes one image");
    refused(sandbox.rkt(&["app", "add", &uuid, &busybox, &busybox]), "one image");
    refused(sandbox.rkt(&["app", "add", &uuid, "--name=a", &busybox]), "must follow");
    refused(sandbox.rkt(&["app", "add", "ffffffff", &busybox]), "no matches");
    let isolators =
        json!([{ "name": "resource/network-bandwidth", "value": { "default": true, "limit": "2M" } }]);
    let app = json!({ "exec": ["/bin/true"], "user": "0", "group": "0", "isolators": isolators });
    let rates = sandbox.rkt(&["app", "add", &uuid, &Aci::new(app, &[]).path(), "--name=a"]);
    let as_a_whole =
        "\"a\" asks for isolator resource/network-bandwidth with 2000000, and a pod of several apps";
    refused(rates, as_a_whole);
    refused(sandbox.app("start", "other"), "no app \"other\"");
    refused(sandbox.app("rm", "other"), "no app \"other\"");
    // Its image has a file where a volume belongs: that shows when it starts.
    sandbox.add("late", &["--mount=volume=data,target=/bin/sh"], "exit 0").success();
    refused(sandbox.app("start", "late"), "cannot start app \"late\"");
    assert!(sandbox.apps().contains("web running"), "{}", sandbox.apps());
    sandbox.app("rm", "late").success();
    let after = sizes(&sandbox.directory());
    let new = after.keys().filter(|path| !before.contains_key(*path)).collect::<Vec<_>>();
    assert!(new.is_empty(), "left behind: {new:?}");
    sandbox.stop();
}

/// A pod of `rkt run` has its apps from its beginning to its end.
#[test]
fn other_pods_do_not_change() {
    let host = Host::new();
    let mut pod = Process::start(&mut host.shell(&[], ENDLESS));
    pod.wait_for_line("here");
    let uuid = host.uuid();
    let rkt = |arguments: &[&str]| Process::start(host.rkt().args(arguments)).finish();
    for arguments in [&["app", "add", &uuid, &image(BUSYBOX), "--name=a"][..], &["app", "rm", &uuid]] {
        let stderr = rkt(arguments).exited(254).stderr;
        assert!(stderr.contains("only those of rkt app sandbox change"), "{stderr}");
    }
    rkt(&["stop", &uuid]).success();
    pod.finish().success();
    let stderr = rkt(&["app", "rm", &uuid]).exited(254).stderr;
    assert!(stderr.contains("only those of rkt app sandbox change"), "{stderr}");
}

#[test]
fn volumes_of_the_pod_and_of_an_app() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("word"), "host").unwrap();
    let host_volume = format!("--volume=data,kind=host,source={}", outside.path().display());
    let mut sandbox = Sandbox::start(&[&host_volume, "--volume=both,kind=empty"]);
    let flags = ["--mount=volume=data,target=/data", "--mount=volume=both,target=/both"];
    let script = "cat /data/word; echo; echo one > /both/from; echo guest > /data/back; sleep 1000";
    sandbox.add("one", &flags, script).success();
    sandbox.app("start", "one").success();
    sandbox.pod.wait_for_line("one: host");
    let own = "--mnt-volume=name=both,kind=empty,mode=0700,target=/own";
    let script = "cat /both/from; ls -A /own; touch /own/x; stat -c %a /own; sleep 1000";
    sandbox.add("two", &[flags[1], own], script).success();
    sandbox.app("start", "two").success();
    sandbox.pod.wait_for_line("two: one");
    sandbox.pod.wait_for_line("two: 700");
    assert_eq!(fs::read_to_string(outside.path().join("back")).unwrap(), "guest\n");
    // What the other one uses stays; what is the app's own goes.
    sandbox.app("rm", "one").success();
    let uuid = sandbox.uuid.clone();
    let seen = sandbox.rkt(&["enter", "--app=two", &uuid, "/bin/cat", "/both/from"]);
    assert_eq!(seen.success().text(), "one\n");
    sandbox.app("rm", "two").success();
    sandbox.add("two", &[flags[1], own], "cat /both/from; ls -A /own; echo end").success();
    sandbox.app("start", "two").success();
    sandbox.pod.wait_for_line("two: one");
    sandbox.pod.wait_for_line("two: end");
    sandbox.stop();
    assert_eq!(fs::read_to_string(outside.path().join("word")).unwrap(), "host", "the host's stays");
}

#[test]
fn limits_logs_and_restarts_hold_for_apps_that_come_late() {
    let sandbox = Sandbox::start(&[]);
    let flags =
        ["--memory=32Mi", "--restart=on-failure", "--stdout=log", "--user=7", "--caps-retain=CAP_KILL"];
    let script = "grep CapBnd /proc/self/status; id -u; test -e /tmp/again || { touch /tmp/again; exit 1; }; \
        echo again; tail /dev/zero; echo $?; sleep 1000";
    sandbox.add("web", &flags, script).success();
    sandbox.app("start", "web").success();
    let log = || sandbox.rkt(&["logs", "--app=web", &sandbox.uuid]).text();
    wait_until("the second run has come to its end", || log().contains("137"));
    let log = log();
    assert_eq!(log.matches("0000000000000020").count(), 2, "{log}");
    assert_eq!(log.matches("7\n").count(), 3, "{log}");
    let status = sandbox.app("status", "web").success().text();
    assert!(status.contains("restarts=1\n"), "{status}");
    let statistics = sandbox.rkt(&["status", "--stats", "--format=json", &sandbox.uuid]).success().text();
    assert!(statistics.contains("\"web\""), "{statistics}");
    sandbox.stop();
}

#[test]
fn what_the_pod_as_a_whole_may_use() {
    let mut sandbox = Sandbox::start(&["--memory=96Mi", "--cpu=1"]);
    // An app has no more than the pod has.
    sandbox.add("big", &["--memory=1Gi", "--cpu=8"], "exit 0").success();
    if stage1() == "nspawn" {
        let uuid = sandbox.uuid.clone();
        let statistics = sandbox.rkt(&["status", "--stats", &uuid]).success().text();
        assert_eq!(statistics.matches("96.0 MiB").count(), 2, "{statistics}");
    }
    sandbox.add("hog", &[], "tail /dev/zero; echo ended by $?; sleep 1000").success();
    sandbox.app("start", "hog").success();
    sandbox.pod.wait_for_line("hog: ended by 137");
    sandbox.stop();
    // A guest's kernel has all its numbers for itself.
    if stage1() == "kvm" {
        let host = Host::new();
        let refused =
            Process::start(host.rkt().args(["app", "sandbox", "--stage1=kvm", "--pids=64"])).finish();
        assert!(refused.exited(1).stderr.contains("limit its apps"), "a limit that means nothing");
        // A machine that nobody has measured has room for an app that says nothing.
        let sandbox = Sandbox::start(&[]);
        let stderr = sandbox.add("big", &["--memory=1Gi"], "exit 0").exited(254).stderr;
        assert!(stderr.contains("--memory") && stderr.contains("has 536870912"), "{stderr}");
        sandbox.stop();
        return;
    }
    let mut sandbox = Sandbox::start(&["--pids=8"]);
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done 2>/dev/null; echo unreached; sleep 1000";
    sandbox.add("forks", &[], &format!("({script}); echo forked; exec sleep 1000")).success();
    sandbox.app("start", "forks").success();
    sandbox.pod.wait_for_line("forks: forked");
    sandbox.stop();
}

/// An app may have as much as the pod, but not if another one has it already: then its limit is not to blame.
#[test]
fn an_app_that_is_killed_for_what_another_has() {
    let mut sandbox = Sandbox::start(&["--memory=96Mi"]);
    let keep = "dd if=/dev/zero of=/dev/shm/kept bs=1M count=60 2>/dev/null; echo has kept; sleep 1000";
    sandbox.add("keeper", &[], keep).success();
    sandbox.app("start", "keeper").success();
    sandbox.pod.wait_for_line("keeper: has kept");
    sandbox.add("hog", &[], "tail /dev/zero; echo ended by $?").success();
    sandbox.app("start", "hog").success();
    sandbox.pod.wait_for_line("hog: ended by 137");
    wait_until("the app has ended", || sandbox.apps().contains("hog exited"));
    let stderr = sandbox.stop().1.stderr;
    let told = "app \"hog\" ran out of memory: the kernel has killed 1 of its processes, within its limit, since the pod as a whole had";
    assert!(stderr.contains(told), "{stderr}");
}

/// What an app has left ends with it, its handler runs, and no process of it is there when it is gone.
#[test]
fn an_apps_end_is_the_end_of_all_it_has_started() {
    let app = json!({
        "exec": ["/bin/sh", "-c", "setsid sleep 4321 & echo main"], "user": "0", "group": "0",
        "eventHandlers": [{"name": "post-stop", "exec": ["/bin/sh", "-c", "echo after; ps | grep -c '[4]321'"]}],
    });
    let aci = Aci::new(app, &[]);
    let mut sandbox = Sandbox::start(&[]);
    let (uuid, path) = (sandbox.uuid.clone(), aci.path());
    sandbox.rkt(&["app", "add", &uuid, &path, "--name=web"]).success();
    sandbox.app("start", "web").success();
    for line in ["web: main", "web: after", "web: 0"] {
        sandbox.pod.wait_for_line(line);
    }
    sandbox.app("rm", "web").success();
    sandbox.stop();
}

#[test]
fn apps_leave_pods_that_have_ended() {
    let sandbox = Sandbox::start(&[]);
    for name in ["one", "two"] {
        sandbox.add(name, &["--mnt-volume=name=v,kind=empty,target=/v"], "touch /v/x; exit 0").success();
        sandbox.app("start", name).success();
    }
    let uuid = sandbox.uuid.clone();
    let (host, finished) = sandbox.stop();
    finished.success();
    let rkt = |arguments: &[&str]| Process::start(host.rkt().args(arguments)).finish();
    rkt(&["app", "rm", "--app=one", &uuid]).success();
    assert_eq!(rkt(&["app", "list", "--no-legend", &uuid]).success().text(), "two  exited\n");
    let appsinfo = host.pods()[0].join("appsinfo");
    assert_eq!(appsinfo.read_dir().unwrap().count(), 1);
}

/// Root of such a pod mounts nothing of an app's root by itself, and still the app has one.
#[test]
fn in_a_user_namespace() {
    if stage1() == "kvm" {
        // There is none: `private_users` has that.
        return;
    }
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "").unwrap();
    let mut sandbox = Sandbox::start(&["--private-users"]);
    let idmapped =
        format!("--mnt-volume=name=v,kind=host,source={},target=/v,idmap=true", outside.path().display());
    let own = "--mnt-volume=name=e,kind=empty,target=/e,uid=5";
    let script = "cat /proc/self/uid_map | tr -s ' ' | grep -q ' 0 0 ' || echo shifted; test -e /v/file || : >/v/file; \
        stat -c %u /bin/busybox /v/file /e | tr '\\n' ' '; touch /v/new; touch /new && echo; echo done; sleep 1000";
    // Not every file system can be shifted: tmpfs since Linux 6.3.
    let probe = sandbox.add("web", &[&idmapped, own], script);
    let is_shifted = probe.code == 0;
    assert!(is_shifted || probe.stderr.contains("idmapped"), "{}", probe.stderr);
    let volume = if is_shifted { idmapped.as_str() } else { "--mnt-volume=name=v,kind=empty,target=/v" };
    if is_shifted {
        sandbox.app("rm", "web").success();
    }
    for _ in 0..2 {
        sandbox.add("web", &[volume, own], script).success();
        sandbox.app("start", "web").success();
        for line in ["web: shifted", "web: 0 0 5 ", "web: done"] {
            sandbox.pod.wait_for_line(line);
        }
        sandbox.app("rm", "web").success();
    }
    if is_shifted {
        assert_eq!(fs::metadata(outside.path().join("new")).unwrap().uid(), 0);
    }
    sandbox.stop();
}

/// After a kill nothing of apps that came late is left; the harness looks.
#[test]
fn a_killed_sandbox_leaves_nothing() {
    let mut sandbox = Sandbox::start(&[]);
    sandbox.add("web", &["--mnt-volume=name=v,kind=empty,target=/v"], ENDLESS).success();
    sandbox.app("start", "web").success();
    sandbox.pod.wait_for_line("web: here");
    let Sandbox { host, pod, uuid } = sandbox;
    Process::start(host.rkt().args(["stop", "--force", &uuid])).finish().success();
    assert_eq!(pod.finish().code, -9);
    Process::start(host.rkt().args(["status", "--wait", &uuid])).finish().success();
}

#[test]
fn a_volume_cannot_lead_out_of_an_apps_root() {
    let outside = tempfile::tempdir().unwrap();
    symlink("/", outside.path().join("link")).unwrap();
    let mut sandbox = Sandbox::start(&[]);
    let volume = format!("--mnt-volume=name=v,kind=host,source={},target=/v", outside.path().display());
    if stage1() == "kvm" {
        // The machine has what it was made with.
        let stderr = sandbox.add("web", &[&volume], "").exited(254).stderr;
        assert!(stderr.contains("rkt app sandbox --volume"), "{stderr}");
        assert_eq!(sandbox.apps(), "");
        sandbox.stop();
        return;
    }
    // What is at the link is the app's root, not the host's.
    sandbox.add("web", &[&volume], "ls /v/link/bin/busybox; test -e /v/link/boot || echo inside").success();
    sandbox.app("start", "web").success();
    sandbox.pod.wait_for_line("web: /v/link/bin/busybox");
    sandbox.pod.wait_for_line("web: inside");
    sandbox.stop();
}
