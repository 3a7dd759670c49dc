//! AppArmor: the profile that the next program is executed under.

use std::fs::File;
use std::io::{Error as IoError, ErrorKind, Write};

use nix::errno::Errno;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use pod::apparmor::Profile;

use crate::error::{Error, errno};

/// Where the kernel is told; the second before Linux 5.8, where AppArmor is the only module of its kind.
const FILES: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];

/// Has the kernel execute this process's next program under `profile`.
pub fn execute_under(profile: &Profile) -> Result<(), Error> {
    let name = profile.as_str();
    tell(name).map_err(Error::system(format!("confine the app by the AppArmor profile {name}")))
}

fn tell(name: &str) -> nix::Result<()> {
    let open = |path: &str| File::options().write(true).open(path);
    let [first, second] = FILES;
    let opened = match open(first) {
        Err(error) if error.kind() == ErrorKind::NotFound => open(second),
        opened => opened,
    };
    let mut file = opened.map_err(|error: IoError| errno(&error))?;
    // A volume over /proc would take the profile's name and confine nothing (CVE-2019-16884).
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::ENOTSUP);
    }
    file.write_all(format!("exec {name}").as_bytes()).map_err(|error| errno(&error))
}
