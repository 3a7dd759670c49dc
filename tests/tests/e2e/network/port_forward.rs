//! Ports of the host that lead to what listens on a pod's own loopback (`rkt port-forward`).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::assert_echoed;
use super::world::World;
use crate::harness::Process;

/// Says what it hears, to each of its connections.
const ECHOES: &str = "nc -ll -p 8000 -e /bin/cat & \
    until netstat -ltn | grep -q :8000; do sleep 0.1; done; echo ready; wait";
/// More than all buffers on the way hold.
const BYTES: usize = 2 << 20;
const AT_ONCE: usize = 20;

fn port_forward(world: &World, flags: &[&str], ports: &[&str]) -> Command {
    let mut command = world.rkt();
    command.args(flags).arg("port-forward").arg(world.host.uuid()).args(ports);
    command
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    stream
}

#[test]
fn ports_lead_to_the_pods_own_loopback() {
    World::run(|world| {
        let mut pod = world.start("--net=none", ECHOES);
        pod.wait_for_line("ready");
        let ports = ["8080:8000", "127.0.0.1:8081:8000", "8082:9"];
        let mut forwarder = Process::start(&mut port_forward(world, &["--debug"], &ports));
        forwarder.wait_for_line("Forwarding 127.0.0.1:8080 to port 8000 of the pod");
        let sent: Vec<u8> = (0..BYTES).map(|n| (n % 251) as u8).collect();
        for address in ["127.0.0.1:8080", "[::1]:8080", "127.0.0.1:8081"] {
            assert_echoed(connect(address), &sent);
        }
        // Many at once, of which each is there for itself.
        let mut streams: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect("127.0.0.1:8080")).collect();
        for (number, stream) in streams.iter_mut().enumerate().rev() {
            stream.write_all(&[number as u8]).unwrap();
            let mut answer = [0];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(usize::from(answer[0]), number);
        }
        drop(streams);
        // Nothing listens there.
        assert!(matches!(connect("127.0.0.1:8082").read(&mut [0]), Ok(0) | Err(_)));

        let taken = world.finish(&mut port_forward(world, &[], &["8080:8000"])).exited(254);
        assert!(taken.stderr.contains("127.0.0.1:8080: the port is in use"), "{}", taken.stderr);

        forwarder.signal(Signal::SIGTERM);
        let told = forwarder.finish().exited(-(Signal::SIGTERM as i32)).stderr;
        assert!(told.contains("cannot connect to 127.0.0.1:9"), "{told}");
        assert!(told.contains("a connection from 127.0.0.1:"), "{told}");

        let mut forwarder = Process::start(&mut port_forward(world, &[], &["8083:8000"]));
        forwarder.wait_for_line("Forwarding 127.0.0.1:8083 to port 8000 of the pod");
        let mut held = connect("127.0.0.1:8083");
        held.write_all(b"x").unwrap();
        held.read_exact(&mut [0]).unwrap();
        pod.signal(Signal::SIGTERM);
        pod.finish();
        assert!(matches!(held.read(&mut [0]), Ok(0) | Err(_)), "it ends with the pod");
        assert!(forwarder.finish().success().text().ends_with("The pod has ended\n"));
        let ended = world.finish(&mut port_forward(world, &[], &["8080:8000"])).exited(254);
        assert!(ended.stderr.contains("not running"), "{}", ended.stderr);
    });
}
