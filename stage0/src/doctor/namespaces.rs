//! What `--stage1=nspawn` needs.

use std::path::Path;

use pod::seccomp::KERNEL_TAKES_FILTERS;

use super::{Need, Row};
use crate::cli::Stage1;
use crate::host::{self, Erofs, Kernel};
use crate::users;

pub fn rows(kernel: &Kernel) -> Vec<Row> {
    vec![
        root(),
        stage1(),
        fly(),
        namespaces(),
        overlay(kernel),
        filters(),
        erofs(kernel),
        user_namespaces(),
        landlock(),
    ]
}

fn root() -> Row {
    match nix::unistd::geteuid().is_root() {
        true => Row::ok("root", Need::Both, "yes"),
        false => Row::missing("root", Need::Both, "no", "run pods as root"),
    }
}

fn stage1() -> Row {
    match Stage1::Nspawn.find() {
        Ok(installed) => Row::ok("stage1-nspawn", Need::Nspawn, installed.binary.display().to_string()),
        Err(error) => Row::missing(
            "stage1-nspawn",
            Need::Nspawn,
            error.to_string(),
            "make build builds it; make install installs all of rkt",
        ),
    }
}

fn fly() -> Row {
    const NAME: &str = "stage1-fly";
    match Stage1::Fly.find() {
        Ok(installed) => Row::ok(NAME, Need::Optional, installed.binary.display().to_string()),
        Err(error) => {
            Row::missing(NAME, Need::Optional, error.to_string(), "make install installs all of rkt")
        }
    }
}

fn namespaces() -> Row {
    match host::missing_namespace() {
        None => Row::ok("namespaces", Need::Nspawn, "cgroup, ipc, mnt, net, pid, uts"),
        Some(name) => Row::missing("namespaces", Need::Nspawn, format!("no {name}"), "use another kernel"),
    }
}

fn overlay(kernel: &Kernel) -> Row {
    match kernel.has_file_system("overlay") {
        true => Row::ok("overlayfs", Need::Nspawn, "yes"),
        false => Row::missing(
            "overlayfs",
            Need::Nspawn,
            "no",
            "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS",
        ),
    }
}

fn filters() -> Row {
    const NAME: &str = "system call filters";
    match Path::new(KERNEL_TAKES_FILTERS).exists() {
        true => Row::ok(NAME, Need::Nspawn, "yes"),
        false => Row::missing(
            NAME,
            Need::Nspawn,
            "no",
            "a kernel with CONFIG_SECCOMP_FILTER, or --insecure-options=seccomp",
        ),
    }
}

fn erofs(kernel: &Kernel) -> Row {
    let release = host::release();
    match kernel.erofs() {
        Erofs::Files => Row::ok("EROFS", Need::Optional, format!("by file (Linux {release})")),
        Erofs::LoopDevices => Row::ok("EROFS", Need::Optional, format!("by loop device (Linux {release})")),
        Erofs::None => Row::missing(
            "EROFS",
            Need::Optional,
            "no: images for --stage1=nspawn are unpacked, once each",
            "modprobe erofs (and loop before Linux 6.12), or a kernel with CONFIG_EROFS_FS",
        ),
    }
}

/// What `--private-users` needs.
fn user_namespaces() -> Row {
    const NAME: &str = "user namespaces";
    match users::check_kernel() {
        Ok(()) => Row::ok(NAME, Need::Optional, "yes, for --private-users"),
        Err(error) => Row::missing(
            NAME,
            Need::Optional,
            error.to_string(),
            "sysctl user.max_user_namespaces=10000, or Linux 5.19 or later with CONFIG_USER_NS",
        ),
    }
}

/// What `--landlock` needs.
fn landlock() -> Row {
    const NAME: &str = "Landlock";
    match jail::landlock::version() {
        Ok(Some(version)) => Row::ok(NAME, Need::Optional, format!("version {version}, for --landlock")),
        Ok(None) => Row::missing(
            NAME,
            Need::Optional,
            "no",
            "boot with lsm=landlock,..., or a kernel with CONFIG_SECURITY_LANDLOCK",
        ),
        Err(errno) => Row::missing(NAME, Need::Optional, errno.to_string(), "run rkt doctor as root"),
    }
}
