//! Ports of the host that lead to pods.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::world::World;
use crate::harness::{BUSYBOX, Process, image, stage1};

/// busybox with a port that is called web.
fn image_with_port(directory: &Path) -> String {
    let path = directory.join("web.aci");
    let mut archive = tar::Archive::new(fs::File::open(image(BUSYBOX)).unwrap());
    let mut builder = tar::Builder::new(fs::File::create(&path).unwrap());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut header = entry.header().clone();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        if entry.path().unwrap() == Path::new("manifest") {
            let mut manifest: serde_json::Value = serde_json::from_slice(&content).unwrap();
            manifest["name"] = "example.com/web".into();
            manifest["app"]["ports"] = serde_json::json!([{"name": "web", "protocol": "tcp", "port": 8000}]);
            content = manifest.to_string().into_bytes();
            header.set_size(content.len() as u64);
            header.set_cksum();
        }
        builder.append(&header, &content[..]).unwrap();
    }
    builder.finish().unwrap();
    path.to_str().unwrap().to_owned()
}

fn start(world: &World, image: &str, port: &str, script: &str) -> Process {
    let mut command = world.command("--net", image);
    command.args([port, "--exec=/bin/sh", "--", "-c", script]);
    Process::start(&mut command)
}

/// What a connection says; the pod may need a moment to listen.
fn ask(address: &str) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5));
        let mut text = String::new();
        if stream.and_then(|mut stream| stream.read_to_string(&mut text)).is_ok_and(|count| count > 0) {
            return text;
        }
        assert!(Instant::now() < end, "nobody answers at {address}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_port_of_the_host_leads_to_the_app() {
    World::run(|world| {
        let web = image_with_port(world.host.path());
        let mut server =
            start(world, &web, "--port=web:8080", "echo ready; exec nc -ll -p 8000 -e /bin/echo hello");
        server.wait_for_line("ready");
        assert_eq!(ask("172.16.28.1:8080"), "hello\n");
        assert_eq!(ask("127.0.0.1:8080"), "hello\n");

        let uuid = world.host.pods()[0].file_name().unwrap().to_string_lossy().into_owned();
        let conflict = start(world, &web, "--port=web:127.0.0.1:8080", "true").finish().exited(254);
        assert!(conflict.stderr.contains(&uuid), "{}", conflict.stderr);

        // At one address of the host only.
        let mut other = start(
            world,
            &web,
            "--port=web:127.0.0.2:8081",
            "echo ready; exec nc -ll -p 8000 -e /bin/echo other",
        );
        other.wait_for_line("ready");
        assert_eq!(ask("127.0.0.2:8081"), "other\n");
        assert!(TcpStream::connect("127.0.0.1:8081").is_err());
        other.signal(Signal::SIGTERM);
        other.finish();
        server.signal(Signal::SIGTERM);
        server.finish();
    });
}

#[test]
fn ports_that_cannot_be_had() {
    World::run(|world| {
        let web = image_with_port(world.host.path());
        world.configure("10-lan.conf", &super::bridge("lan", "10.9.0.0/24"));
        for (net, port, expected) in [
            ("--net=none", "--port=web:80", "--net=none"),
            ("--net=lan", "--port=web:80", "portMappings"),
            ("--net", "--port=db:80", "\"db\" could not be found"),
        ] {
            let mut command = world.command(net, &web);
            let finished = world.finish(command.args([port, "--exec=/bin/true"])).exited(254);
            assert!(finished.stderr.contains(expected), "{net} {port}: {}", finished.stderr);
        }
        assert!(world.host.pods().is_empty());
    });
}

/// What cannot run for a port stays prepared, and nothing is held for it.
#[test]
fn a_prepared_pod_waits_for_its_port() {
    World::run(|world| {
        let web = image_with_port(world.host.path());
        let mut prepare = world.rkt();
        prepare.args(["prepare", "--quiet", &format!("--stage1={}", stage1()), "--port=web:8080", &web]);
        let prepared = world.finish(prepare.arg("--exec=/bin/true")).success().text().trim().to_owned();
        let run = || world.finish(world.rkt().args(["run-prepared", "--net", &prepared]));
        let mut server = start(world, &web, "--port=web:8080", "echo ready; exec sleep 1000");
        server.wait_for_line("ready");
        let held = || fs::read_dir(world.host.path().join("ports")).unwrap().count();
        assert_eq!(held(), 1);
        assert!(run().exited(254).stderr.contains("tcp port 8080 is taken by pod"));
        assert_eq!(held(), 1);
        server.signal(Signal::SIGKILL);
        server.finish();
        run().success();
        // That of the pod which was killed is found to be nobody's.
        assert_eq!(held(), 1);
    });
}
