//! Whether this process is in a unit of its own.

use std::fs;
use std::path::Path;

use crate::cgroup::{Hierarchy, Layout};
use crate::{Error, sys};

/// How a unit's cgroup says that it is delegated: for root, and since systemd 251 for everybody.
const DELEGATED: [&std::ffi::CStr; 2] = [c"trusted.delegate", c"user.delegate"];

/// What this process is in, as systemd sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// A unit whose cgroup is left to what runs in it.
    Delegated,
    /// A unit that nothing else is in, but that is not delegated: one without `Delegate=yes`.
    Alone {
        /// Its name.
        unit: String,
    },
    /// A unit with other processes, such as a login's session, or none at all.
    Shared,
    /// No cgroup file system shows it.
    Unknown,
}

impl Standing {
    /// As /proc and the cgroup file systems have it.
    pub fn of_this_process() -> Result<Self, Error> {
        let layout = Layout::of_this_process()?;
        let Some(own) = layout.of_systemd().next() else { return Ok(Self::Unknown) };
        // Where there are two, it depends on systemd's age which of them says it.
        let is_delegated = |unit: &Path| {
            let cgroups = layout.of_systemd().map(|hierarchy| hierarchy.top.join(unit));
            cgroups.into_iter().any(|cgroup| DELEGATED.iter().any(|name| sys::has_flag(&cgroup, name)))
        };
        Ok(Self::of(own, std::process::id(), is_delegated))
    }

    /// `is_delegated` is asked for a unit's cgroup by its path from the top.
    fn of(own: &Hierarchy, process: u32, is_delegated: impl Fn(&Path) -> bool) -> Self {
        let below = own.own.strip_prefix(&own.top).unwrap_or(Path::new(""));
        let Some((unit, cgroup)) = below.ancestors().find_map(|cgroup| Some((unit(cgroup)?, cgroup))) else {
            return Self::Shared;
        };
        if is_delegated(cgroup) {
            return Self::Delegated;
        }
        let processes = fs::read_to_string(own.top.join(cgroup).join("cgroup.procs")).unwrap_or_default();
        if processes.trim() == process.to_string() { Self::Alone { unit } } else { Self::Shared }
    }
}

/// The name of a cgroup that is a unit with processes.
fn unit(cgroup: &Path) -> Option<String> {
    let name = cgroup.file_name()?.to_str()?;
    (name.ends_with(".scope") || name.ends_with(".service")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Version;

    /// What a process 7 is in, whose cgroup is `own` and has `processes`.
    fn standing(own: &str, processes: &str, delegated: &str) -> Standing {
        let top = tempfile::tempdir().unwrap();
        let cgroup = top.path().join(own);
        fs::create_dir_all(&cgroup).unwrap();
        fs::write(cgroup.join("cgroup.procs"), processes).unwrap();
        let own = Hierarchy {
            version: Version::V2,
            controllers: Vec::new(),
            top: top.path().to_owned(),
            own: cgroup,
        };
        Standing::of(&own, 7, |cgroup| !delegated.is_empty() && cgroup.ends_with(delegated))
    }

    #[test]
    fn the_innermost_unit_counts() {
        let session = "user.slice/user-0.slice/session-1.scope";
        assert_eq!(standing(session, "5\n7\n", ""), Standing::Shared);
        let terminal = "user.slice/user@1000.service/app.slice/terminal.scope";
        // The user's systemd has it, not the terminal.
        assert_eq!(standing(terminal, "5\n7\n", "user@1000.service"), Standing::Shared);
        let service = "system.slice/web.service";
        assert_eq!(standing(service, "7\n", "web.service"), Standing::Delegated);
        assert_eq!(standing("system.slice/ci.service/job/1", "5\n7\n", "ci.service"), Standing::Delegated);
        assert_eq!(standing(service, "7\n", ""), Standing::Alone { unit: "web.service".into() });
        assert_eq!(standing(service, "5\n7\n", ""), Standing::Shared);
        assert_eq!(standing("", "7\n", ""), Standing::Shared);
        assert_eq!(standing("machine.slice", "7\n", ""), Standing::Shared);
    }
}
