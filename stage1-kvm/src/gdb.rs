//! Debuggers of the guest, in builds with the feature `gdb` alone.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use vmm::MachineConfig;
use vmm::gdb::Gdb;

use crate::error::Error;

/// Names the socket that debuggers connect to, by an absolute path. Whoever starts rkt sets it; nothing of a pod can.
const ENV_SOCKET: &str = "RKT_GDB";

/// The socket's file, until this is dropped.
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.0);
    }
}

/// Has the machine wait for a debugger if somebody wants that, and says what it costs.
pub fn debug(mut config: MachineConfig) -> Result<(MachineConfig, Option<Socket>), Error> {
    let Some(path) = std::env::var_os(ENV_SOCKET).map(PathBuf::from) else { return Ok((config, None)) };
    let failed =
        |source| stage1::Error::File { action: "let debuggers connect to", path: path.clone(), source };
    let (listener, socket) = listen(&path).map_err(failed)?;
    eprintln!(
        "stage1-kvm: {ENV_SOCKET}: the guest waits for a debugger at {}; the machine has no filters of system calls",
        path.display()
    );
    config.gdb = Some(Gdb::new(listener));
    Ok((config, Some(socket)))
}

fn listen(path: &Path) -> io::Result<(UnixListener, Socket)> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not absolute"));
    }
    let listener = UnixListener::bind(path)?;
    let socket = Socket(path.to_owned());
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok((listener, socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_its_owners_and_vanishes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gdb");
        let (_listener, socket) = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(listen(&path).is_err(), "somebody is there");
        drop(socket);
        assert!(!path.exists());
        assert!(listen(Path::new("gdb")).is_err());
    }
}
