//! `rkt export`: an app of an ended pod becomes an image.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flate2::write::GzEncoder;
use pack::{AciWriter, pack_tree};
use pod::abi::PodDirectory;
use pod::users::UserRange;
use uuid::Uuid;

use super::{Outcome, enter};
use crate::cli::{ExportFlags, Globals, Stage1};
use crate::pods::merged::mount_app;
use crate::pods::{self, Pod, Pods, State, guest_tree, mounts};
use crate::stage1::Foreign;
use crate::{output, store};

/// Why an app cannot be exported.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("cannot run as unprivileged user: to export an app is for root")]
    Unprivileged,
    #[error("{} is to be an ACI, but its name does not end in .aci", .0.display())]
    Extension(PathBuf),
    #[error("pod \"{0}\" is {1}; only what has ended is exported")]
    NotEnded(Uuid, State),
    #[error("pod \"{0}\" is being run or removed")]
    InUse(Uuid),
    #[error("the stage1 of pod \"{0}\" has left mounts in the app's root; rkt gc removes them, with the pod")]
    Mounted(Uuid),
}

/// The users that a pod had for itself, if it had any.
fn users_of(directory: &PodDirectory) -> Result<Option<UserRange>, Box<dyn Error>> {
    match fs::read_to_string(directory.private_users()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => Ok(Some(text?.parse()?)),
    }
}

/// Writes what an app of an ended pod sees as an ACI, compressed by gzip, with the manifest of its image.
pub fn export(globals: &Globals, flags: &ExportFlags) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Refused::Unprivileged.into());
    }
    if flags.output.extension().is_none_or(|extension| extension != "aci") {
        return Err(Refused::Extension(flags.output.clone()).into());
    }
    // The working directory will be another one.
    let path = std::path::absolute(&flags.output)?;
    let pods = Pods::new(&globals.directory);
    pods.follow(pods.find(&flags.uuid)?, |pod| export_of(globals, pod, flags, &path))?;
    Ok(ExitCode::SUCCESS)
}

fn export_of(globals: &Globals, pod: &Pod, flags: &ExportFlags, path: &Path) -> Result<(), Box<dyn Error>> {
    if !matches!(pod.state, State::Exited | State::ExitedGarbage) {
        return Err(Refused::NotEnded(pod.uuid, pod.state).into());
    }
    // As long as this is held, nobody removes it.
    let lock = File::open(&pod.path).map_err(pods::Error::io("open", &pod.path))?;
    lock.try_lock_shared().map_err(|_| Refused::InUse(pod.uuid))?;
    let directory = PodDirectory::new(&pod.path);
    let stage1 = match Foreign::of_pod(directory.path())? {
        Some(_) => None,
        None => Some(Stage1::of_pod(&directory)?.0),
    };
    let apps = pod.manifest()?.apps;
    let app = &enter::choose(&apps, flags.app.as_ref())?.name;
    let manifest = directory.app_manifest(app);
    let manifest = fs::read(&manifest).map_err(pods::Error::io("read", &manifest))?;
    output::file(path, flags.overwrite, |file| -> Result<(), Box<dyn Error>> {
        let spare = store::spare(&globals.directory, &format!("export-{}-{app}", pod.uuid))?;
        let output = GzEncoder::new(BufWriter::new(file), flate2::Compression::default());
        let output = match stage1 {
            None => {
                let root = directory.stage2(app).join("rootfs");
                if !mounts::below(&root)?.is_empty() {
                    return Err(Refused::Mounted(pod.uuid).into());
                }
                pack_tree(&root, None, &manifest, output)?
            }
            Some(Stage1::Kvm) => {
                let tree = guest_tree::import(&pod.path, pod.uuid, app, unnamed_file(&spare)?)?;
                let mut writer = AciWriter::new(output, &manifest)?;
                writer.add_image(&tree)?;
                writer.finish()?
            }
            Some(Stage1::Nspawn | Stage1::Fly) => {
                let users = users_of(&directory)?;
                let merged = mount_app(&directory, app, spare)?;
                pack_tree(&merged.root, users, &manifest, output)?
            }
        };
        Ok(output.finish()?.flush()?)
    })
}

/// A file beside `spare`, of which nothing is left however this process ends.
fn unnamed_file(spare: &Path) -> io::Result<File> {
    tempfile::tempfile_in(spare.parent().unwrap_or(spare))
}
