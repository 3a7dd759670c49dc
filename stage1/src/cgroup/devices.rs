//! The device policy of a cgroup: by files in cgroup v1, by a program in cgroup v2.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::Path;

use ::pod::devices::DevicePolicy;

use super::Version;
use crate::Error;

/// Keeps the processes of a new cgroup to the devices that `policy` allows.
pub fn confine(cgroup: &Path, version: Version, policy: &DevicePolicy) -> Result<(), Error> {
    match version {
        Version::V1 => policy.cgroup_v1_settings().iter().try_for_each(|setting| {
            let path = cgroup.join(&setting.file);
            let failed =
                |source| Error::DeviceRule { rule: setting.value.clone(), path: path.clone(), source };
            fs::write(&path, &setting.value).map_err(failed)
        }),
        Version::V2 => {
            let directory = File::open(cgroup).map_err(Error::file("open", cgroup))?;
            let failed = |source| Error::DeviceFilter { cgroup: cgroup.to_owned(), source };
            ::devices::confine(directory.as_fd(), policy).map_err(failed)
        }
    }
}
