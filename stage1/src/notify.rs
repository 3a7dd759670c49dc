//! What rkt tells the service manager that has started it (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use crate::Error;

/// The variable that names its socket.
const VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells it that the pod is ready, and that this process is to be watched; nothing if there is none.
pub fn ready() -> Result<(), Error> {
    let Some(socket) = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) else { return Ok(()) };
    let message = format!("READY=1\nMAINPID={}", std::process::id());
    tell(&socket, &message).map_err(Error::file("tell the service manager by", Path::new(&socket)))
}

/// A name that begins with `@` is in no file system.
fn tell(name: &OsStr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    socket.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_path_and_by_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let name = format!("rkt-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{name}").into()),
        ] {
            tell(&address, "READY=1").unwrap();
            let mut bytes = [0; 9];
            assert_eq!(socket.recv(&mut bytes).unwrap(), 7);
        }
        assert!(tell(OsStr::new("/nowhere/notify"), "x").is_err());
    }
}
