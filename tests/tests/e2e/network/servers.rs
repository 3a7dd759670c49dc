//! Servers as users run them, loaded by another pod.

use nix::sys::signal::Signal;

use super::connect;
use super::world::{World, bridge};
use crate::harness::Process;

const IMAGE: &str = "servers-oci";
const SERVER: &str = "10.9.0.77";

fn pod(world: &World, net: &str, program: &str, arguments: &[&str]) -> Process {
    let mut command = world.command(net, IMAGE);
    Process::start(command.arg(format!("--exec={program}")).arg("--").args(arguments))
}

/// What one pod says that loads a server in another one.
fn loaded(port: u16, server: (&str, &[&str]), client: (&str, &[&str])) -> String {
    let mut said = String::new();
    World::run(|world| {
        world.configure("10-lan.conf", &bridge("lan", "10.9.0.0/24"));
        let server = pod(world, &format!("--net=lan:IP={SERVER}"), server.0, server.1);
        drop(connect(&format!("{SERVER}:{port}")));
        said = pod(world, "--net=lan", client.0, client.1).finish().success().text();
        server.signal(Signal::SIGTERM);
        server.finish();
    });
    said
}

#[test]
fn nginx_under_wrk() {
    let url = format!("http://{SERVER}:80/");
    let wrk = ["-t1", "-c20", "-d2s", "--timeout=60s", &url];
    let said = loaded(80, ("/usr/sbin/nginx", &[]), ("/usr/bin/wrk", &wrk));
    let requests = said.lines().find_map(|line| line.trim().split_once(" requests in"));
    assert!(requests.is_some_and(|(count, _)| count.parse::<u64>().unwrap() > 0), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
}

#[test]
fn redis_under_redis_benchmark() {
    let redis = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""];
    let benchmark = ["-h", SERVER, "-n", "2000", "-c", "20", "-t", "set,get", "--csv"];
    let said = loaded(6379, ("/usr/bin/redis-server", &redis), ("/usr/bin/redis-benchmark", &benchmark));
    for test in ["\"SET\",", "\"GET\","] {
        assert!(said.lines().any(|line| line.starts_with(test)), "{said}");
    }
}
