//! Whether this host's kernel can restrict apps by Landlock as they ask for.

use pod::landlock::Needed;
use pod::plan::Plan;

use crate::cli::Stage1;

/// Why an app cannot have its rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no Landlock.
    #[error(
        "app \"{0}\" asks for Landlock, and this host's kernel has none, or has it switched off (boot with lsm=landlock,... \
        or use --stage1=kvm)"
    )]
    Absent(String),
    /// The kernel's is too old.
    #[error(
        "app \"{app}\" asks for {} of Landlock, which need version {} of it (Linux {}); this host's kernel has version \
        {version}, the VM's of --stage1=kvm has all", needed.what, needed.version, needed.linux
    )]
    TooOld {
        /// The app.
        app: String,
        /// What it needs.
        needed: Needed,
        /// The kernel's version.
        version: u32,
    },
    /// The kernel cannot be asked.
    #[error("cannot ask the kernel for its version of Landlock")]
    Unknown(#[source] nix::Error),
}

/// Whether every app of a pod can have the rules that it asks for. The kernel of a VM has all of them.
pub fn check(plan: &Plan, stage1: Stage1) -> Result<(), Error> {
    let asking = plan.apps.iter().filter_map(|app| Some((app, app.process.landlock.as_ref()?)));
    let asking: Vec<_> = asking.map(|(app, rules)| (app.name.as_str(), rules.needed())).collect();
    if asking.is_empty() || stage1 == Stage1::Kvm {
        return Ok(());
    }
    let version = jail::landlock::version().map_err(Error::Unknown)?;
    asking.into_iter().try_for_each(|(app, needed)| suffices(version, app, needed))
}

fn suffices(version: Option<u32>, app: &str, needed: Needed) -> Result<(), Error> {
    match version {
        None => Err(Error::Absent(app.into())),
        Some(version) if version < needed.version => Err(Error::TooOld { app: app.into(), needed, version }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        let rules: pod::landlock::Landlock = serde_json::from_str(r#"{"bind":[80]}"#).unwrap();
        let needed = rules.needed();
        assert!(suffices(Some(4), "web", needed).is_ok());
        let error = suffices(Some(3), "web", needed).unwrap_err().to_string();
        assert!(error.contains("rules for ports") && error.contains("Linux 6.7"), "{error}");
        assert!(suffices(None, "web", needed).unwrap_err().to_string().contains("has none"));
    }
}
