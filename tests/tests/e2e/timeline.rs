//! When a start reached what: printed, and drawn.

use std::fs;

use crate::harness::{BUSYBOX, Host, Process, image, stage1};

/// The texts of elements of `name`, in order.
fn texts(svg: &str, name: &str) -> Vec<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    svg.split(&open).skip(1).filter_map(|rest| rest.split(&close).next()).map(str::to_owned).collect()
}

/// That each element ends where it may, as far as XML of this kind goes.
fn assert_well_formed(svg: &str) {
    let body = svg.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n").unwrap();
    let mut open = Vec::new();
    for tag in body.split('<').skip(1).map(|rest| rest.split_once('>').unwrap_or_else(|| panic!("{rest}")).0)
    {
        match (tag.strip_prefix('/'), tag.strip_suffix('/')) {
            (Some(name), _) => assert_eq!(open.pop().as_deref(), Some(name)),
            (None, Some(_)) => {}
            (None, None) => open.push(tag.split(' ').next().unwrap().to_owned()),
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
    }
    assert!(open.is_empty(), "{open:?}");
}

/// `web started 1.234 ms`: the name and the microseconds.
fn phase(text: &str) -> (String, u64) {
    let (name, ms) = text.strip_suffix(" ms").unwrap().rsplit_once(' ').unwrap();
    (name.to_owned(), ms.replace('.', "").parse().unwrap())
}

#[test]
fn the_start_is_drawn_phase_by_phase() {
    let (host, folder, busybox) = (Host::new(), tempfile::tempdir().unwrap(), image(BUSYBOX));
    let mut command = host.run(&["--timeline=start.svg", &busybox, "--name=web", "--exec=/bin/true"]);
    let finished = Process::start(command.current_dir(folder.path())).finish().success();
    let svg = fs::read_to_string(folder.path().join("start.svg")).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half-made is left");
    assert_well_formed(&svg);

    let phases: Vec<_> = texts(&svg, "title").iter().map(|text| phase(text)).collect();
    let printed =
        finished.stderr.lines().filter_map(|line| line.strip_prefix("timeline:")?.split_once(" ms  "));
    let printed: Vec<_> = printed.map(|(_, name)| name.trim().to_owned()).collect();
    let names: Vec<_> = phases.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, printed[1..=names.len()], "all from the first mark on");
    assert_eq!(names.last().map(String::as_str), Some("web started"));
    let of_isolation = if stage1() == "kvm" { "template-entry" } else { "clone" };
    assert!(names.iter().any(|name| name == of_isolation), "{names:?}");

    let total = svg.split_once("The start of a pod: ").unwrap().1.split_once("</text>").unwrap().0;
    let sum: u64 = phases.iter().map(|(_, us)| us).sum();
    assert_eq!(phase(&format!("total {total}")).1, sum);
}

#[test]
fn nothing_runs_whose_timeline_cannot_be_drawn() {
    let (host, busybox) = (Host::new(), image(BUSYBOX));
    for (value, expected) in [("/nowhere/start.svg", "/nowhere/start.svg"), ("start.png", ".svg")] {
        let option = format!("--timeline={value}");
        let refused = Process::start(&mut host.run(&[&option, &busybox])).finish().exited(254);
        assert!(refused.stderr.contains(expected), "{}", refused.stderr);
        assert!(host.pods().is_empty());
    }
}
