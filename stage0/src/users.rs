//! `--private-users`: which of the host's users a pod gets for itself.
//!
//! Each range has a file in `/run/rkt/private-users`, whatever the data directory, and a pod has the range whose file's
//! lock (flock) it holds: the lock goes from this process to the stage1 and its supervisor, and ends with the last of them,
//! however that ends. What is in the file, the pod's UUID, is for people. `rkt gc` removes the files of ranges that are free.
//!
//! The ranges are above those of systemd-nspawn, /etc/subuid and directory services (from 2000200000 on), and below
//! systemd's foreign users (from 2147352576 on). `private-users.json` of the administrator's configuration says others.

mod lock;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use pod::users::{COUNT, UserRange};
use serde::Deserialize;
use uuid::Uuid;

use crate::host;

/// What holds for this boot, whatever data directory is used.
const LOCKS: &str = "/run/rkt/private-users";
/// In the directory of the administrator's configuration.
const CONFIGURATION: &str = "private-users.json";
/// The first kernel that has overlays on layers whose owners are shifted.
const IDMAPPED_LAYERS: (u32, u32) = (5, 19);

/// Why a pod can have no users of its own.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The isolation has users of its own anyway.
    #[error("--private-users is for --stage1=nspawn: a VM's kernel has users of its own already")]
    OfVm,
    /// The kernel lacks something.
    #[error("--private-users needs {0}; rkt doctor shows what is missing")]
    Kernel(String),
    /// A file cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The configuration.
    #[error(
        "{} does not say which users pods can have; like {{\"first\": 2013265920, \"ranges\": 2046}}, with a multiple of {COUNT}, not 0, \
        and an end below 4294901760", .0.display()
    )]
    Configuration(PathBuf, #[source] Option<serde_json::Error>),
    /// All ranges are taken.
    #[error(
        "each of the {0} ranges of users is in use by a pod; end one, or configure more in {CONFIGURATION}"
    )]
    AllInUse(u32),
    /// rkt is itself in a user namespace.
    #[error(
        "this rkt runs in a user namespace that does not have the users {0}; configure others in {CONFIGURATION}"
    )]
    NotMapped(UserRange),
}

/// Users that are a pod's as long as this is open anywhere.
#[derive(Debug)]
pub struct Reserved {
    /// Which.
    pub range: UserRange,
    file: File,
}

impl Reserved {
    /// The lock's descriptor.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The users that pods can have: `ranges` of [`COUNT`] from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configured {
    first: u32,
    ranges: u32,
}

impl Configured {
    const DEFAULT: Self = Self { first: 0x7800_0000, ranges: 0x7fe };

    fn load(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(CONFIGURATION);
        let json = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::DEFAULT),
            read => read.map_err(failed("read", &path))?,
        };
        let configured: Self =
            serde_json::from_slice(&json).map_err(|error| Error::Configuration(path.clone(), Some(error)))?;
        if configured.is_good() { Ok(configured) } else { Err(Error::Configuration(path, None)) }
    }

    fn is_good(self) -> bool {
        let end = self.ranges.checked_mul(COUNT).and_then(|users| users.checked_add(self.first));
        self.first > 0
            && self.first.is_multiple_of(COUNT)
            && self.ranges > 0
            && end.is_some_and(|end| end <= u32::MAX - COUNT)
    }

    /// Every range, beginning anywhere, so that a pod seldom gets what another one has just left.
    fn from(self, start: u32) -> impl Iterator<Item = UserRange> {
        let start = start % self.ranges;
        let indices = (start..self.ranges).chain(0..start);
        indices.map(move |index| UserRange { shift: self.first + index * COUNT, count: COUNT })
    }
}

/// Whether this host's kernel can do it, as far as that can be told without doing it.
pub fn check_kernel() -> Result<(), Error> {
    let limit = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap_or_default();
    if !Path::new("/proc/self/ns/user").exists() || limit.trim().parse().unwrap_or(0u64) == 0 {
        return Err(Error::Kernel(
            "user namespaces (sysctl user.max_user_namespaces, CONFIG_USER_NS)".into(),
        ));
    }
    let release = host::release();
    match host::version(&release) {
        Some(version) if version < IDMAPPED_LAYERS => {
            Err(Error::Kernel(format!("overlays on idmapped layers, Linux 5.19 or later, not {release}")))
        }
        _ => Ok(()),
    }
}

/// Takes a range that no pod of this host has.
pub fn reserve(local_config: &Path, uuid: Uuid) -> Result<Reserved, Error> {
    check_kernel()?;
    let own = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    reserve_in(Path::new(LOCKS), Configured::load(local_config)?, uuid, &own)
}

fn reserve_in(locks: &Path, configured: Configured, uuid: Uuid, own_map: &str) -> Result<Reserved, Error> {
    fs::create_dir_all(locks).map_err(failed("make", locks))?;
    // The lower half of a random UUID is as random as it is.
    for range in configured.from(uuid.as_u128() as u32) {
        let path = locks.join(range.shift.to_string());
        let Some(mut file) = lock::take(&path).map_err(failed("lock", &path))? else { continue };
        if !is_mapped(own_map, range) {
            return Err(Error::NotMapped(range));
        }
        let recorded = file.set_len(0).and_then(|()| file.write_all(format!("{uuid}\n").as_bytes()));
        recorded.map_err(failed("write", &path))?;
        return Ok(Reserved { range, file });
    }
    Err(Error::AllInUse(configured.ranges))
}

/// Removes what is left of ranges that no pod has any more.
pub fn collect() -> Result<(), Error> {
    collect_in(Path::new(LOCKS))
}

fn collect_in(locks: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(locks) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed("read", locks))?,
    };
    for entry in entries {
        let path = entry.map_err(failed("read", locks))?.path();
        lock::remove(&path).map_err(failed("remove", &path))?;
    }
    Ok(())
}

/// Whether a uid_map (user_namespaces(7)), lines of inner number, outer number and count, has all of a range.
fn is_mapped(map: &str, range: UserRange) -> bool {
    let end = u64::from(range.shift) + u64::from(range.count);
    map.lines().any(|line| {
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        matches!(numbers[..], [inner, _, count] if inner <= range.shift.into() && end <= inner + count)
    })
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "         0          0 4294967295\n";

    #[test]
    fn no_two_have_one_range() {
        let locks = tempfile::tempdir().unwrap();
        let three = Configured { first: COUNT, ranges: 3 };
        let reserve = |number| reserve_in(locks.path(), three, Uuid::from_u128(number), ALL);
        let taken: Vec<_> = (0..3).map(|_| reserve(1).unwrap()).collect();
        let shifts: Vec<_> = taken.iter().map(|reserved| reserved.range.shift / COUNT).collect();
        assert_eq!(shifts, [2, 3, 1]);
        assert!(matches!(reserve(7), Err(Error::AllInUse(3))));
        let record = fs::read_to_string(locks.path().join((2 * COUNT).to_string())).unwrap();
        assert_eq!(record, format!("{}\n", Uuid::from_u128(1)));
        collect_in(locks.path()).unwrap();
        assert_eq!(fs::read_dir(locks.path()).unwrap().count(), 3);
        drop(taken);
        let reserved = reserve(7);
        assert!(reserved.is_ok(), "free with the lock");
        collect_in(locks.path()).unwrap();
        assert_eq!(fs::read_dir(locks.path()).unwrap().count(), 1);
        drop(reserved);
        collect_in(locks.path()).unwrap();
        assert_eq!(fs::read_dir(locks.path()).unwrap().count(), 0);
        collect_in(&locks.path().join("nowhere")).unwrap();
    }

    #[test]
    fn configurations() {
        assert!(Configured::DEFAULT.is_good());
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Configured::load(directory.path()).unwrap(), Configured::DEFAULT);
        let load = |json: &str| {
            fs::write(directory.path().join(CONFIGURATION), json).unwrap();
            Configured::load(directory.path())
        };
        assert_eq!(load(r#"{"first":131072,"ranges":5}"#).unwrap(), Configured { first: 131_072, ranges: 5 });
        for bad in [
            "",
            r#"{"first":0,"ranges":5}"#,
            r#"{"first":1,"ranges":5}"#,
            r#"{"first":65536,"ranges":0}"#,
            r#"{"first":65536,"ranges":65535}"#,
            r#"{"first":65536,"ranges":1,"more":1}"#,
        ] {
            assert!(matches!(load(bad), Err(Error::Configuration(..))), "{bad}");
        }
    }

    #[test]
    fn within_another_user_namespace() {
        let range = UserRange { shift: 65536, count: COUNT };
        assert!(is_mapped(ALL, range) && is_mapped("0 5 1\n65536 100000 65536\n", range));
        assert!(!is_mapped("0 100000 131071\n", range) && !is_mapped("", range));
        let locks = tempfile::tempdir().unwrap();
        let reserved = reserve_in(locks.path(), Configured::DEFAULT, Uuid::from_u128(1), "0 100000 65536\n");
        assert!(matches!(reserved, Err(Error::NotMapped(_))));
    }
}
