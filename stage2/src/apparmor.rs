//! AppArmor: the profile that the next program is executed under.

use pod::apparmor::Profile;

use crate::attribute;
use crate::error::Error;

/// Where the kernel is told; the second before Linux 5.8, where AppArmor is the only module of its kind.
const FILES: [&str; 2] = ["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"];

/// Has the kernel execute this process's next program under `profile`.
pub fn execute_under(profile: &Profile) -> Result<(), Error> {
    let name = profile.as_str();
    attribute::write(&FILES, format!("exec {name}").as_bytes())
        .map_err(Error::system(format!("confine the app by the AppArmor profile {name}")))
}
