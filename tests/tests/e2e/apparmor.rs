//! AppArmor profiles. Not every host has it, and the kernel of a micro-VM has none of the host's profiles; the KVM host
//! has it (`tests/kvm-host tests/suite nspawn apparmor::`).

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::harness::{BUSYBOX, Finished, Host, Process, image, stage1};

/// Reads the profile that it runs under.
const OWN: &str = "cat /proc/self/attr/current";

fn under(host: &Host, profile: &str) -> Finished {
    Process::start(&mut host.shell(&[&format!("--apparmor-profile={profile}")], OWN)).finish()
}

fn is_enabled() -> bool {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|enabled| enabled.trim() == "Y")
}

/// A profile in this host's kernel; gone with this value.
struct Profile(String);

impl Profile {
    /// With these rules, under a name that no other test has.
    fn load(rules: &str) -> Self {
        let profile = Self(format!("rkt-test-{}", std::process::id()));
        let text = format!("profile {} flags=(attach_disconnected) {{ {rules} }}\n", profile.0);
        profile.parser("--replace", &text);
        profile
    }

    fn parser(&self, action: &str, text: &str) {
        let mut parser = Command::new("/usr/sbin/apparmor_parser")
            .args([action, "--skip-cache"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(parser.wait().unwrap().success(), "{text}");
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        self.parser("--remove", &format!("profile {} {{}}\n", self.0));
    }
}

#[test]
fn a_profile_that_cannot_be_had_is_refused() {
    let host = Host::new();
    let is_vm = stage1() == "kvm";
    if is_vm || !is_enabled() {
        let why = if is_vm { "use --stage1=nspawn" } else { "no AppArmor" };
        let refused = under(&host, "unconfined").exited(254);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
        assert!(host.pods().is_empty());
        return;
    }
    assert_eq!(under(&host, "unconfined").success().text().trim(), "unconfined");
    let refused = under(&host, "rkt-has-no-such-profile").exited(254);
    assert!(refused.stderr.contains("rkt-has-no-such-profile"), "{}", refused.stderr);
}

/// The app, what it starts and what enters it; the pod's other app is not.
#[test]
fn a_profile_confines_its_app_and_whoever_enters_it() {
    if stage1() == "kvm" || !is_enabled() {
        eprintln!(
            "skipped: {}",
            if is_enabled() { "a VM has no profiles" } else { "this host has no AppArmor" }
        );
        return;
    }
    // What the default capabilities and root's numbers would allow.
    let profile = Profile::load(
        "/** mrwlkix, capability, signal, network, unix, ptrace, deny /srv/kept/** w, deny /etc/passwd r, deny capability chown,",
    );
    let (host, busybox) = (Host::new(), image(BUSYBOX));
    let attempts = "(echo x >/srv/kept/file) 2>&1; cat /etc/passwd 2>&1; touch /tmp/x; chown 5 /tmp/x 2>&1; \
        echo x >/srv/other && echo other";
    let option = format!("--apparmor-profile={}", profile.0);
    let wait = "trap 'exit 0' TERM; touch /tmp/ready; echo ready; while :; do sleep 0.1; done";
    let idle = format!("{OWN}; {attempts}; {wait}");
    let mut command = host.run(&[&busybox, "--name=bound", &option, "--exec=/bin/sh", "--", "-c"]);
    command.args([&idle, "---", &busybox, "--name=free", "--exec=/bin/sh", "--", "-c", wait]);
    let mut pod = Process::start(&mut command);
    pod.wait_for_line("bound: ready");
    let enter = |app: &str, script: &str| {
        let app = format!("--app={app}");
        Process::start(host.rkt().args(["enter", &app, &host.uuid(), "sh", "-c", script])).finish()
    };
    let entered = enter("bound", &format!("{OWN}; {attempts}")).success().text();
    let denied = "can't create /srv/kept/file: Permission denied";
    assert!(entered.starts_with(&format!("{} (enforce)", profile.0)), "{entered}");
    assert!(entered.contains(denied) && entered.ends_with("other\n"), "{entered}");
    assert!(entered.contains("can't open '/etc/passwd': Permission denied"), "{entered}");
    assert!(entered.contains("chown: /tmp/x: Operation not permitted"), "{entered}");
    let free = enter("free", &format!("until [ -e /tmp/ready ]; do sleep 0.1; done; {OWN}"));
    assert!(free.success().text().starts_with("unconfined"));
    pod.signal(Signal::SIGTERM);
    pod.finish().success();
}
