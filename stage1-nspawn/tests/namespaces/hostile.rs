//! Images that want out.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::pod::{Pod, shell, text};

/// Nothing may appear in this directory of the host.
struct Target(tempfile::TempDir);

impl Target {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn is_untouched(&self) -> bool {
        fs::read_dir(self.0.path()).unwrap().next().is_none()
    }
}

#[test]
fn links_where_file_systems_are_mounted() {
    for name in ["proc", "sys", "dev", "tmp", "run", "srv"] {
        for up in ["", "../../../../../../.."] {
            let target = Target::new();
            let section = json!({
                "exec": ["/bin/sh", "-c", "echo ran"],
                "mountPoints": [{"name": "srv", "path": "/srv/made"}],
            });
            let pod = Pod::new().with("app", section);
            symlink(format!("{up}{}", target.0.path().display()), pod.tree("app").join(name)).unwrap();
            let output = pod.run();
            assert!(target.is_untouched(), "{name} -> {up}: {output:?}");
            // The link leads nowhere inside the root, and that is said.
            assert!(
                output.status.code() == Some(254) && text(&output.stderr).contains(name),
                "{name}: {output:?}"
            );
        }
    }
}

#[test]
fn links_inside_the_root_are_its_own_affair() {
    let pod = shell("ls -d /real-run/. && cat /real-proc/self/comm && echo $(stat -c %a /real-run)");
    fs::create_dir(pod.tree("app").join("real-run")).unwrap();
    fs::create_dir(pod.tree("app").join("real-proc")).unwrap();
    symlink("real-run", pod.tree("app").join("run")).unwrap();
    symlink("/real-proc", pod.tree("app").join("proc")).unwrap();
    let output = pod.run();
    assert_eq!(text(&output.stdout), "/real-run/.\ncat\n755\n", "{}", text(&output.stderr));
}

#[test]
fn a_user_database_that_never_ends_or_is_none() {
    for link in ["/dev/zero", "/proc/kmsg", "/proc/1/root/etc/passwd", "/"] {
        let pod = Pod::new().with("app", json!({"exec": ["true"], "user": "web"}));
        let passwd = pod.tree("app").join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        symlink(link, &passwd).unwrap();
        let output = pod.run();
        assert_eq!(output.status.code(), Some(254), "{link}");
        assert!(text(&output.stderr).contains("/etc/passwd"), "{}", text(&output.stderr));
    }
}

#[test]
fn a_fifo_is_no_user_database() {
    let pod = Pod::new().with("app", json!({"exec": ["true"], "user": "web"}));
    let passwd = pod.tree("app").join("etc/passwd");
    fs::remove_file(&passwd).unwrap();
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(pod.run().status.code(), Some(254));
}

#[test]
fn the_program_of_the_host_is_out_of_reach() {
    let output =
        shell("cat /proc/1/exe > /dev/null; ls -l /proc/1/exe /proc/1/root /proc/1/fd/; echo end").run();
    let stdout = text(&output.stdout);
    assert!(!stdout.contains("->") && stdout.ends_with("end\n"), "{stdout}");
}

#[test]
fn devices_of_the_image_do_not_work() {
    let pod = shell("cat /null || echo refused");
    let (node, mode) = (pod.tree("app").join("null"), nix::sys::stat::Mode::from_bits_truncate(0o666));
    let number = nix::sys::stat::makedev(1, 3);
    nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, number).unwrap();
    assert_eq!(text(&pod.run().stdout), "refused\n");
}
