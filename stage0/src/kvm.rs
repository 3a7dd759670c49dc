//! Whether KVM runs guests here, found out once a boot.
//!
//! The proof is a machine of its own, and to create one is most of what a start of rkt would take. So a host that has
//! given it once is believed until it boots again or `/dev/kvm` is made anew, as it is when its driver is loaded again.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use vmm::probe::{self, KVM_PATH, Problem};

/// What holds for this boot, whatever data directory is used.
const DIRECTORY: &str = "/run/rkt";
/// In it: the [`Host`] that has proved itself.
const PROVED: &str = "kvm-proved";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Makes the checks that are quick, and lets a guest run unless one has in this boot.
pub fn preflight() -> Result<(), Problem> {
    let directory = Path::new(DIRECTORY);
    let kvm = probe::open_checked()?;
    let host = Host::this();
    if host.as_ref().is_ok_and(|host| host.has_proved_itself(directory)) {
        return Ok(());
    }
    probe::can_run_guest(&kvm)?;
    // Where that cannot be written down, the next call finds out again.
    let _ = host.and_then(|host| host.write_down(directory));
    Ok(())
}

/// A boot of this host, with its KVM.
#[derive(Debug, PartialEq, Eq)]
struct Host(String);

impl Host {
    fn this() -> io::Result<Self> {
        let boot = fs::read_to_string(BOOT_ID)?;
        let device = fs::metadata(KVM_PATH)?;
        let (inode, seconds, nanoseconds) = (device.ino(), device.ctime(), device.ctime_nsec());
        Ok(Self(format!("{} {inode} {seconds}.{nanoseconds:09}\n", boot.trim_end())))
    }

    fn has_proved_itself(&self, directory: &Path) -> bool {
        fs::read_to_string(directory.join(PROVED)).is_ok_and(|proved| proved == self.0)
    }

    fn write_down(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let unfinished = directory.join(format!("{PROVED}.{}", std::process::id()));
        fs::write(&unfinished, &self.0)?;
        fs::rename(unfinished, directory.join(PROVED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_one_boot_and_one_driver() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path().join("rkt");
        let host = Host("boot 1 2.3\n".into());
        assert!(!host.has_proved_itself(&directory));
        host.write_down(&directory).unwrap();
        assert!(host.has_proved_itself(&directory));
        assert!(!Host("another 1 2.3\n".into()).has_proved_itself(&directory));
        assert!(!Host("boot 1 2.4\n".into()).has_proved_itself(&directory));
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing half-made is left");
    }
}
