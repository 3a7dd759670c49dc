//! Whether this host can confine apps by SELinux, and which label their files have.

use std::fs;
use std::path::{Path, PathBuf};

use pod::plan::Plan;
use pod::selinux::{Context, file_context};

use crate::cli::Stage1;

/// Why an app cannot have its context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A guest's kernel has no policy.
    #[error(
        "app \"{0}\" asks for an SELinux context, and a VM's kernel has no policy of the host's; use --stage1=nspawn, or \
        leave the context out"
    )]
    OfVm(String),
    /// The kernel has no SELinux.
    #[error("app \"{0}\" asks for an SELinux context, and this host has no SELinux, or has it switched off")]
    Absent(String),
    /// What the policy says of containers cannot be read.
    #[error("app \"{app}\" asks for an SELinux context, and {} does not say how its files are labelled", path.display())]
    Policy {
        /// The app.
        app: String,
        /// The policy's file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error>,
    },
}

/// Whether every app of a pod can have the context that it asks for; the label of containers' files, if one does.
pub fn check(plan: &Plan, stage1: Stage1) -> Result<Option<Context>, Error> {
    let asking = plan.apps.iter().find(|app| app.process.selinux.is_some());
    let Some(app) = asking.map(|app| app.name.to_string()) else { return Ok(None) };
    match stage1 {
        Stage1::Kvm => Err(Error::OfVm(app)),
        Stage1::Nspawn | Stage1::Fly => label_of_files(Path::new("/"), app).map(Some),
    }
}

/// As the host with this root has it.
fn label_of_files(root: &Path, app: String) -> Result<Context, Error> {
    // The file system is mounted where SELinux is enabled (selinux(8)).
    if !root.join("sys/fs/selinux/enforce").exists() {
        return Err(Error::Absent(app));
    }
    let config = root.join("etc/selinux/config");
    let policy = |source: Box<dyn std::error::Error>, path: &Path| Error::Policy {
        app: app.clone(),
        path: path.to_owned(),
        source,
    };
    let text = fs::read_to_string(&config).map_err(|error| policy(error.into(), &config))?;
    let mut lines = text.lines().filter_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let kind = lines.next_back().unwrap_or("targeted").trim();
    let path = root.join("etc/selinux").join(kind).join("contexts/lxc_contexts");
    let text = fs::read_to_string(&path).map_err(|error| policy(error.into(), &path))?;
    file_context(&text).map_err(|error| policy(error.into(), &path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_tells_by_its_files() {
        let root = tempfile::tempdir().unwrap();
        let label = || label_of_files(root.path(), "web".into());
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(matches!(label(), Err(Error::Absent(_))));
        write("sys/fs/selinux/enforce", "1");
        assert!(matches!(label(), Err(Error::Policy { .. })));
        write("etc/selinux/config", "# comment\nSELINUX=enforcing\nSELINUXTYPE=mine\n");
        write("etc/selinux/mine/contexts/lxc_contexts", "nothing\n");
        assert!(label().unwrap_err().to_string().contains("mine/contexts"));
        write("etc/selinux/mine/contexts/lxc_contexts", "file = \"a:object_r:b:s0\"\n");
        assert_eq!(label().unwrap().to_string(), "a:object_r:b:s0");
    }
}
