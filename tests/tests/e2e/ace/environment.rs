//! "Execution Environment": variables and the working directory.

use serde_json::json;

use crate::harness::{Aci, Host, Process};

/// The variables that the executor must set, and the order in which the others win.
#[test]
fn variables_of_app_and_handlers() {
    let host = Host::empty();
    let show = "echo $PATH; echo $AC_APP_NAME; echo $container; echo $SHELL $USER $LOGNAME $HOME; echo $ONE $TWO $THREE \
        $FOUR $FIVE; pwd";
    let aci = Aci::new(
        json!({
            "exec": ["/bin/sh", "-c", show], "user": "0", "group": "0", "workingDirectory": "/srv/kept",
            "environment": [
                { "name": "AC_APP_NAME", "value": "not-this" },
                { "name": "TWO", "value": "image" }, { "name": "THREE", "value": "image" },
                { "name": "FOUR", "value": "image" }, { "name": "FIVE", "value": "image" },
            ],
            "eventHandlers": [
                { "name": "pre-start", "exec": ["/bin/sh", "-c", show] },
                { "name": "post-stop", "exec": ["/bin/sh", "-c", show] },
            ],
        }),
        &[],
    );
    let file = host.path().join("variables");
    std::fs::write(&file, "# of a file\n\nTHREE=file\nFOUR=file\nFIVE=file\n").unwrap();
    let file = format!("--set-env-file={}", file.display());
    let mut command =
        host.run(&["--inherit-env", &file, "--set-env=FOUR=pod", "--set-env=FIVE=pod", &aci.path()]);
    command.args(["--name=variables", "--environment=FIVE=app"]);
    command.env_clear().envs([("ONE", "caller"), ("TWO", "caller"), ("PATH", ""), ("LISTEN_FDS", "0")]);
    command.env_remove("PATH");
    let output = Process::start(&mut command).finish().success().text();
    let once = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nvariables\nrkt\n/bin/sh root root /root\n\
        caller image file pod app\n/srv/kept\n";
    assert_eq!(output, once.repeat(3), "{output}");
    // RFC 4122, version 4.
    let uuid = host.uuid();
    let groups: Vec<&str> = uuid.split('-').collect();
    assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{uuid}");
    assert!(groups[2].starts_with('4') && groups[3].starts_with(['8', '9', 'a', 'b']), "{uuid}");
}

#[test]
fn a_working_directory_that_is_not_there_is_an_error() {
    let finished = Host::new().shell(&["--working-dir=/nowhere"], "exit 0").output().unwrap();
    let stderr = String::from_utf8_lossy(&finished.stderr);
    assert!(finished.status.code() == Some(254) && stderr.contains("/nowhere"), "{stderr}");
}

#[test]
fn the_root_is_the_default_directory() {
    let app = json!({
        "exec": ["/bin/pwd"], "user": "0", "group": "0",
        "eventHandlers": [{ "name": "pre-start", "exec": ["/bin/pwd"] }],
    });
    assert_eq!(super::run(app, &[], &[]).success().text(), "/\n/\n");
}

#[test]
fn a_file_of_variables_that_is_wrong_is_an_error() {
    let host = Host::new();
    let file = host.path().join("variables");
    std::fs::write(&file, "A=1\nB\n").unwrap();
    let mut command = host.run(&[&format!("--set-env-file={}", file.display()), "busybox"]);
    let finished = Process::start(&mut command).finish().exited(254);
    assert!(finished.stderr.contains("line 2"), "{}", finished.stderr);
    assert!(host.pods().is_empty());
}
