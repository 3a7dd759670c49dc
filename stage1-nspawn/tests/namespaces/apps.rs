//! What an app gets, and how its end is told.

use serde_json::json;

use crate::pod::{Pod, shell, text};

#[test]
fn exit_codes_and_signals() {
    for (script, code) in
        [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("kill -KILL $$", 137), ("kill $$", 143)]
    {
        let pod = shell(script);
        let output = pod.run();
        assert_eq!(output.status.code(), Some(code), "{script}: {}", text(&output.stderr));
        assert_eq!(pod.status("app"), code.to_string());
        assert_eq!(text(&output.stderr), "");
    }
}

#[test]
fn the_environment() {
    let section = json!({
        "exec": ["env"], "environment": [{"name": "HOME", "value": "/h"}],
        "workingDirectory": "/bin",
    });
    let output = text(&Pod::new().with("app", section).run().stdout);
    for line in ["AC_APP_NAME=app", "HOME=/h", "container=rkt", "USER=root"] {
        assert!(output.lines().any(|found| found == line), "{line} in {output}");
    }
    assert!(!output.contains("RKT_LOCK_FD") && !output.contains("CARGO"), "{output}");
}

#[test]
fn users() {
    let id = |user: &str, group: &str, groups: &[u32]| {
        let script = "echo $(id -u) $(id -g) $(id -G); grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status";
        let section = json!({"exec": ["/bin/sh", "-c", script], "user": user, "group": group, "supplementaryGIDs": groups});
        text(&Pod::new().with("app", section).run().stdout)
    };
    let capabilities = |set: &str| {
        let sets = [("Inh", "0000000000000000"), ("Prm", set), ("Eff", set), ("Amb", "0000000000000000")];
        sets.map(|(name, set)| format!("Cap{name}:\t{set}\n")).concat()
    };
    let none = capabilities("0000000000000000");
    assert_eq!(id("web", "www", &[7, 8]), format!("33 34 34 7 8\n{none}"));
    assert_eq!(id("1000", "1001", &[]), format!("1000 1001 1001\n{none}"));
    assert_eq!(id("/etc/passwd", "root", &[]), format!("0 0 0\n{}", capabilities("00000000a80425fb")));
}

#[test]
fn namespaces_and_file_systems() {
    let script = "hostname; echo $$; cat /proc/self/cgroup | cut -d: -f3 | grep -c -v '^/$'; ls -A /dev | tr '\\n' ' ' 2>/dev/null
        stat -c %a /tmp /dev/shm /run; echo x > /dev/null && echo y > /written && cat /written; ls /proc/self/fd | wc -l 2>/dev/null";
    let pod = shell(script);
    let output = pod.run();
    let output = text(&output.stdout);
    let mut lines = output.lines();
    assert_eq!(lines.next().unwrap(), format!("rkt-{}", pod.uuid));
    assert!(lines.next().unwrap().parse::<u32>().unwrap() < 20, "its own process numbers: {output}");
    assert!(output.contains("1777\n1777\n755\ny\n"), "{output}");
    assert_eq!(std::fs::read_to_string(pod.path("overlay/app/upper/written")).unwrap(), "y\n");
    assert!(!pod.tree("app").join("written").exists(), "the image stays as it is");
}

#[test]
fn no_descriptor_of_the_host_but_the_standard_streams() {
    let output = shell("ls -l /proc/self/fd").run();
    let output = text(&output.stdout);
    // ls itself has the directory open.
    assert_eq!(output.lines().filter(|line| line.starts_with('l')).count(), 4, "{output}");
}

#[test]
fn an_image_in_a_file() {
    let pod = shell("echo changed > /etc/passwd; cat /etc/passwd /etc/group").pack("app");
    let output = pod.run();
    assert_eq!(text(&output.stdout), "changed\nroot:x:0:\nwww:x:34:\n", "{}", text(&output.stderr));
}

#[test]
fn a_read_only_root() {
    let pod = shell("touch /x || echo refused; touch /tmp/x; echo $? > /dev/null; ls /proc/1/status");
    let manifest = std::fs::read_to_string(pod.path("pod")).unwrap();
    let manifest = manifest.replacen(r#""name":"app""#, r#""name":"app","readOnlyRootFS":true"#, 1);
    std::fs::write(pod.path("pod"), manifest).unwrap();
    let output = pod.run();
    assert_eq!(text(&output.stdout), "refused\n/proc/1/status\n", "{}", text(&output.stderr));
}

#[test]
fn event_handlers() {
    let section = |pre: &str| {
        json!({
            "exec": ["/bin/sh", "-c", "echo main $(id -u); exit 3"], "user": "33",
            "eventHandlers": [
                {"name": "pre-start", "exec": ["/bin/sh", "-c", format!("echo pre $(id -u); {pre}")]},
                {"name": "post-stop", "exec": ["/bin/sh", "-c", "echo post $(id -u) $AC_APP_NAME; ls /bin/busybox"]},
            ],
        })
    };
    let output = Pod::new().with("app", section("true")).run();
    assert_eq!(
        text(&output.stdout),
        "pre 0\nmain 33\npost 0 app\n/bin/busybox\n",
        "{}",
        text(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(3));

    let output = Pod::new().with("app", section("exit 9")).run();
    assert_eq!(text(&output.stdout), "pre 0\npost 0 app\n/bin/busybox\n");
    assert!(text(&output.stderr).contains("exited with status 9"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(254));
}

#[test]
fn what_cannot_be_started_says_why() {
    let cases = [
        (json!({"exec": ["/bin/nope"]}), "\"/bin/nope\": it is not in the image"),
        (json!({"exec": ["nope"]}), "cannot find \"nope\" in the image"),
        (json!({"exec": ["/etc/passwd"]}), "it is not executable"),
        (json!({"exec": ["/etc"]}), "it is a directory"),
        (json!({"exec": ["true"], "workingDirectory": "/gone"}), "working directory /gone"),
        (json!({"exec": ["true"], "user": "nobody"}), "user \"nobody\" is not in the image's /etc/passwd"),
        (json!({"exec": ["true"], "group": "/gone"}), "cannot find the group that owns /gone"),
    ];
    for (section, expected) in cases {
        let pod = Pod::new().with("app", section);
        let output = pod.run();
        let stderr = text(&output.stderr);
        assert!(
            stderr.starts_with("stage1: cannot start app \"app\"\n  └─") && stderr.contains(expected),
            "{stderr}"
        );
        assert_eq!((output.status.code(), pod.status("app").as_str()), (Some(254), "254"));
    }
}

#[test]
fn an_interpreter_that_is_missing() {
    let pod = Pod::new().with("app", json!({"exec": ["/bin/script"]}));
    let script = pod.tree("app").join("bin/script");
    std::fs::write(&script, "#!/no/such/shell\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let stderr = text(&pod.run().stderr);
    assert!(stderr.contains("needs \"/no/such/shell\", which is not in the image"), "{stderr}");
}
