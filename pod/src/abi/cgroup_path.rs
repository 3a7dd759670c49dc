//! A cgroup by its path from the top of a hierarchy.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::Error;

/// An absolute path of a cgroup, the same in every hierarchy: nothing in it leads up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPath(PathBuf);

impl CgroupPath {
    /// Where it is in the hierarchy that is mounted at `top`.
    pub fn below(&self, top: &Path) -> PathBuf {
        top.join(self.0.strip_prefix("/").unwrap_or(&self.0))
    }
}

impl FromStr for CgroupPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut components = Path::new(text).components();
        let absolute = components.next() == Some(Component::RootDir);
        // A line of the pod's record is a path.
        let plain =
            components.all(|part| matches!(part, Component::Normal(_))) && !text.contains(['\n', '\0']);
        if absolute && plain {
            Ok(Self(Path::new(text).components().collect()))
        } else {
            Err(Error::syntax(text, "a cgroup's absolute path without \"..\", such as /machine.slice"))
        }
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, path) in [("/", "/t/"), ("/a/b/", "/t/a/b"), ("/a//./b", "/t/a/b")] {
            assert_eq!(text.parse::<CgroupPath>().unwrap().below(Path::new("/t")), Path::new(path), "{text}");
        }
        for bad in ["", "a", "/a/../b", "..", "/a\nb"] {
            assert!(bad.parse::<CgroupPath>().is_err(), "{bad:?}");
        }
    }
}
