//! Exit statuses and where messages go.

use std::process::{Command, Stdio};

use crate::host::{Host, finish};

#[test]
fn without_a_command() {
    let finished = finish(&mut Command::new(env!("CARGO_BIN_EXE_rkt")));
    assert_eq!(finished.code, 2);
    assert!(finished.stderr.contains("missing command") && finished.stdout.is_empty());
}

#[test]
fn errors_of_the_command_line() {
    let host = Host::new();
    host.rkt(&["run", "--stage1=warp", "x"]).refused(&["run: ", "warp", "kvm", "nspawn"]);
    host.rkt(&["run", "--net=lan,host", "x"]).refused(&["run: ", "host", "stands alone"]);
    host.rkt(&["--insecure-options=everything", "list"]).refused(&["list: ", "everything", "all-run"]);
    host.rkt(&["unknown"]).refused(&["rkt: ", "unknown"]);
    host.rkt(&["image", "fetch", "x"]).refused(&["image: ", "rkt fetch"]);
    assert!(!host.data().exists());
}

/// 1 where upstream has it, 254 elsewhere.
#[test]
fn exit_statuses_of_errors() {
    let host = Host::new();
    let lines: [&[&str]; 4] = [
        &["app", "list", "00"],
        &["app", "status", "00"],
        &["status", "--uuid-file=/nowhere"],
        &["stop", "--uuid-file=/nowhere"],
    ];
    for line in lines {
        assert_eq!(host.rkt(line).code, 1, "{line:?}");
    }
    host.rkt(&["status", "00"]).refused(&["no matches"]);
    host.rkt(&["stop", "00"]).refused(&["no matches"]);
    host.rkt(&["cat-manifest", "--uuid-file=/nowhere"]).refused(&["/nowhere"]);
    host.rkt(&["app", "list"]).refused(&["UUID"]);
}

#[test]
fn the_doctor() {
    let host = Host::new();
    let finished = host.rkt(&["doctor", "--format=json"]);
    let report: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(finished.code == 0, report["nspawn"].as_bool().unwrap(), "{}", finished.stdout);
    let row = |name: &str| {
        report["rows"].as_array().unwrap().iter().find(|row| row["name"] == name).cloned().unwrap()
    };
    // There is none in this installation.
    let stage1 = row("stage1-kvm");
    assert!(stage1["ok"] == false && stage1["remedy"].is_string() && report["kvm"] == false, "{stage1}");
    for name in [
        "KVM",
        "overlayfs",
        "system call filters",
        "EROFS",
        "cgroup v2",
        "cgroup v1",
        "device policy",
        "user namespaces",
        "CNI plugins",
        "tap devices",
    ] {
        assert!(row(name)["found"].is_string(), "{name}");
    }
    assert!(!host.data().exists());
}

#[test]
fn a_reader_that_goes_away() {
    let host = Host::new();
    let mut child = host.command(&["doctor"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let finished = crate::host::finished(child.wait_with_output().unwrap());
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

#[test]
fn what_shells_complete() {
    let host = Host::new();
    for (shell, word) in [("bash", "complete -F"), ("zsh", "#compdef rkt"), ("fish", "complete -c rkt")] {
        let script = host.rkt(&["completion", shell]).success().stdout;
        assert!(script.contains(word) && script.contains("run-prepared"), "{shell}");
        assert!(script.contains("grace-period"), "{shell}");
    }
    let script = host.image("script", host.rkt(&["completion", "bash"]).success().stdout.as_bytes());
    let complete = format!(
        "source {script}; COMP_WORDS=(rkt image ver) COMP_CWORD=2; _rkt rkt ver image; echo \"${{COMPREPLY[@]}}\""
    );
    assert_eq!(finish(Command::new("bash").args(["-c", &complete])).success().stdout, "verify\n");
    let shells = format!(
        "source {script}; COMP_WORDS=(rkt completion z) COMP_CWORD=2; _rkt rkt z completion; echo \"${{COMPREPLY[@]}}\""
    );
    assert_eq!(finish(Command::new("bash").args(["-c", &shells])).success().stdout, "zsh\n");
    host.rkt(&["completion", "csh"]).refused(&["completion: ", "bash, zsh, fish"]);
}

#[test]
fn the_manual() {
    let host = Host::new();
    let directory = host.path("man");
    host.rkt(&["manual", directory.to_str().unwrap()]).success();
    let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    assert!(page("rkt.1").contains("rkt\\-run\\-prepared(1)"), "{}", page("rkt.1"));
    assert!(page("rkt-image-gc.1").contains("grace\\-period"));
}

#[test]
fn what_is_configured() {
    let host = Host::new();
    let local = host.path("etc");
    std::fs::create_dir_all(local.join("paths.d")).unwrap();
    let file = local.join("paths.d/data.json");
    let data = host.path("configured");
    let json = format!(r#"{{"rktKind":"paths","rktVersion":"v1","data":"{}"}}"#, data.display());
    std::fs::write(&file, json).unwrap();
    let local_flag = format!("--local-config={}", local.display());
    let rkt = |arguments: &[&str]| {
        let mut command = Command::new(host.path("bin/rkt"));
        finish(
            command
                .args(["--system-config=/nowhere", &local_flag, "--insecure-options=image"])
                .args(arguments),
        )
    };
    let printed = rkt(&["config", "--pretty-print=false"]).success().stdout;
    assert!(printed.contains(&format!("\"source\":\"{}\"", file.display())), "{printed}");
    let image = host.image("image.aci", &crate::archive::Archive::good().end());
    rkt(&["fetch", &image]).success();
    assert!(data.join("cas").is_dir());
    rkt(&["--dir", host.data().to_str().unwrap(), "fetch", &image]).success();
    assert_eq!(host.images().len(), 1);
    std::fs::create_dir(local.join("stage1.d")).unwrap();
    let stage1 = r#"{"rktKind":"stage1","rktVersion":"v1","name":"kvm"}"#;
    std::fs::write(local.join("stage1.d/kvm.json"), stage1).unwrap();
    if crate::host::is_root() {
        rkt(&["run", &image]).refused(&["there is no stage1-kvm"]);
        assert_eq!(rkt(&["run", "--stage1=nspawn", &image]).code, 7);
    }
    std::fs::write(&file, "{").unwrap();
    rkt(&["list"]).refused(&["list: ", "paths.d/data.json is not a good configuration file"]);
}

#[test]
fn subcommands_are_abbreviated_if_that_is_unambiguous() {
    let host = Host::new();
    for line in [&["vers"][..], &["lis"], &["ima", "li"], &["im", "g"]] {
        host.rkt(line).success();
    }
    for (line, word) in
        [(&["ru", "x"][..], "rkt: "), (&["st", "x"], "st"), (&["image", "e", "x", "y"], "'e'")]
    {
        host.rkt(line).refused(&[word]);
    }
}
