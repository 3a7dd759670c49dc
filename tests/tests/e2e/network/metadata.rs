//! The metadata service, as pods' apps find it.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::json;

use super::world::{World, bridge};
use crate::harness::{BUSYBOX, Process, image, stage1};

/// What of the host is the service's; here it is the test's own.
const OWN: &str = "/run/rkt";
const REGISTERED: &str = "/run/rkt/metadata/pods";

/// Begins every script: asks the service for a path below the pod's.
const ASK: &str = "ask() { wget -qO- \"$@\"; echo; }; at=$AC_METADATA_URL/acMetadata/v1; ";

fn own_service(test: impl FnOnce(&World)) {
    World::run(|world| {
        fs::create_dir_all(OWN).unwrap();
        mount(Some("tmpfs"), OWN, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        test(world);
    });
}

fn start_service(world: &World) -> Process {
    let mut service = Process::start(world.rkt().arg("metadata-service"));
    service.wait_for_line(
        "metadata-service: pods are registered at /run/rkt/metadata-svc.sock and reach port 18112",
    );
    service
}

/// A script in a pod that the service knows.
fn registered(world: &World, net: &str, script: &str) -> Command {
    let mut command = world.rkt();
    command.args(["run", "--mds-register", net, &format!("--stage1={}", stage1()), &image(BUSYBOX)]);
    command.args(["--name=web", "--annotation=color=red", "--exec=/bin/sh", "--", "-c"]);
    command.arg(format!("{ASK}{script}"));
    command
}

fn left() -> usize {
    fs::read_dir(REGISTERED).unwrap().count()
}

#[test]
fn a_pod_learns_who_it_is_and_proves_it() {
    own_service(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let service = start_service(world);
        let script = "
            ask $at/pod/uuid; ask $at/apps/$AC_APP_NAME/annotations/color; ask $at/apps/web/image/id
            ask $at/pod/manifest | grep -c '\"name\":\"web\"'
            ask $at/apps/web/image/manifest | grep -c example.com/busybox
            signature=$(ask --post-data content=hello $at/pod/hmac/sign | sed 's/+/%2B/g; s/=/%3D/g')
            form=\"uuid=$(ask $at/pod/uuid)&signature=$signature\"
            ask --post-data \"content=hello&$form\" $at/pod/hmac/verify && echo verified
            wget -qO- --post-data \"content=hallo&$form\" $at/pod/hmac/verify || echo refused
            hostname; case $AC_METADATA_URL in http://10.9.0.1:18112/*) echo gateway; esac";
        let finished = world.finish(&mut registered(world, "--net=lan", script)).success();
        let text = finished.text();
        let lines: Vec<&str> = text.lines().collect();
        let [uuid, "red", id, "1", "1", "", "verified", "refused", hostname, "gateway"] = lines.as_slice()
        else {
            panic!("{text}{}", finished.stderr)
        };
        assert_eq!(format!("rkt-{uuid}"), **hostname);
        assert!(id.starts_with("sha512-"), "{id}");
        assert_eq!(left(), 0, "it is known as long as it runs");
        let pod = world.host.pods().remove(0);
        assert!(!pod.join("mds-registered").exists());
        // Who does not ask for it is told nothing.
        assert_eq!(world.sh("--net=lan", "echo [$AC_METADATA_URL]").success().text(), "[]\n");
        if stage1() != "kvm" {
            let text =
                world.finish(&mut registered(world, "--net=host", "ask $at/pod/uuid")).success().text();
            assert_eq!(text.trim().len(), 36, "{text}");
        }
        service.signal(Signal::SIGTERM);
        service.finish().success();
        assert!(!Path::new("/run/rkt/metadata-svc.sock").exists());
    });
}

#[test]
fn a_service_that_is_started_again_knows_its_pods_and_gc_ends_that() {
    own_service(|world| {
        let service = start_service(world);
        let script = "ask $at/pod/uuid; ask --post-data content=a $at/pod/hmac/sign; \
            until [ -e /go ]; do sleep 0.1; done; ask --post-data content=a $at/pod/hmac/sign; \
            ask $at/pod/uuid; echo end; sleep 1000";
        let mut pod = Process::start(&mut registered(world, "--net", &format!("{script} # {OWN}")));
        let uuid = loop {
            if let Some(pod) = world.host.pods().first() {
                break pod.file_name().unwrap().to_string_lossy().into_owned();
            }
        };
        pod.wait_for_line(&uuid);
        service.signal(Signal::SIGKILL);
        service.finish();
        let service = start_service(world);
        world.finish(world.rkt().args(["enter", &uuid, "/bin/touch", "/go"])).success();
        pod.wait_for_line(&uuid);
        pod.wait_for_line("end");

        pod.signal(Signal::SIGKILL);
        pod.finish();
        assert_eq!(left(), 1, "nobody has unregistered it");
        // Nor does it need the service for that.
        service.signal(Signal::SIGKILL);
        service.finish();
        world.gc().success();
        assert_eq!(left(), 0);
    });
}

#[test]
fn pods_that_would_not_reach_it_do_not_start() {
    own_service(|world| {
        let refused = |net: &str, expected: &str| {
            let finished = world.finish(&mut registered(world, net, "true")).exited(254);
            assert!(finished.stderr.contains(expected), "{net}: {}", finished.stderr);
        };
        refused("--net=none", "--mds-register needs a network");
        refused("--net", "rkt metadata-service");
        assert!(world.host.pods().is_empty());
        let service = start_service(world);
        let mut config = bridge("lan", "10.9.0.0/24");
        config["isGateway"] = json!(false);
        world.configure("10-lan.conf", &config);
        refused("--net=lan", "none of its networks has a gateway that is this host");
        assert_eq!(left(), 0);
        let second = world.finish(world.rkt().arg("metadata-service")).exited(254);
        assert!(second.stderr.contains("another metadata service"), "{}", second.stderr);
        service.signal(Signal::SIGTERM);
        service.finish().success();
    });
}
