//! Programs as users run them.

use std::fs;

use crate::harness::{DEBIAN, Host, Process, image};

#[test]
fn pythons_own_tests_pass() {
    let host = Host::with_images(&[DEBIAN]);
    let arguments = ["--exec=/usr/bin/python3", "--", "-m", "unittest", "test.test_json"];
    let finished = Process::start(host.run(&[&image(DEBIAN)]).args(arguments)).finish().success();
    assert!(finished.stderr.contains("\nOK"), "{}", finished.stderr);
    assert!(!finished.stderr.contains("Ran 0 tests"), "{}", finished.stderr);
}

#[test]
fn metadata_is_the_same_inside_as_outside() {
    let host = Host::with_images(&[DEBIAN]);
    let arguments = ["--exec=/usr/local/bin/inventory", "--", "/srv/metadata"];
    let inside = Process::start(host.run(&[&image(DEBIAN)]).args(arguments)).finish().success().text();
    let outside = fs::read_to_string(image("metadata.txt")).unwrap();
    assert!(outside.lines().count() > 1000);
    for (inside, outside) in inside.lines().zip(outside.lines()) {
        assert_eq!(inside, outside);
    }
    assert_eq!(inside.lines().count(), outside.lines().count());
}

#[test]
fn debian_upgrades_its_own_package_database() {
    let host = Host::with_images(&[DEBIAN]);
    let script = "dpkg --configure -a && dpkg-divert --local --rename --add /etc/issue && test ! -e /etc/issue \
                  && dpkg -s bash | grep Status";
    let mut command = host.run(&[&image(DEBIAN), "--exec=/bin/sh", "--", "-ec", script]);
    assert!(Process::start(&mut command).finish().success().text().contains("install ok installed"));
}

#[test]
fn twenty_thousand_files() {
    let script = "mkdir /data && cd /data && for d in $(seq 100); do mkdir $d; for f in $(seq 200); do \
                  echo $d $f >$d/$f; done; done; find . -type f | wc -l; cat */* | sort | uniq | wc -l; \
                  cat */* | awk '{ sum += $1 * $2 } END { print sum }'; rm -r /data && ls / | grep -c data";
    let finished = Host::new().sh(script);
    assert_eq!(finished.exited(1).text(), "20000\n20000\n101505000\n0\n");
}
