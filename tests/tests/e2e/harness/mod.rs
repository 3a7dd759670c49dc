//! What every test uses: an `rkt` with a data directory of its own, processes with a time limit, and the check for
//! what they leave behind.

mod aci;
mod archive;
mod host;
mod leftovers;
mod process;
mod sockets;
mod systemd;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use aci::{Aci, Entry};
pub use archive::Archive;
pub use host::Host;
pub use process::{Finished, LIMIT, Process, wait_until};
pub use sockets::pass_sockets;
pub use systemd::Systemd;

/// busybox as an ACI; says `hello from busybox in /srv` by default.
pub const BUSYBOX: &str = "busybox.aci";
/// Debian with Python as an OCI layout.
pub const DEBIAN: &str = "debian-oci";

/// The isolation under test.
pub fn stage1() -> String {
    variable("RKT_TEST_STAGE1")
}

/// Whether this is the machine that `tests/kvm-host` boots: nobody else works on it, and it is gone after the tests.
pub fn is_throw_away_host() -> bool {
    nix::unistd::gethostname().unwrap() == "kvm-host"
}

/// How much to do: all of it, or what is enough where everything is emulated and takes ten times as long.
pub fn effort<T>(all: T, emulated: T) -> T {
    if is_throw_away_host() { emulated } else { all }
}

/// The `rkt` under test.
pub fn rkt() -> PathBuf {
    variable("RKT").into()
}

/// The path of an image by its name.
pub fn image(name: &str) -> String {
    format!("{}/{name}", variable("RKT_TEST_IMAGES"))
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; these tests are run by tests/suite"))
}

/// The files below a directory that hold something, with their sizes.
pub fn sizes(directory: &Path) -> BTreeMap<PathBuf, u64> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            sizes.extend(self::sizes(&entry.path()));
        } else if metadata.len() > 0 {
            sizes.insert(entry.path(), metadata.len());
        }
    }
    sizes
}
