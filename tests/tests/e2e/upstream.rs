//! What CoreOS rkt's functional tests verify (rkt/tests, one file a row), and the tests of ours that do. `rkt/` stands for
//! `stage0/tests/rkt`, where no isolation matters. Left out is what is about systemd in the pod (`systemd_version`, `journal`), about
//! fetching from the network, which is not there (`auth`, most of `fetch`), or measures (`*_bench`).
//!
//! | upstream's | ours |
//! |---|---|
//! | `ace_validator` | [`crate::ace`] |
//! | `api_service*` | there is none: `cli::tests::what_upstream_has_and_rkt_has_not` |
//! | `app_isolator*` | `limits::`, [`shares_divide_the_time_of_a_processor`], `confinement::the_usual_file_systems` |
//! | `app_sandbox` | `sandbox::`, `life::`, `logs::` |
//! | `attach` | `attach::` |
//! | `caps*` | `confinement::capabilities_are_those_that_were_asked_for`, `ace::isolators::capabilities_that_are_retained_and_removed`, `combined::two_apps_with_different_confinement`, [`all_capabilities_if_the_user_wants_so`] |
//! | `cat_manifest` | `rkt/status::the_manifest` |
//! | `config` | `rkt/command_line::what_is_configured`, `config::tests` |
//! | `devices` | `confinement::no_disk_can_be_opened`, `every_device_if_the_user_wants_so`, `volumes::a_device_of_the_host_can_be_used_as_it_is_mounted` |
//! | `diagnostic` | `ace::execution::why_a_program_cannot_be_executed` |
//! | `dns`, `etc_hosts`, `hostname` | `names::`, `network::name_servers_of_the_network`, `confinement::a_host_name_of_its_own` |
//! | `env` | `ace::environment::variables_of_app_and_handlers`, [`variables_of_prepared_pods_and_of_commands`] |
//! | `error_output` | `errors::networks_that_are_not_there`, `stage0::main::causes_are_a_tree` |
//! | `exec` | `ace::execution::`, `prepared::what_was_prepared_runs_once` |
//! | `exit` | `exit_status::`, `apps::the_pod_exits_as_the_first_app_that_failed` |
//! | `export*` | `export::`, `export_vm::` |
//! | `fetch` | of files: `rkt/store::`, `rkt/trust::`, `cli::tests::signatures_are_of_the_images_before_them`; long ones: `terminal::a_long_import_is_shown_until_its_end` |
//! | `fly` | `fly::` |
//! | `gc*`, `rm*` | `rkt/pods::`, `rkt/prepared::prepared_pods_are_removed_and_expire`, `cleanup::`, `crash::`, and what each test here ends with |
//! | `image_cat_manifest`, `_export`, `_extract`, `_render`, `_list`, `_rm`, `_gc`, `_verify` | `rkt/images::`, `rkt/store::`, `image_store::` |
//! | `image_dependencies` | `rkt/dependencies::`, `ace::files::what_an_image_depends_on_is_below_it` |
//! | `interactive` | `terminal::a_shell_session`, [`no_terminal_unless_it_is_asked_for`] |
//! | `ipcns` | `ipc::` |
//! | `list` | `rkt/pods::`, `rkt/status::`, `network::pods_of_one_bridge_talk_and_one_of_another_does_not`, `image_store::a_running_pod_keeps_its_image` |
//! | `metadata_service` | `network::metadata::` |
//! | `mount`, `mount_overlay`, `mountns` | `volumes::`, `escapes::a_race_for_a_mount_target` |
//! | `mtab` | [`an_app_finds_its_mounts`] |
//! | `net*` | `network::` |
//! | `no_new_privs`, `seccomp` | `ace::isolators::`, `system_calls::` |
//! | `non_root`, `root_commands` | `rkt/users::` |
//! | `oom_score_adj` | [`the_kernel_knows_whom_to_kill_first`] |
//! | `os_arch` | `rkt/bad_images::manifests` |
//! | `paths` | `confinement::root_cannot_do_everything`, `the_machines_own_files_are_hidden`, `the_usual_devices` |
//! | `pid_file` | `rkt/enter::a_pod_that_has_just_begun_is_waited_for` |
//! | `prepare`, `run` | `cli::tests::`, `ace::events::handlers_run_as_root_around_the_app` |
//! | `run_pod_manifest` | `pod_manifest::`, `rkt/pod_manifest::` |
//! | `run_user_group`, `supplementary_gids` | `ace::users::` |
//! | `service_file` | `scope::a_pod_stays_in_a_delegated_unit` |
//! | `socket_activation`, `socket_proxyd` | `sockets::` |
//! | `stage1_loading` | `rkt/foreign::every_way_to_name_one` |
//! | `status`, `stop` | `lifecycle::`, `rkt/status::`, `rkt/stop::` |
//! | `trust` | `rkt/trust::` |
//! | `userns` | `private_users::` |
//! | `volume*` | `volumes::`, [`the_hosts_sysfs_as_a_volume`] |

use serde_json::json;

use crate::harness::{Aci, BUSYBOX, Entry, Host, Process, effort, image, stage1};
use crate::terminal::Session;

#[test]
fn an_app_finds_its_mounts() {
    let host = Host::new();
    let script = "readlink /etc/mtab; grep -c ' /proc ' /etc/mtab";
    assert_eq!(host.sh(script).success().text(), "../proc/self/mounts\n1\n");
    let own = Entry::program("etc/mtab", b"its own\n");
    let aci = Aci::new(json!({ "exec": ["/bin/cat", "/etc/mtab"], "user": "0", "group": "0" }), &[own]);
    assert_eq!(Process::start(&mut host.run(&[&aci.path()])).finish().success().text(), "its own\n");
}

#[test]
fn the_kernel_knows_whom_to_kill_first() {
    let host = Host::new();
    let of_flag = Process::start(&mut host.shell(&["--oom-score-adj=77"], "cat /proc/self/oom_score_adj"));
    assert_eq!(of_flag.finish().success().text(), "77\n");
    let app = json!({
        "exec": ["/bin/cat", "/proc/self/oom_score_adj"], "user": "0", "group": "0",
        "isolators": [{ "name": "os/linux/oom-score-adj", "value": 55 }],
    });
    let aci = Aci::new(app, &[]);
    assert_eq!(Process::start(&mut host.run(&[&aci.path()])).finish().success().text(), "55\n");
    let mut both = host.run(&[&aci.path(), "--oom-score-adj=66"]);
    assert_eq!(Process::start(&mut both).finish().success().text(), "66\n");
}

/// Two apps that want all of one processor, for as long as both do: they wait for each other.
#[test]
fn shares_divide_the_time_of_a_processor() {
    let host = Host::new();
    let script = "touch /both/$1; until [ -e /both/few ] && [ -e /both/many ]; do sleep 0.1; done; \
        taskset 1 sh -c 'end=$(($(date +%s) + 8)); n=0; \
        while [ $(date +%s) -lt $end ]; do n=$((n + 1)); done; echo $n'";
    let app = |name: &str, shares: &str| {
        let own = [image(BUSYBOX), format!("--name={name}"), format!("--cpu-shares={shares}")];
        let rest = ["--mount=volume=both,target=/both", "--exec=/bin/sh", "--", "-c", script, "sh", name];
        own.into_iter().chain(rest.map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut command = host.run(&["--volume=both,kind=empty,mode=0777"]);
    command.args(app("few", "128")).arg("---").args(app("many", "2048"));
    let text = Process::start(&mut command).finish().success().text();
    let turns = |name: &str| -> u32 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse().unwrap()
    };
    let (few, many) = (turns("few: "), turns("many: "));
    // Sixteen times as much, but for what the host does meanwhile: three times, or one and a half in an emulated guest, where it was two at times.
    assert!(2 * many > effort(6, 3) * few, "{text}");
}

#[test]
fn all_capabilities_if_the_user_wants_so() {
    let host = Host::new();
    let bounding = |insecure: &[&str]| {
        let mut command = host.rkt();
        command.args(insecure).args(["run", &format!("--stage1={}", stage1()), &image(BUSYBOX)]);
        command.args(["--exec=/bin/sed", "--", "-n", "s/^CapBnd:.//p", "/proc/self/status"]);
        let text = Process::start(&mut command).finish().success().text();
        u64::from_str_radix(text.trim(), 16).unwrap()
    };
    const SYS_ADMIN: u64 = 1 << 21;
    assert_eq!(bounding(&[]) & SYS_ADMIN, 0);
    let all = bounding(&["--insecure-options=image,capabilities"]);
    assert!(all & SYS_ADMIN != 0 && all.count_ones() > 30, "{all:x}");
}

#[test]
fn no_terminal_unless_it_is_asked_for() {
    let host = Host::new();
    let script = "for stream in 0 1 2; do [ -t $stream ] && echo stream $stream is one; done; echo done";
    let mut session = Session::start(host.shell(&[], script), 24, 80);
    session.expect("done\r\n");
    assert!(!session.seen().contains("is one"), "{}", session.seen());
    assert_eq!(session.finish(), 0);
    let mut session = Session::start(host.run(&["--interactive", &image(BUSYBOX), "--exec=/bin/sh"]), 24, 80);
    session.expect("# ");
    session.type_in(&format!("{script}; exit\n"));
    for stream in 0..3 {
        session.expect(&format!("stream {stream} is one\r\n"));
    }
    assert_eq!(session.finish(), 0);
}

#[test]
fn variables_of_prepared_pods_and_of_commands() {
    let host = Host::new();
    let mut prepare = host.rkt();
    prepare.args(["prepare", "--quiet", "--inherit-env", "--set-env=TWO=pod", "--set-env=THREE=pod"]);
    prepare.args([&format!("--stage1={}", stage1()), &image(BUSYBOX), "--environment=THREE=app"]);
    prepare.args(["--exec=/bin/sh", "--", "-c", "echo $ONE $TWO $THREE; exec sleep 1000"]);
    prepare.env("ONE", "caller").env("TWO", "caller");
    let uuid = Process::start(&mut prepare).finish().success().text().trim().to_owned();
    let mut pod = Process::start(host.rkt().args(["run-prepared", &uuid]).env("ONE", "too late"));
    pod.wait_for_line("caller pod app");
    let mut enter = host.rkt();
    enter.args(["enter", &uuid, "sh", "-c", "echo $ONE $TWO $THREE $FOUR"]).env("FOUR", "enterer");
    assert_eq!(Process::start(&mut enter).finish().success().text(), "caller pod app\n");
    pod.signal(nix::sys::signal::Signal::SIGKILL);
    pod.finish();
}

/// What the host has at `/sys` is in the place of the app's own.
#[test]
fn the_hosts_sysfs_as_a_volume() {
    let host = Host::new();
    let mut command = host.run(&["--volume=sys,kind=host,source=/sys,readOnly=true", &image(BUSYBOX)]);
    command.args(["--mount=volume=sys,target=/sys", "--exec=/bin/sh", "--", "-c"]);
    let script = "[ -d /sys/kernel/mm ] && [ -d /sys/power ] && ls /sys/fs | grep -c cgroup; : >/sys/x";
    let finished = Process::start(command.arg(script)).finish().exited(1);
    assert_eq!(finished.text(), "1\n");
    assert!(finished.stderr.contains("/sys/x: Read-only file system"), "{}", finished.stderr);
}
