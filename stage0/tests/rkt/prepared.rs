//! Pods that are made first and run later.

use std::fs;

use crate::archive::Archive;
use crate::host::{Host, is_root};

fn image(host: &Host) -> String {
    host.image("image.aci", &Archive::good().end())
}

/// A host with a prepared pod, and its UUID.
fn prepared(flags: &[&str]) -> (Host, String) {
    let host = Host::new();
    let image = image(&host);
    let line = [&["prepare"], flags, &[image.as_str(), "--", "x"]].concat();
    let uuid = host.rkt(&line).success().stdout.trim().to_owned();
    assert_eq!(host.pods("prepared").concat(), uuid);
    (host, uuid)
}

#[test]
fn a_prepared_pod_is_run_once() {
    if !is_root() {
        return;
    }
    let (host, uuid) = prepared(&[]);
    let status = host.rkt(&["status", &uuid]).success().stdout;
    assert!(status.starts_with("state=prepared\ncreated="), "{status}");
    assert!(host.rkt(&["list"]).success().stdout.contains("prepared"));
    assert!(host.rkt(&["cat-manifest", &uuid]).success().stdout.contains("\"x\""));
    host.rkt(&["gc", "--grace-period=0s"]).success();
    let finished =
        host.rkt(&["--insecure-options=seccomp", "run-prepared", "--net=host", "--hostname=web", &uuid[..8]]);
    assert_eq!(finished.code, 7, "{}", finished.stderr);
    let directory = host.data().join("pods/run").join(&uuid);
    let expected = format!(
        "arguments: --net=host --local-config=/etc/rkt --hostname=web --disable-seccomp {uuid}\n\
         directory: {path}\nlock: {path}\n",
        path = directory.display()
    );
    assert!(finished.stdout.starts_with(&expected), "{}", finished.stdout);
    assert!(host.pods("prepared").is_empty());
    host.rkt(&["run-prepared", &uuid]).refused(&["run-prepared: ", "is not prepared: it is exited"]);
}

#[test]
fn what_prepare_prints_and_writes() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (path, save) = (image(&host), host.path("uuid"));
    let save_flag = format!("--uuid-file-save={}", save.display());
    let loud = host.rkt(&["prepare", &save_flag, &path]).success();
    assert_eq!(fs::read_to_string(&save).unwrap(), loud.stdout.trim());
    assert!(loud.stderr.contains("rkt run-prepared"));
    assert!(host.rkt(&["prepare", "--quiet", &path]).success().stderr.is_empty());
    let file = format!("--uuid-file={}", save.display());
    assert_eq!(host.rkt(&["run-prepared", &file]).code, 7);
    host.rkt(&["rm", &file]).success();
    assert_eq!((host.pods("prepared").len(), host.pods("run").len()), (1, 0));
}

#[test]
fn prepared_pods_are_removed_and_expire() {
    if !is_root() {
        return;
    }
    let (host, uuid) = prepared(&[]);
    host.rkt(&["rm", &uuid]).success();
    assert!(host.pods("prepared").is_empty() && host.pods("garbage").is_empty());
    let kept = host.rkt(&["prepare", &image(&host)]).success().stdout;
    host.rkt(&["gc", "--expire-prepared=1h"]).success();
    assert_eq!(host.pods("prepared"), [kept.trim()]);
    let collected = host.rkt(&["gc", "--expire-prepared=0s"]).success().stdout;
    assert!(collected.contains(kept.trim()), "{collected}");
    assert!(host.pods("prepared").is_empty() && host.pods("garbage").is_empty());
}

#[test]
fn what_cannot_run_stays_prepared() {
    if !is_root() {
        return;
    }
    let volume = tempfile::tempdir().unwrap();
    let flag = format!("--volume=v,kind=host,source={}", volume.path().display());
    let (host, uuid) = prepared(&[&flag, "--mount=volume=v,target=/v"]);
    let refused = |flags: &[&str], words: &[&str]| {
        host.rkt(&[&["run-prepared"], flags, &[uuid.as_str()]].concat()).refused(words);
        assert_eq!(host.pods("prepared").concat(), uuid);
    };
    refused(&["--net=lan"], &["networks not found: lan"]);
    refused(&["--interactive"], &["terminal"]);
    drop(volume);
    refused(&[], &["volume \"v\""]);
    fs::remove_file(host.path("bin/stage1-nspawn")).unwrap();
    refused(&[], &["init"]);
}

#[test]
fn a_failing_exec_leaves_it_prepared() {
    if !is_root() {
        return;
    }
    let (host, uuid) = prepared(&[]);
    host.install("stage1-nspawn", "#!/no/such/interpreter\n");
    host.rkt(&["run-prepared", &uuid]).refused(&["cannot execute", "stage1/rootfs/init"]);
    assert_eq!(host.pods("prepared"), [uuid]);
}

#[test]
fn one_of_many_runs_it() {
    if !is_root() {
        return;
    }
    let (host, uuid) = prepared(&[]);
    let start = || {
        let mut command = host.command(&["run-prepared", &uuid]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().unwrap()
    };
    let runs: Vec<_> = (0..8).map(|_| start()).collect();
    let runs = runs.into_iter().map(|run| crate::host::finished(run.wait_with_output().unwrap()));
    let codes: Vec<i32> = runs.map(|run| run.code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 7).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [7, 254].contains(code)), "{codes:?}");
}

#[test]
fn nothing_is_made_for_what_cannot_be_prepared() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let path = image(&host);
    for (arguments, word) in [
        (&["--insecure-options=image,paths", "prepare", &path][..], "run-prepared"),
        (&["prepare", "--stage1=kvm", &path], "stage1-kvm"),
        (&["prepare", "--port=web:80", &path], "\"web\""),
        (&["prepare", &path, "--exec=/bin/nothing"], "/bin/nothing"),
        (&["prepare", "nothing"], "matches nothing"),
    ] {
        host.rkt(arguments).refused(&["prepare: ", word]);
        for place in ["embryo", "prepare", "prepared"] {
            assert!(host.pods(place).is_empty(), "{arguments:?}");
        }
    }
}
