//! Whether this host can confine apps by AppArmor.

use std::fs;
use std::path::Path;

use pod::apparmor::Profile;
use pod::plan::{AppPlan, Plan};

use crate::cli::Stage1;

/// Why an app cannot have its profile.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A guest's kernel has no profiles.
    #[error(
        "app \"{0}\" asks for an AppArmor profile, and a VM's kernel has none of the host's; use --stage1=nspawn, or leave \
        the profile out"
    )]
    OfVm(String),
    /// The kernel has no AppArmor.
    #[error(
        "app \"{0}\" asks for an AppArmor profile, and this host has no AppArmor, or has it switched off"
    )]
    Absent(String),
    /// The profile is not loaded.
    #[error(
        "app \"{app}\" asks for the AppArmor profile {profile}, which is not loaded (load it with apparmor_parser)"
    )]
    NotLoaded {
        /// The app.
        app: String,
        /// The profile.
        profile: String,
    },
}

/// What of AppArmor a kernel has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AppArmor {
    is_enabled: bool,
    /// Its list of profiles, if that can be read: where securityfs is mounted.
    profiles: Option<String>,
}

impl AppArmor {
    /// Of the running kernel, whose /sys is at `sys`.
    fn of(sys: &Path) -> Self {
        let read = |file: &str| fs::read_to_string(sys.join(file)).ok();
        Self {
            is_enabled: read("module/apparmor/parameters/enabled").is_some_and(|text| text.trim() == "Y"),
            profiles: read("kernel/security/apparmor/profiles"),
        }
    }

    fn has(&self, profile: &Profile) -> bool {
        // What cannot be told here the kernel refuses when the app starts.
        self.profiles.as_deref().is_none_or(|profiles| profile.is_listed(profiles))
    }

    fn can_confine(&self, app: &AppPlan, profile: &Profile) -> Result<(), Error> {
        let name = app.name.to_string();
        match self {
            Self { is_enabled: false, .. } => Err(Error::Absent(name)),
            _ if self.has(profile) => Ok(()),
            _ => Err(Error::NotLoaded { app: name, profile: profile.as_str().to_owned() }),
        }
    }
}

/// Whether every app of a pod can have the profile that it asks for.
pub fn check(plan: &Plan, stage1: Stage1) -> Result<(), Error> {
    let mut asking =
        plan.apps.iter().filter_map(|app| Some((app, app.process.apparmor.as_ref()?))).peekable();
    match (asking.peek(), stage1) {
        (None, _) => Ok(()),
        (Some((app, _)), Stage1::Kvm) => Err(Error::OfVm(app.name.to_string())),
        (Some(_), Stage1::Nspawn | Stage1::Fly) => {
            let here = AppArmor::of(Path::new("/sys"));
            asking.try_for_each(|(app, profile)| here.can_confine(app, profile))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_tells_by_its_files() {
        let sys = tempfile::tempdir().unwrap();
        let web = Profile::try_from("web".to_owned()).unwrap();
        assert_eq!(AppArmor::of(sys.path()), AppArmor { is_enabled: false, profiles: None });
        let write = |file: &str, text: &str| {
            let path = sys.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("module/apparmor/parameters/enabled", "Y\n");
        let unlisted = AppArmor::of(sys.path());
        assert!(unlisted.is_enabled && unlisted.has(&web));
        write("kernel/security/apparmor/profiles", "database (enforce)\n");
        assert!(!AppArmor::of(sys.path()).has(&web));
        write("kernel/security/apparmor/profiles", "database (enforce)\nweb (enforce)\n");
        assert!(AppArmor::of(sys.path()).has(&web));
    }
}
