//! The forms in which images come.

use std::thread;

use crate::harness::{BUSYBOX, Host, Process, image, sizes};

/// All of one busybox, so all must run alike.
const FORMS: [&str; 6] = [
    "busybox.aci",
    "busybox.aci.gz",
    "busybox.aci.xz",
    "busybox-oci",
    "busybox-oci.tar",
    "busybox-docker.tar",
];

#[test]
fn all_forms_give_the_same_app() {
    let host = Host::empty();
    for form in FORMS {
        let finished = Process::start(&mut host.run(&[&image(form)])).finish().success();
        assert_eq!(finished.text(), "hello from busybox in /srv\n", "{form}");
    }
}

#[test]
fn upper_layers_take_files_away() {
    for form in ["busybox-oci", "busybox-oci.tar", "busybox-docker.tar"] {
        let host = Host::empty();
        let script = "find /srv | sort; cat /srv/kept/file";
        let finished =
            Process::start(&mut host.run(&[&image(form), "--exec=/bin/sh", "--", "-c", script])).finish();
        let expected = "/srv\n/srv/emptied\n/srv/emptied/new\n/srv/kept\n/srv/kept/file\nupper\n";
        assert_eq!(finished.success().text(), expected, "{form}");
    }
}

#[test]
fn arguments_follow_the_entrypoint_of_an_oci_image() {
    let host = Host::empty();
    let finished =
        Process::start(&mut host.run(&[&image("busybox-oci"), "--", "echo instead in $(pwd)"])).finish();
    assert_eq!(finished.success().text(), "instead in /srv\n");
}

#[test]
fn pods_write_to_their_own_layer() {
    let host = Host::new();
    host.sh("echo mine >/srv/kept/file; rm -r /bin/vi /srv/emptied; cat /srv/kept/file").success();
    assert_eq!(host.sh("cat /srv/kept/file; ls -d /bin/vi").success().text(), "upper\n/bin/vi\n");
}

/// Pods that need the same new image, and then run side by side.
#[test]
fn eight_pods_at_once() {
    let host = Host::empty();
    let outputs: Vec<String> = thread::scope(|scope| {
        let pod = |number: usize| {
            let host = &host;
            let script = format!("sleep 1; echo pod {number}");
            let options = ["--memory=64Mi"];
            move || Process::start(&mut host.shell(&options, &script)).finish().success().text()
        };
        let pods: Vec<_> = (0..8).map(|number| scope.spawn(pod(number))).collect();
        pods.into_iter().map(|pod| pod.join().unwrap()).collect()
    });
    for (number, output) in outputs.iter().enumerate() {
        assert_eq!(output, &format!("pod {number}\n"));
    }
    assert_eq!(host.pods().len(), 8);
}

#[test]
fn an_image_is_imported_once() {
    let host = Host::empty();
    let stored = |host: &Host| sizes(&host.path().join("cas"));
    let run = || Process::start(&mut host.run(&[&image(BUSYBOX), "--exec=/bin/true"])).finish().success();
    run();
    let once = stored(&host);
    assert!(once.values().any(|bytes| *bytes > 1 << 20), "the store holds the image: {once:?}");
    run();
    assert_eq!(stored(&host), once);
}
